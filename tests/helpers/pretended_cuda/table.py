"""The table of docs/performance.md of what the dry run finds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pretended_cuda.dry_run import Found

_HEAD = (
    "| family | precision | nodes on the CPU | attention kernel | launches a layer | CUDA graph |\n"
    "|---|---|--:|---|--:|---|"
)
_KERNELS = {"FLASH_ATTENTION": "flash", "EFFICIENT_ATTENTION": "memory-efficient", "MATH": "unfused"}


def table(found: Mapping[tuple[str, str], Found]) -> str:
    """Return the table as Markdown, from what was found for each family and precision."""
    return "\n".join([_HEAD, *(_line(*key, each) for key, each in found.items())])


def table_of_page(page: Path) -> str:
    """Return the table as the page has it, whose head must be there."""
    found = re.search(re.escape(_HEAD) + r"(?:\n\|.*)*", page.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{page}: has no table of what the dry run finds")
    return found.group()


def write_table(page: Path, text: str) -> None:
    """Put a table in the place of the page's."""
    page.write_text(page.read_text(encoding="utf-8").replace(table_of_page(page), text), encoding="utf-8")


def _line(family: str, precision: str, found: Found) -> str:
    attention = ", ".join(_KERNELS.get(name, name) for name in dict.fromkeys(found["attention"]))
    capture = "no" if "error" in found["capture"] else "yes"
    launches = sum(found["layer"].values())
    return f"| {family} | {precision} | {len(found['on_cpu'])} | {attention} | {launches} | {capture} |"
