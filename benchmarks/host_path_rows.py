"""Rows for the host path: every text a real one, every pair of prompt and response met once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch


def write(path: Path, rows: int) -> Path:
    """JSON lines of distinct Alpaca rows: the prompts of the 999 real ones, each time with other responses.

    Args:
        path: the file; it is left as it is if it is there.
        rows: at most 999 * 999.
    """
    if not path.is_file():
        partial = path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(rows))
        partial.replace(path)
    return path


def _rows(count: int) -> Iterator[dict[str, str]]:
    real: list[dict[str, str]] = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    if count > len(real) ** 2:
        raise ValueError(f"{count} rows, at most {len(real) ** 2} can be made")
    for number in range(count):
        # The n-th time that a prompt comes it takes the response n places on.
        again, place = divmod(number, len(real))
        yield real[place] | {"output": real[(place + again) % len(real)]["output"]}
