"""The site that ``make docs`` builds: no warning, nothing from elsewhere, no dead link, every public name."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock
from pages import DOCS
from paths import ROOT

import instructmining
import instructmining_scale

# What a browser loads by itself while it shows a page.
LOADED = {
    "audio": ("src",), "embed": ("src",), "iframe": ("src",), "image": ("href", "xlink:href"), "img": ("src", "srcset"),
    "input": ("src",), "link": ("href",), "object": ("data",), "script": ("src",), "source": ("src", "srcset"),
    "track": ("src",), "use": ("href", "xlink:href"), "video": ("src", "poster"),
}  # fmt: skip
ELSEWHERE = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
STYLED = re.compile(r"""url\(\s*["']?([^"')]*)|@import\s+["']([^"']*)""")
CALLED = re.compile(
    r"""(?:fetch|import|importScripts|WebSocket|EventSource|Worker)\(\s*["'`](https?:|wss?:)?//"""
    r"""|\.(?:src|href)\s*=\s*["'`](https?:)?//"""
)


class Page(HTMLParser):
    """What a page loads, links to and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.loaded += [given[name] for name in LOADED.get(tag, ()) if name in given]
        self.loaded += styled(given.get("style", ""))
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.anchors |= {given[name] for name in ("id", "name") if name in given}


def styled(text: str) -> list[str]:
    """Addresses in a style; what an SVG inside an address names is not loaded."""
    return [first or second for first, second in STYLED.findall(text) if not (first or second).startswith("data:")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning ends the build. Workers of pytest-xdist share it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    html = folder / "site"
    with FileLock(folder / "site.lock"):
        if not html.is_dir():
            command = [
                sys.executable,
                "-m",
                "sphinx",
                "--fail-on-warning",
                "--keep-going",
                "--quiet",
                "--builder",
                "html",
            ]
            places = ["--doctree-dir", str(folder / "trees"), str(ROOT / "docs"), str(folder / "building")]
            done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / "building").rename(html)
    return html


def pages_of(site: Path) -> Iterator[tuple[Path, Page]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Page(path.read_text(encoding="utf-8"))


def test_every_page_is_built(site: Path) -> None:
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    sources = [*DOCS, *(ROOT / "docs").rglob("*.ipynb")]
    assert {page.relative_to(ROOT / "docs").with_suffix("") for page in sources} <= built


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = 0
    for path, page in pages_of(site):
        assert [address for address in page.loaded if ELSEWHERE.match(address)] == [], path
        loaded += len(page.loaded)
    assert loaded > 100
    for path in site.rglob("*.css"):
        assert [address for address in styled(path.read_text(encoding="utf-8")) if ELSEWHERE.match(address)] == [], path
    for path in site.rglob("*.svg"):
        assert "http" not in path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', ""), path
    for path in (*site.rglob("*.js"), *site.rglob("*.html")):
        assert CALLED.search(path.read_text(encoding="utf-8")) is None, path


@pytest.mark.parametrize(
    "text",
    [
        '<link href="https://fonts.example/a.css">',
        '<script src="//cdn.example/a.js"></script>',
        '<img srcset="https://a.example/b.png 2x">',
        '<p style="background: url(https://a.example/b.png)">',
    ],
)
def test_what_is_loaded_from_elsewhere_would_be_found(text: str) -> None:
    assert any(ELSEWHERE.match(address) for address in Page(text).loaded)


def test_every_link_inside_the_site_leads_somewhere(site: Path) -> None:
    pages = dict(pages_of(site))
    checked = 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{path}: {link}"
            checked += 1
    assert checked > 1000


def test_a_notebook_becomes_a_page_with_its_stored_outputs() -> None:
    outputs = [
        {"output_type": "stream", "text": ["one\n", "```\n"]},
        {"output_type": "execute_result", "data": {"text/plain": "no", "text/html": ["<b>two</b>"]}},
        {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": "no"}},
        {"output_type": "error", "ename": "RowError", "evalue": "three"},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "print(1)", "outputs": outputs},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    made: str = runpy.run_path(str(ROOT / "docs" / "notebook_parser.py"))["markdown_of"](json.dumps({"cells": cells}))
    assert made == (
        "# Title\ntext\n\n```python\nprint(1)\n```\n\n````text\none\n```\n````\n\n"
        '```{raw} html\n<div class="table-wrapper">\n<b>two</b>\n</div>\n```\n\n'
        '```{raw} html\n<img alt="" src="data:image/png;base64,aGk=">\n```\n\n```text\nRowError: three\n```\n'
    )


def test_the_api_page_has_every_public_name(site: Path) -> None:
    anchors = Page((site / "api.html").read_text(encoding="utf-8")).anchors
    for package in (instructmining, instructmining_scale):
        assert [name for name in package.__all__ if f"{package.__name__}.{name}" not in anchors] == []
