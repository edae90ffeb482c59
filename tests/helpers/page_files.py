"""Makes the files that pages name, so that their commands can run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from pages import blocks_of
from paths import ROOT

Run = Callable[..., int]


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

    def score(self, rows: str, out: str) -> None:
        """Score rows that are made first."""
        self.make([rows])
        options = ["--bundle", "demo-bundle", "--rule", "paper-v1", "--indicators", "all", "--quiet"]
        assert self.run("score", rows, "-o", out, *options) == 0

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
            "source": ("forum", "book", "web")[number % 3],
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


def _rows(name: str) -> Callable[[Files], None]:
    return lambda files: files.write(name, alpaca(24))


def _array(name: str) -> Callable[[Files], object]:
    return lambda files: (files.folder / name).write_text(json.dumps(alpaca(24)), encoding="utf-8")


# How each file that pages name is made.
MADE: dict[str, Callable[[Files], object]] = {
    **{name: _rows(name) for name in ("rows.jsonl", "data.jsonl", "my.jsonl", "pool.jsonl", "v1_sft_demo.jsonl")},
    **{name: _array(name) for name in ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json")},
    "data/": _rows("data/rows.jsonl"),
    "questions.jsonl": lambda files: files.write("questions.jsonl", map(_renamed, alpaca(8))),
    "pairs.jsonl": lambda files: files.write("pairs.jsonl", map(_pair, alpaca(8))),
    "rows.csv": _csv,
    "mine.json": _rule,
    "scored.jsonl": lambda files: files.score("rows.jsonl", "scored.jsonl"),
    "best.jsonl": lambda files: files.select("best.jsonl"),
}
