"""What the pages say is so: their commands run or are valid, their Python runs, their links lead somewhere.

A block of ``sh`` or ``python`` runs here with a bundle of random weights, in a folder where the files that it names are
made. One that cannot, since it wants a hub, a store, a cluster, a GPU or a server, has a comment before it in the page
that says why (``<!-- not run: REASON -->``): its commands are then only parsed by the real command line. Links to other
sites are checked for their form alone.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
from commands import commands_of
from pages import DOCS, PAGES, Block, anchors_of, blocks_of, commands_in, inline_code_of, links_of, name_of
from paths import ROOT
from typer.exceptions import TyperException
from typer.main import get_command

from instructmining_cli.app import app

Run = Callable[..., int]

# Pages whose blocks another test runs, and compares with what is printed there.
RUN_ELSEWHERE = {
    ("docs/fitting.md", "sh"): "tests/rules/fitting/test_fitting.py",
    ("docs/fitting.md", "python"): "tests/rules/fitting/test_fitting.py",
    ("docs/method.md", "python"): "tests/whole/test_method.py",
    ("docs/coming-from.md", "sh"): "tests/whole/test_coming_from.py",
    ("docs/coming-from.md", "python"): "tests/whole/test_coming_from.py",
    ("docs/outputs.md", "python"): "tests/whole/test_trainers.py",
}
# What a line of shell may begin with besides our command; pip, make and python are looked at more closely.
OTHER_PROGRAMS = {"curl", "export", "head", "lm_eval", "make", "pip", "python", ".venv/bin/python", "tritonserver"}
# Options in the text that are of other programs.
OTHER_OPTIONS = {"--array", "--flip-keys", "--from", "--keep-original", "--requeue"}
CHANGELOG = ROOT / "CHANGELOG.md"  # names what there was
BENCHMARKS = ROOT / "benchmarks" / "README.md"  # names options of its own programs
COMING_FROM = ROOT / "docs" / "coming-from.md"  # names those of other tools


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
    monkeypatch.setattr("instructmining_cli.run.demo_bundle.demo_bundle", lambda _: small_bundle)
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
        assert block.language == "sh", f"{block}: write sh"
        for line in block.lines:
            of_others = shlex.split(line)[0] in OTHER_PROGRAMS or block.why_not_run or (page, "sh") in RUN_ELSEWHERE
            assert of_others or any(commands_in(line)), f"{block}: {line}"


@pytest.mark.parametrize("block", blocks("sh", run=False), ids=str)
def test_commands_that_do_not_run_here_are_valid(block: Block) -> None:
    for line in block.lines:
        for command in commands_in(line):
            parsed([word.replace("{}", "1,2") for word in command.words], f"{block}: {line}")


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES if page not in {CHANGELOG, BENCHMARKS, COMING_FROM}])
def test_the_text_of_a_page_names_commands_and_options_that_exist(page: str) -> None:
    commands = commands_of()
    options = {option for command in commands.values() for param in command.params for option in param.opts}
    known = options | {f"--no-{option[2:]}" for option in options} | {"--help", "--version"} | OTHER_OPTIONS
    for code in inline_code_of(ROOT / page):
        if code.split()[0] not in OTHER_PROGRAMS:
            assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) <= known, code
        if found := re.match(r"instructmining ((?:experiment )?[a-z][a-z-]*)", code):
            assert found[1] in {*commands, "experiment"}, code


def test_the_makefile_and_the_extras_have_what_the_pages_name() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for page in PAGES:
        lines = [line for block in blocks_of(page, "sh") for line in block.lines]
        for code in [*lines, *inline_code_of(page)]:
            if found := re.match(r"(?:[A-Z_]+=\S+ )?make ([\w-]+)", code):
                assert found[1] in targets, f"{page}: {code}"
            for extras in re.findall(r"instructmining\[([\w,-]+)\]", code):
                assert set(extras.split(",")) <= set(project["optional-dependencies"]), f"{page}: {code}"
            if found := re.match(r"\S*python -m (instructmining\w*[\w.]*)", code):
                assert importlib.util.find_spec(found[1]), f"{page}: {code}"


# Python


@pytest.mark.parametrize("page", pages_with("python"))
def test_the_python_of_a_page_runs(
    page: str, run: Run, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Files(tmp_path, small_bundle, run)
    monkeypatch.chdir(tmp_path)
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


# Links


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    here = ROOT / page
    for link in links_of(here):
        if "://" in link or link.startswith("mailto:"):
            parts = urlsplit(link)  # there is no network here: only the form is checked
            assert parts.scheme == "https", link
            assert re.fullmatch(r"[\w.-]+\.[a-z]{2,}", parts.netloc), link
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), f"{page}: {link}"
        assert target.is_relative_to(ROOT), f"{page}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{page}: {link}: no such heading"


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES if page != CHANGELOG])
def test_every_file_of_the_project_that_a_page_names_is_there(page: str) -> None:
    folders = "benchmarks|cli|deploy|docs|engine|examples|experiments|export|report|scale|serving|tests"
    for code in inline_code_of(ROOT / page):
        if re.fullmatch(rf"(?:{folders})/[\w./-]+", code):
            assert (ROOT / code).exists(), f"{page}: {code}"


# The whole


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def test_every_page_that_does_not_run_all_says_why() -> None:
    for language in ("sh", "python"):
        for block in blocks(language, run=False):
            reason = RUN_ELSEWHERE.get((block.page, language), block.why_not_run or "")
            assert len(reason) > 8, block
            assert (ROOT / reason).is_file() or " " in reason, f"{block}: {reason}"


def test_the_index_leads_to_every_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    trees = "".join(re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL))
    listed = set(re.findall(r"^(?:[^#\n]*<)?([\w/-]+)>?$", trees, re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in DOCS} - {"index"}
    assert sorted(pages - listed) == []


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


class Files:
    """Makes the files that pages name, when a command reads one that is not there yet."""

    def __init__(self, folder: Path, bundle: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        (folder / "examples").symlink_to(ROOT / "examples")
        for name in ("demo-bundle", "my-bundle"):
            (folder / name).symlink_to(bundle)

    def make(self, words: list[str]) -> None:
        """Make those of these words that are names of files made here; what follows ``-o`` is made by the command."""
        for before, word in zip(["", *words], words, strict=False):
            if before not in {"-o", "--out"} and not (self.folder / word).exists() and word in MADE:
                MADE[word](self)

    def write(self, name: str, lines: Iterable[object]) -> None:
        """Write JSON lines."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    def write_array(self, name: str, rows: object) -> None:
        """Write a JSON array."""
        (self.folder / name).write_text(json.dumps(rows), encoding="utf-8")

    def score(self, rows: str, out: str, *options: str) -> None:
        """Score rows that are made first."""
        self.make([rows])
        assert self.run("score", rows, "-o", out, "--bundle", "demo-bundle", *options, "--quiet") == 0

    def select(self, out: str) -> None:
        """Select from scored rows, which are made first."""
        self.make(["scored.jsonl"])
        assert self.run("select", "scored.jsonl", "-o", out, "--fraction", "0.5", "--quiet") == 0


ANSWERS = (
    "Green is a colour, and so are blue and red.",
    "The ferry sails at three.",
    "Ten",
    "Bread rises in the dough.",
)


def alpaca(count: int) -> list[dict[str, object]]:
    return [
        {
            "id": number,
            "instruction": f"Count to {number} and name a colour.",
            "input": "",
            "output": f"{ANSWERS[number % 4]} " * (1 + number % 3) + f"{number} trains.",
            "category": ("open qa", "science")[number % 2],
        }
        for number in range(count)
    ]


def _csv(files: Files) -> None:
    lines = ["instruction;output", *(f"{row['instruction']};{row['output']}" for row in alpaca(8))]
    (files.folder / "rows.csv").write_text("\n".join(lines), encoding="latin-1")


def _rule(files: Files) -> None:
    (text,) = (block.code for block in blocks_of(ROOT / "docs" / "rules.md", "json"))
    (files.folder / "mine.json").write_text(text, encoding="utf-8")


def _pair(row: dict[str, object]) -> dict[str, object]:
    return {"prompt": row["instruction"], "chosen": row["output"], "rejected": "No."}


def _renamed(row: dict[str, object]) -> dict[str, object]:
    return {"query": row["instruction"], "reply": row["output"]}


# How each file that pages name is made.
MADE: dict[str, Callable[[Files], None]] = {
    **{
        name: lambda files, name=name: files.write(name, alpaca(24))  # type: ignore[misc]
        for name in ("rows.jsonl", "my.jsonl", "pool.jsonl", "v1_sft_demo.jsonl")
    },
    **{
        name: lambda files, name=name: files.write_array(name, alpaca(24))  # type: ignore[misc]
        for name in ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json")
    },
    "data/": lambda files: files.write("data/rows.jsonl", alpaca(24)),
    "questions.jsonl": lambda files: files.write("questions.jsonl", map(_renamed, alpaca(8))),
    "pairs.jsonl": lambda files: files.write("pairs.jsonl", map(_pair, alpaca(8))),
    "rows.csv": _csv,
    "mine.json": _rule,
    "scored.jsonl": lambda files: files.score(
        "rows.jsonl", "scored.jsonl", "--rule", "paper-v1", "--indicators", "all"
    ),
    "best.jsonl": lambda files: files.select("best.jsonl"),
}
