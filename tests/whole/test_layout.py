"""The promises about the project itself: what is imported, what runs without PyTorch, what files name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from paths import ROOT

from instructmining import __version__

HEAVY = ("torch", "transformers", "onnx", "onnx_ir", "safetensors", "accelerate", "gguf")


def python(executable: Path | str, code: str, *arguments: str) -> str:
    done = subprocess.run([str(executable), "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_engine_and_the_command_line_loads_none_of_the_export_libraries() -> None:
    code = "import sys, instructmining, instructmining_cli.main; print(*sys.modules, sep='\\n')"
    assert not set(HEAVY) & set(python(sys.executable, code).splitlines())


def test_help_does_not_wait_for_onnxruntime() -> None:
    code = "import sys, instructmining_cli.main; print(*sys.modules, sep='\\n')"
    assert not {"onnxruntime", "tokenizers", "numpy"} & set(python(sys.executable, code).splitlines())


def test_every_test_file_stands_where_its_module_does() -> None:
    packages = {
        "cli": "cli/instructmining_cli",
        "experiments": "experiments/instructmining_experiments",
        "export": "export/instructmining_export",
        "report": "report/instructmining_report",
        "scale": "scale/instructmining_scale",
        "serving": "serving/instructmining_serving",
    }
    for test in (ROOT / "tests").rglob("test_*.py"):
        first, *inner = test.relative_to(ROOT / "tests").parent.parts
        if first == "whole":
            continue
        package = packages.get(first)
        folder = ROOT / package / Path(*inner) if package else ROOT / "engine" / "instructmining" / first / Path(*inner)
        name = test.stem.removeprefix("test_")
        assert (folder / f"{name}.py").is_file() or (folder.name == name and (folder / "__init__.py").is_file()), test


@pytest.mark.parametrize("pins", ["constraints.txt", "constraints-transformers5.txt"])
def test_the_pins_cover_what_the_project_needs(pins: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / pins).read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["export"]]
    names = {re.split(r"[\[<>=; ]", requirement)[0].lower() for requirement in wanted if "darwin" not in requirement}
    assert names <= pinned


def test_the_containerfile_names_an_extra_and_options_of_serve_that_exist() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    entry, command = (
        json.loads(re.findall(rf"^{kind} (\[.*\])$", text, re.MULTILINE)[0]) for kind in ("ENTRYPOINT", "CMD")
    )
    assert entry[:2] == ["instructmining", "serve"]
    code = "from instructmining_cli.main import main; main()"
    shown = python(sys.executable, code, "serve", "--help")
    assert {word for word in [*entry, *command] if word.startswith("--")} <= set(re.findall(r"--[\w-]+", shown))
    assert re.search(r"^USER \d+$", text, re.MULTILINE)


def test_the_makefile_and_the_pages_name_only_benchmarks_that_exist() -> None:
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    modules = re.findall(r"-m (benchmarks[\w.]*\w)", text)
    folders = [Path(*module.split(".")) for module in modules]
    scripts = [folder / "__main__.py" if (ROOT / folder).is_dir() else folder.with_suffix(".py") for folder in folders]
    files = re.findall(r"\bbenchmarks/[\w/-]+\.\w+", text) + scripts
    assert len(files) >= 6
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_a_users_script_passes_mypy_in_strict_mode(tmp_path: Path) -> None:
    options = ["--strict", "--follow-imports", "silent", "--config-file", "", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(ROOT / "tests" / "whole" / "typed_use.py")],
        env=os.environ | {"MYPYPATH": str(ROOT / "engine")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_package_says_that_it_is_typed() -> None:
    packages = [
        path.parent
        for root in ("engine", "export", "experiments", "serving", "scale", "report", "cli")
        for path in (ROOT / root).glob("*/__init__.py")
    ]
    assert len(packages) == 7
    assert all((package / "py.typed").is_file() for package in packages)


def test_python_dash_m_is_the_command_line() -> None:
    command = [sys.executable, "-m", "instructmining"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"instructmining {__version__}\n")
    for arguments, code, usage in (
        (["--help"], 0, "Usage: instructmining [OPTIONS] COMMAND"),
        (["score", "--help"], 0, "Usage: instructmining score "),
        (["score"], 2, "Usage: instructmining score "),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code
        assert (done.stdout + done.stderr).lstrip().startswith(usage)
