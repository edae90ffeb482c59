"""docs/report.md names only options and pictures that exist; test_pages.py runs what it shows."""

from __future__ import annotations

import re

from commands import commands_of
from paths import ROOT

PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_page_names_options_and_pictures_that_exist() -> None:
    options = {name for option in commands_of()["report"].params for name in option.opts}
    table = PAGE.split("## Options", 1)[1].split("From Python", 1)[0]
    named = set(re.findall(r"^\|.*?\|", table, re.MULTILINE))
    assert {name for line in named for name in re.findall(r"--\w[\w-]*", line)} <= options
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", PAGE)
    assert len(pictures) == 3
    assert all(0 < (ROOT / "docs" / picture).stat().st_size < 250_000 for picture in pictures)
