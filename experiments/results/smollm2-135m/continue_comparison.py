"""Puts the folder of this experiment together again, so that its comparison is printed again or gets further runs.

    python experiments/results/smollm2-135m/prepare.py FOLDER
    python experiments/results/smollm2-135m/continue_comparison.py FOLDER
    cd FOLDER && instructmining experiment compare smollm2 --model model --device cpu

The texts of the rows may not be published here, so ``comparison/`` has what was computed from them: the columns of each
row, the selections, and the runs that are finished. ``--keep`` brings new ones from FOLDER there.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tomllib
from pathlib import Path

import orjson

from instructmining.bundle.digests import sha256_of
from instructmining.reading.examples import read_examples
from instructmining_experiments.training.evaluation import export_base
from instructmining_export.hub import resolve

HERE = Path(__file__).parent
KEPT = HERE / "comparison"
SCORES = "scores.jsonl.gz"
OF_ANALYSIS = ("rule.json", "runs.csv", "sweep.json")
OF_DESIGN = ("scored.jsonl.run.json", "design.json", "base.json", "training.json")
FIRST_COLUMN = b',"input_length":'


def main() -> None:
    """Restore, or keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    out = given.folder / "smollm2"
    if given.keep:
        keep(out)
    else:
        restore(given.folder, out)


def keep(out: Path) -> None:
    """Copy what was computed, without the texts."""
    lines = (out / "scored.jsonl").read_bytes().splitlines()
    columns = b"\n".join(b"{" + line[line.rindex(FIRST_COLUMN) + 1 :] for line in lines) + b"\n"
    (KEPT / SCORES).write_bytes(gzip.compress(columns, mtime=0))
    for name in OF_DESIGN:
        shutil.copy(out / name, KEPT)
    shutil.copy(out / "comparison/selections.json", KEPT)
    for result in sorted(out.glob("comparison/runs/*/result.json")):
        shutil.copy(result, KEPT / f"{result.parent.name}.json")


def restore(folder: Path, out: Path) -> None:
    """Write the experiment's folder."""
    (out / "comparison").mkdir(parents=True)
    design = tomllib.loads((HERE / "experiment.toml").read_text())["design"]
    examples = read_examples([folder / file for file in design["pool"] + design["evaluation"]])
    columns = gzip.decompress((KEPT / SCORES).read_bytes()).splitlines()
    with (out / "scored.jsonl").open("wb") as scored:
        for example, scores in zip(examples, columns, strict=True):
            messages = [{"role": turn.role, "content": turn.text} for turn in example.turns]
            row = orjson.dumps({"messages": messages, "line": example.row.line if example.row else None})
            scored.write(row[:-1] + b"," + scores[1:] + b"\n")
    (out / "scored.jsonl.rejects.jsonl").touch()
    for file in (*(HERE / name for name in OF_ANALYSIS), *(KEPT / name for name in OF_DESIGN)):
        shutil.copy(file, out)
    digests = orjson.loads((KEPT / "digests.json").read_bytes())
    plan = (HERE / "plan.json").read_text()
    for name, (before, now) in digests.items():
        if plan.count(before) != 1:
            raise SystemExit(f"plan.json: wanted its {name} {before}")
        plan = plan.replace(before, now)
    (out / "plan.json").write_text(plan)
    if sha256_of(out / "scored.jsonl") != digests["scored_sha256"][1]:
        raise SystemExit(f"{out / 'scored.jsonl'}: is not the pool that was scored; was prepare.py run in {folder}?")
    shutil.copy(KEPT / "selections.json", out / "comparison")
    for selection in orjson.loads((KEPT / "selections.json").read_bytes())["selections"]:
        if (result := KEPT / f"{selection['name']}.json").exists():
            run = out / "comparison/runs" / selection["name"]
            run.mkdir(parents=True)
            shutil.copy(result, run / "result.json")
    export_base(out, resolve(str(folder / "model"), report=print), template="chatml", max_length=2048, report=print)


if __name__ == "__main__":
    main()
