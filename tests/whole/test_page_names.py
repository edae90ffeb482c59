"""What the pages name is there: files, headings, commands, options, extras, make targets. Other sites are not asked."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from urllib.parse import urlsplit

import pytest
from commands import commands_of
from pages import DOCS, PAGES, anchors_of, blocks_of, inline_code_of, links_of, name_of
from paths import ROOT

# Options in the text that are of other programs.
OTHER_OPTIONS = {"--array", "--flip-keys", "--from", "--gpus", "--keep-original", "--requeue"}
CHANGELOG = ROOT / "CHANGELOG.md"  # names what there was
BENCHMARKS = ROOT / "benchmarks" / "README.md"  # names options of its own programs
COMING_FROM = ROOT / "docs" / "coming-from.md"  # names those of other tools


@pytest.mark.parametrize("page", [name_of(page) for page in PAGES if page not in {CHANGELOG, BENCHMARKS, COMING_FROM}])
def test_the_text_of_a_page_names_commands_and_options_that_exist(page: str) -> None:
    commands = commands_of()
    options = {option for command in commands.values() for param in command.params for option in param.opts}
    known = options | {f"--no-{option[2:]}" for option in options} | {"--help", "--version"} | OTHER_OPTIONS
    for code in inline_code_of(ROOT / page):
        if code.split()[0] not in {"pip", "python"}:
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


def test_the_index_leads_to_every_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    trees = "".join(re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL))
    listed = set(re.findall(r"^(?:[^#\n]*<)?([\w/-]+)>?$", trees, re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in DOCS} - {"index"}
    assert sorted(pages - listed) == []
