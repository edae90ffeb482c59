from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining.errors import InputError
from instructmining.rules.fitting.training_runs import read_runs
from instructmining_experiments.opendataarena.trials import import_trials

Write = Callable[..., Path]


@pytest.fixture
def pool(write_rows: Write) -> Path:
    """Six rows; normalized scores, with the values before."""
    return write_rows(
        *(
            {
                "id": at,
                "scores": {
                    "PPL": at / 5, "PPL_orig": 10.0 * at, "IFD": 1 - at / 5, "IFD_orig": 0.5 + at, "mtld": at % 2,
                },
            }
            for at in range(6)
        ),
        name="pool.jsonl",
    )  # fmt: skip


def written(folder: Path, trials: object, name: str = "trials.json") -> str:
    (folder / name).write_text(json.dumps(trials), encoding="utf-8")
    return str(folder / name)


WARM = [
    {"weights": {"PPL": 1.0, "IFD": 0.0}, "eval_loss": 2.5},
    {"weights": {"PPL": 0.2, "IFD": 0.8}, "eval_loss": 2.25},
]


def test_each_trial_becomes_a_run_with_the_means_of_the_rows_that_it_selected(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    done = import_trials(str(pool), written(tmp_path, WARM), str(out), top_k=2)
    assert (done.runs, done.columns, done.skipped) == (2, ("oda.PPL", "ifd", "mtld"), {})
    # The first selects rows 4 and 5, the second rows 0 and 1.
    assert out.read_text().splitlines() == [
        "name,loss,oda.PPL,ifd,mtld",
        "trial-0,2.5,45.0,5.0,0.5",
        "trial-1,2.25,5.0,1.0,0.5",
    ]
    assert read_runs(out, ["oda.PPL", "ifd"]).labels == ("trial-0", "trial-1")


def test_the_table_of_a_study_as_json_and_as_csv_is_the_same_without_trials_that_did_not_finish(
    pool: Path, tmp_path: Path
) -> None:
    facts = ("COMPLETE", False, 2.5), ("FAIL", False, None), ("COMPLETE", True, 2.0), ("COMPLETE", False, 2.25)
    listed = [
        {"trial_number": at, "state": state, "eval_loss": loss, "is_warmup": warm, "weights": WARM[at % 2]["weights"]}
        for at, (state, warm, loss) in enumerate(facts)
    ]
    with (tmp_path / "trials.csv").open("w", newline="") as file:
        rows = csv.DictWriter(
            file, ["trial_number", "state", "eval_loss", "is_warmup", "weight_IFD", "weight_PPL"], extrasaction="ignore"
        )
        rows.writeheader()
        rows.writerows({**one, **{f"weight_{name}": w for name, w in one["weights"].items()}} for one in listed)  # type: ignore[attr-defined]
    tables = []
    for number, trials in enumerate([written(tmp_path, listed), str(tmp_path / "trials.csv")]):
        out = tmp_path / f"runs{number}.csv"
        done = import_trials(str(pool), trials, str(out), top_k=2)
        assert done.skipped == {"without a loss": 1, "injected as warm-up, not trained in this study": 1}
        tables.append(out.read_text())
    assert tables[0] == tables[1]
    assert [line.split(",")[0] for line in tables[0].splitlines()] == ["name", "trial-0", "trial-3"]


@pytest.mark.parametrize(
    ("trials", "top_k", "message"),
    [
        (WARM, 6, "pool.jsonl: has 6 rows, wanted more than the 6 of each selection"),
        ([{"weights": {"PLL": 1.0}, "eval_loss": 2}], 2, "line 1: scores: no value of 'PLL'; did you mean 'PPL'"),
        ([{"weights": {"PPL": "1"}, "eval_loss": 2}], 2, "trial 0: has .*1.*, wanted numbers"),
        ([{"weights": {}, "eval_loss": 2}], 2, "trial 0: has no weight"),
        ([{"PPL": 1.0}], 2, "trials.json, trial 0: has no 'weights'; wanted a JSON list"),
        ([{"weights": {"PPL": 1.0}, "eval_loss": None}], 2, "trials.json: no trial has a loss"),
        ({"best_weights": {}}, 2, "trials.json: has no trials"),
    ],
)
def test_trials_that_cannot_be_read_are_one_clear_error(
    pool: Path, tmp_path: Path, trials: object, top_k: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        import_trials(str(pool), written(tmp_path, trials), str(tmp_path / "runs.csv"), top_k=top_k)
    assert not (tmp_path / "runs.csv").exists()


def test_a_pool_without_scores_is_one_clear_error(write_rows: Write, tmp_path: Path) -> None:
    file = write_rows({"id": 0, "instruction": "a", "output": "b"})
    with pytest.raises(InputError, match=r"line 1: 'scores' is .*, wanted R-Select's object"):
        import_trials(str(file), written(tmp_path, WARM), str(tmp_path / "runs.csv"), top_k=1)
