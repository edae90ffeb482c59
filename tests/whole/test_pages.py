"""What the pages say can be done can be done: their commands run or are valid, and their Python runs.

A block of ``sh`` or ``python`` runs here with a bundle of random weights, in a folder where the files that it names are
made. One that cannot, since it wants a hub, a store, a cluster, a GPU or a server, has a comment before it in the page
that says why (``<!-- not run: REASON -->``): its commands are then only parsed by the real command line.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from page_files import Files, Run, alpaca
from pages import PAGES, Block, blocks_of, commands_in, name_of
from paths import ROOT
from served import listening
from typer.exceptions import TyperException
from typer.main import get_command

from instructmining.bundle.demo import demo_place
from instructmining_cli.app import app

# Pages whose blocks another test runs, and compares with what is printed there.
RUN_ELSEWHERE = {
    ("docs/fitting.md", "sh"): "tests/rules/fitting/test_fitting.py",
    ("docs/fitting.md", "python"): "tests/rules/fitting/test_fitting.py",
    ("docs/method.md", "python"): "tests/whole/test_method.py",
    ("docs/coming-from.md", "sh"): "tests/whole/test_coming_from.py",
    ("docs/coming-from.md", "python"): "tests/whole/test_coming_from.py",
    ("docs/outputs.md", "python"): "tests/whole/test_trainers.py",
    ("docs/troubleshooting.md", "console"): "tests/whole/test_troubleshooting.py",
}
# What a line of shell may begin with besides our command; pip, make and python are looked at more closely.
OTHER_PROGRAMS = {"curl", "export", "head", "lm_eval", "make", "pip", "python", ".venv/bin/python", "tritonserver"}


def blocks(language: str, *, run: bool) -> list[Block]:
    return [
        block
        for page in PAGES
        for block in blocks_of(page, language)
        if run is (block.why_not_run is None and (block.page, language) not in RUN_ELSEWHERE)
    ]


def pages_with(language: str) -> list[str]:
    return sorted({block.page for block in blocks(language, run=True)})


# Commands


@pytest.mark.parametrize("page", pages_with("sh"))
def test_the_commands_of_a_page_run(
    page: str,
    run: Run,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = Files(tmp_path, small_bundle, run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    demo_place().parent.mkdir()
    demo_place().symlink_to(small_bundle)
    for block in blocks_of(ROOT / page, "sh"):
        if block.why_not_run is not None:
            continue
        for line in block.lines:
            for command in commands_in(line):
                made.make(command.words)
                capfd.readouterr()
                code = run(*command.words)
                printed = capfd.readouterr()
                assert code == 0, f"{block}: {line}\n{printed.err}"
                if command.out is not None:
                    Path(command.out).write_text(printed.out, encoding="utf-8")


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES])
def test_every_line_of_shell_of_a_page_is_understood(page: str) -> None:
    for block in blocks_of(ROOT / page, "sh", "bash", "shell", "console"):
        if (page, block.language) in RUN_ELSEWHERE:
            continue
        assert block.language == "sh", f"{block}: write sh"
        for line in block.lines:
            of_others = shlex.split(line)[0] in OTHER_PROGRAMS or block.why_not_run
            assert of_others or any(commands_in(line)), f"{block}: {line}"


@pytest.mark.parametrize("block", blocks("sh", run=False), ids=str)
def test_commands_that_do_not_run_here_are_valid(block: Block) -> None:
    for line in block.lines:
        for command in commands_in(line):
            parsed([word.replace("{}", "1,2") for word in command.words], f"{block}: {line}")


# Python


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(
    page: str, run: Run, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Files(tmp_path, small_bundle, run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    demo_place().parent.mkdir()
    demo_place().symlink_to(small_bundle)
    for block in blocks_of(ROOT / page, "python"):
        if block.why_not_run is None:
            made.make(re.findall(r'"([\w./-]+)"', block.code))
            done = subprocess.run([sys.executable, "-c", block.code], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{block}\n{done.stderr}"
            assert done.stdout or "print" not in block.code, block


@pytest.mark.parametrize("block", blocks("python", run=False), ids=str)
def test_python_that_does_not_run_here_imports_names_that_exist(block: Block) -> None:
    tree = ast.parse(textwrap.dedent(block.code))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("instructmining"):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], block


# The service


def test_what_the_page_of_the_service_asks_is_answered(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = ROOT / "docs" / "serving.md"
    monkeypatch.chdir(tmp_path)
    files = Files(tmp_path, small_bundle, lambda *_: 0)
    files.make(["rows.jsonl", "pool.jsonl"])
    with listening(small_bundle, rule="paper-v1", indicators="perplexity", knn_against="pool.jsonl") as served:
        asked = 0
        for block in blocks_of(page, "sh"):
            for line in block.lines:
                if line.startswith("curl ") and "$" not in line:
                    answer = asked_by_curl(line.replace("localhost:8000", f"127.0.0.1:{served.port}"))
                    assert "error" not in answer.splitlines()[0], block
                    asked += 1
        assert asked >= 3
        code = "".join(block.code for block in blocks_of(page, "python") if "client.score" in block.code)
        exec(code.replace("http://127.0.0.1:8000", served.url), {"rows": iter(alpaca(3))})
    assert float(capsys.readouterr().out) > 1


def asked_by_curl(line: str) -> str:
    """Send what a call of curl would; the answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for short, long in (("-d", "--data"), ("-T", "--upload-file"), ("-X", "--request"), ("-H", "--header")):
        parser.add_argument(short, long)
    asked = parser.parse_args(shlex.split(line)[1:])
    body = Path(asked.upload_file).read_bytes() if asked.upload_file else asked.data.encode()
    headers = dict([asked.header.split(": ", 1)] if asked.header else [])
    request = urllib.request.Request(f"http://{asked.url}", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


# The whole


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.slow
def test_the_scores_on_the_pages_and_in_the_picture_are_those_of_the_demo(
    run: Run, real_bundle: Path, tmp_path: Path
) -> None:
    rows, out = ROOT / "examples" / "alpaca.json", tmp_path / "scored.jsonl"
    options = ["--bundle", real_bundle, "--device", "cpu", "--rule", "paper-v1", "--indicators", "all", "--quiet"]
    assert run("score", rows, "-o", out, *options) == 0
    scored = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    ranked = sorted(scored, key=lambda row: float(row["predicted_log_loss"]))
    table = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8").split("## Three rows")[1]
    names, _, *lines = [line.strip("| ").split(" | ") for line in re.findall(r"^\|.*\|$", table, re.MULTILINE)]
    for (response, *cells), row in zip(lines, [ranked[0], ranked[2], ranked[-1]], strict=True):
        assert " ".join(row["output"].split()) == response
        for name, cell in zip(names[1:], cells, strict=True):
            assert rounded(row[name], cell.split(",")[0]), (name, cell)
    picture = (ROOT / "docs" / "images" / "flow.svg").read_text(encoding="utf-8")
    shown = re.findall(r'class="n e"[^>]*>([^<]+)<', picture)
    kept = [ranked[0], ranked[2], scored[0], ranked[-1]]
    wanted = [row[name] for row in kept for name in ("reward", "output_length", "knn_6")]
    wanted += [row["predicted_log_loss"] for row in kept]
    assert len(wanted) == len(shown)
    assert all(map(rounded, wanted, shown)), (wanted, shown)


def rounded(value: float, text: str) -> bool:
    """Whether a text is this number, rounded to as many places."""
    digits = text.strip("*").replace("−", "-")
    return abs(value - float(digits)) <= 0.51 * 10.0 ** -len(digits.partition(".")[2])


def test_every_page_that_does_not_run_all_says_why() -> None:
    for language in ("sh", "python"):
        for block in blocks(language, run=False):
            reason = RUN_ELSEWHERE.get((block.page, language), block.why_not_run or "")
            assert len(reason) > 8, block
            assert (ROOT / reason).is_file() or " " in reason, f"{block}: {reason}"


def parsed(words: list[str], where: str) -> None:
    """Parse by the real command line: all options, arguments and kinds of values are right. Nothing runs."""
    group: Any = get_command(app)
    name = words[0]
    while hasattr(group, "commands"):
        assert words[0] in group.commands, f"{where}: no command {words[0]!r}"
        group, name, words = group.commands[words[0]], words[0], words[1:]
    try:
        group.make_context(name, list(words)).close()
    except typer.Exit:  # --help and the like
        pass
    except TyperException as error:
        pytest.fail(f"{where}: {error}")
