"""The folder in which the commands of docs/troubleshooting.md run."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from paths import ROOT

_SCORES = ("output_length", "reward", "perplexity", "mtld", "knn_6")


def make_folder(folder: Path, bundle: Path) -> None:
    """Write the files that the page names into an empty folder.

    Args:
        folder: the folder.
        bundle: the small bundle.
    """
    (folder / "bundle").symlink_to(bundle)
    shutil.copytree(bundle, folder / "damaged")
    model = folder / "damaged" / "perplexity" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    shutil.copytree(bundle, folder / "newer")
    manifest = folder / "newer" / "manifest.json"
    said = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps(said | {"format": 99}))
    (folder / "empty").mkdir()
    rows = [{"instruction": f"Count to {number}.", "output": "one two three four"} for number in range(2, 10)]
    lines(folder / "rows.jsonl", rows)
    lines(folder / "three.jsonl", rows[:3])
    lines(folder / "bad.jsonl", [*rows, {"instruction": "a"}, {"instruction": "a", "output": ""}])
    lines(folder / "titles.jsonl", [{"title": "a", "body": "b"}])
    lines(folder / "reward.jsonl", [row | {"reward": 1} for row in rows])
    lines(folder / "notes.jsonl", [row | {"note": "not for a model"} for row in rows])
    lines(folder / "pair.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    lines(folder / "mixed" / "a.jsonl", rows)
    lines(folder / "mixed" / "b.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    (folder / "semicolons.csv").write_text("instruction;output\na;b\n")
    (folder / "utf16.csv").write_bytes("instruction,output\na,b\n".encode("utf-16"))
    (folder / "twice.csv").write_text("instruction,output,output\na,b,c\n")
    (folder / "rows.xlsx").write_bytes(b"PK")
    (folder / "table.parquet").write_bytes(b"PAR1")
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows * 500).encode())
    (folder / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "there.jsonl").write_text("")
    scored = [
        row | {name: 1.0 + place / (2 + at) for at, name in enumerate(_SCORES)} | {"predicted_log_loss": place / 4}
        for place, row in enumerate(rows)
    ]
    lines(folder / "scored.jsonl", [row | {"truncated": [], "score_notes": {}} for row in scored])
    lines(folder / "few-columns.jsonl", [row | {"mtld": 3.0, "truncated": [], "score_notes": {}} for row in rows])
    lines(folder / "text.jsonl", [row | {"mtld": "many"} for row in rows])
    (folder / "rule.json").write_text('{"id": "mine", "intercept": 1.0, "terms": {"perplexity": 0.01}}')
    (folder / "wrong-rule.json").write_text('{"id": "mine", "terms": {"perplexity": 0.01}}')
    (folder / "typo-rule.json").write_text('{"id": "mine", "intercept": 1.0, "terms": {"perplexty": 0.01}}')
    runs = (ROOT / "examples" / "runs.csv").read_text(encoding="utf-8").splitlines()
    (folder / "runs.csv").write_text("\n".join(runs))
    (folder / "few-runs.csv").write_text("\n".join(runs[:4]))
    (folder / "no-loss.csv").write_text("\n".join(line.rpartition(",")[0] for line in runs))
    (folder / "other-column.csv").write_text("\n".join([f"{runs[0]},epochs", *(f"{line},3" for line in runs[1:])]))


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
