"""`make demo`: score 200 real Alpaca rows with the demo bundle and show the best and the worst.

The rows are the first 200 of the sample in the llamafactory package that have at most 500 characters in all, so that
two cores need about a minute. They are fetched with pip and cached.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from instructmining import Rule
from instructmining.scored.aligning import aligned
from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch

ROWS = 200
MAX_CHARACTERS = 500
SHOWN = 5
INDICATORS = "input_length,perplexity,mtld"  # beside the rule's own; all but ifd, which would double the time
OUT = Path("demo-out")
MEANING = """
What the numbers mean: a lower predicted loss is better. It is a sum of reward
(the higher, the lower the loss; this demo's reward model is a demonstration
that tells broken text and nothing finer), output_length (tokens of the
response) and knn_6 (distance to the 6th nearest row: how unlike the others it
is). perplexity says how little a language model expected the response, mtld
how varied its words are.

Whether rows with a lower prediction train a better model is not known for
these models. 44 fine-tuning runs of SmolLM2-135M found no rule of our own that
predicts the loss; to find one as good as the best fit would take about 276. Its
rows trained no better model than random ones (docs/experiment.md).

Next, on your own file (JSON lines, JSON, CSV, Parquet):
  .venv/bin/instructmining inspect YOUR_FILE
  .venv/bin/instructmining score YOUR_FILE -o scored.jsonl --rule paper-v1
  .venv/bin/instructmining select scored.jsonl -o best.jsonl --fraction 0.25"""


def main() -> None:
    """Fetch, score, select, show."""
    begin = time.perf_counter()
    OUT.mkdir(exist_ok=True)
    source, scored, best = OUT / "alpaca-200.jsonl", OUT / "scored.jsonl", OUT / "best-50.jsonl"
    rows = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    short = [row for row in rows if sum(map(len, row.values())) <= MAX_CHARACTERS][:ROWS]
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in short), encoding="utf-8")
    instructmining("score", source, "-o", scored, "--rule", "paper-v1", "--indicators", INDICATORS, "--overwrite")
    instructmining("select", scored, "-o", best, "--top", "50", "--overwrite")
    show([json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()])
    run = json.loads(Path(f"{scored}.run.json").read_bytes())
    tokens, seconds = sum(run["tokens"].values()), run["seconds"]["total"]
    print(f"\nspeed: {len(short) / seconds:.1f} rows/s, {tokens / seconds:,.0f} tokens/s on {run['device']}")
    print(f"files: {scored} (all rows with their columns),")
    print(f"       {best} (the best 50, as they were), {scored}.run.json")
    print(f"the whole demo took {time.perf_counter() - begin:.0f} s")
    print(MEANING)


def instructmining(*arguments: str | Path) -> None:
    """Run the command line as a user would; it says itself what went wrong."""
    command = [Path(sys.executable).with_name("instructmining"), *arguments]
    done = subprocess.run([str(part) for part in command], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def show(rows: list[dict[str, object]]) -> None:
    """The best and the worst rows, with what each term of the rule adds to their predicted log loss."""
    rule = Rule.load("paper-v1")
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rule.terms}
    terms = rule.contributions(columns)
    order = np.argsort([row["predicted_log_loss"] for row in rows], kind="stable")
    width = shutil.get_terminal_size().columns
    for title, chosen in (("best", order[:SHOWN]), ("worst", order[-SHOWN:])):
        print(f"\n{title} {SHOWN} of {len(rows)}: predicted log loss = {rule.intercept} + what each term adds\n")
        lines = [["", "predicted", *(f"+ {name}" for name in terms), "(perplexity)"]]
        for number, row in ((number, rows[number]) for number in chosen):
            added = [f"{values[number]:+.4f}" for values in terms.values()]
            lines.append([str(len(lines)), f"{row['predicted_log_loss']:.4f}", *added, f"{row['perplexity']:.1f}"])
        print(aligned(lines, width), end="\n\n")
        for place, row in enumerate((rows[number] for number in chosen), 1):
            print(short(f"{place}  {row['instruction']} {row['input']}", width))
            print(short(f"   → {row['output']}", width))


def short(text: str, width: int) -> str:
    """One line of at most so many characters."""
    line = text.rstrip().replace("\n", " ")
    return line if len(line) <= width else f"{line[: width - 1]}…"


if __name__ == "__main__":
    main()
