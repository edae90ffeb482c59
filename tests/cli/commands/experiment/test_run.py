from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import pytest
import typer
from paths import ROOT
from small_models import causal_model

from instructmining_cli.commands import experiment
from instructmining_cli.commands.experiment.design import design
from instructmining_cli.commands.experiment.train import train
from instructmining_cli.options.output import Json
from instructmining_cli.process.terminal import echo, say

Run = Callable[..., int]
WORDS = ["the", "of", "to", "is", "you", "that", "was", "with", "green", "blue", "train", "noon", "ferry", "bread"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_model("llama", tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and the steps that are built; fit and compare say only that they ran."""

    def fit(folder: Annotated[str, typer.Argument()], terms: str = "all", json: Json = False) -> None:
        """Fit."""
        echo(json_of(out=folder, terms=terms) if json else f"fitted {terms} in {folder}")

    def compare(
        folder: Annotated[str, typer.Argument()],
        newpool: Annotated[list[str] | None, typer.Argument()] = None,
        json: Json = False,
    ) -> None:
        """Compare."""
        if not json:
            echo(f"compared {' '.join(newpool or ['the reserve'])} in {folder}")

    import_module("instructmining_cli.app")  # which takes the group's commands when it is imported
    monkeypatch.setattr(experiment, "COMMANDS", (compare, fit, design, train))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def json_of(**content: object) -> str:
    return json.dumps(content)


@pytest.fixture
def config(here: Path, write_rows: Callable[..., Path], small_bundle: Path, model: Path) -> Callable[..., Path]:
    """Writes experiment.toml, with an experiment of three runs."""
    rng = random.Random(0)
    write_rows(
        *(
            {"instruction": f"{number} is", "output": " ".join(rng.choices(WORDS, k=number % 9 + 3))}
            for number in range(90)
        ),
        name="pool.jsonl",
    )
    text = (
        f'out = "e"\n[design]\npool = ["pool.jsonl"]\nbundle = "{small_bundle}"\nindicators = "mtld"\nruns = 2\n'
        f'replicates = 1\nsubset_tokens = 200\nevaluation-rows = 4\nnear = 0.001\n[train]\nmodel = "{model}"\n'
        'learning-rate = 1e-3\nmax-length = 128\nstep-tokens = 80\ndevice = "cpu"\n'
    )

    def write(more: str = "", change: tuple[str, str] = ("", "")) -> Path:
        (here / "experiment.toml").write_text(text.replace(*change) + more, encoding="utf-8")
        return Path("experiment.toml")

    return write


def test_all_steps_are_done_in_order_and_a_repeated_call_does_nothing_again(
    run: Run, config: Callable[..., Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = config('[compare]\nnewpool = ["pool.jsonl"]\n[fit]\nterms = "mtld"\n')
    assert run("experiment", "run", file) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if ", step " in line] == [
        f"{name}, step {number} of 4" for number, name in enumerate(("design", "train", "fit", "compare"), 1)
    ]
    assert "3 runs finished, 0 failed: e/runs.csv" in shown.err
    assert shown.out.endswith("fitted mtld in e\ncompared pool.jsonl in e\n")
    assert len((here / "e" / "runs.csv").read_text().splitlines()) == 4
    before = {path: path.stat().st_mtime_ns for path in (here / "e").glob("runs/*/*")}
    assert run("experiment", "run", config("[compare]\n"), "--quiet") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.endswith("fitted all in e\ncompared the reserve in e\n")
    assert {path: path.stat().st_mtime_ns for path in (here / "e").glob("runs/*/*")} == before
    (here / "e" / "runs" / "r002" / "result.json").unlink()
    (here / "e" / "runs" / "r002" / "failure.json").write_text('{"reason": "loss nan"}')
    assert run("experiment", "run", config(), "--json", "--quiet") == 3
    shown = capsys.readouterr()
    assert shown.err == "r002 failed: loss nan; --retry-failed trains it again\n"
    found = json.loads(shown.out)
    assert (found["out"], list(found["steps"])) == ("e", ["design", "train", "fit"])
    assert found["steps"]["train"]["failed"] == {"r002": "loss nan"}
    assert found["steps"]["fit"] == {"out": "e", "terms": "all"}


@pytest.mark.parametrize(
    ("more", "change", "message"),
    [
        ("[fits]\n", ("", ""), "experiment.toml: [fits]: no step 'fits'; did you mean 'fit'?"),
        ("[evaluate]\n", ("", ""), "experiment.toml: [evaluate]: no step 'evaluate'"),
        ("[fit]\nterm = 'mtld'\n", ("", ""), "experiment.toml: [fit]: no option 'term'; did you mean 'terms'?"),
        ("[fit]\nterms = 3\n", ("", ""), "experiment.toml: [fit] terms: found 3, wanted text"),
        ("[fit]\njson = true\n", ("", ""), "experiment.toml: [fit]: no option 'json'"),
        (
            "[compare]\nnewpool = [1]\n",
            ("", ""),
            "experiment.toml: [compare] newpool: found [1], wanted a list of text",
        ),
        ("", ("runs = 2", "runs = 1"), "'--runs': experiment.toml: [design] runs: "),
        ("", ("runs = 2", "out = 'f'"), "experiment.toml: [design]: no option 'out'"),
        ("", ('pool = ["pool.jsonl"]\n', ""), "experiment.toml: [design]: has no 'pool', which it needs"),
        ("", ('["pool.jsonl"]', "[]"), "experiment.toml: [design]: has no 'pool', which it needs"),
        ("", ("model = ", "# "), "experiment.toml: [train]: has no 'model', which it needs"),
        ("", ('out = "e"', ""), "experiment.toml: has no 'out', the folder of the experiment"),
        ("", ('out = "e"', "out = 1"), "experiment.toml: out: found 1, wanted text"),
        ("", ('out = "e"', 'outs = "e"'), "experiment.toml: no key 'outs'; did you mean 'out'?"),
    ],
)
def test_what_is_wrong_in_any_table_is_said_before_anything_runs(
    run: Run,
    config: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    more: str,
    change: tuple[str, str],
    message: str,
) -> None:
    assert run("experiment", "run", config(more, change)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("e").exists()


@pytest.mark.parametrize(
    ("more", "change", "message"),
    [
        (
            "",
            ("pool.jsonl", "gone.jsonl"),
            "[design] pool: gone.jsonl: No such file; paths are relative to the current",
        ),
        ("[compare]\nnewpool = 'new.jsonl'\n", ("", ""), "[compare] newpool: new.jsonl: No such file"),
        ("", ('model = "', 'model = "./gone'), "[train]: ./gone"),
    ],
)
def test_files_that_are_missing_are_said_before_anything_runs(
    run: Run,
    config: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    more: str,
    change: tuple[str, str],
    message: str,
) -> None:
    assert run("experiment", "run", config(more, change)) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: experiment.toml: ")
    assert message in said
    assert not Path("e").exists()


def test_steps_that_are_not_built_are_left_out(
    run: Run,
    config: Callable[..., Path],
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def train(folder: Annotated[str, typer.Argument()], model: str, json: Json = False) -> None:
        """Train."""
        del json
        say(f"trained {model} in {folder}")

    monkeypatch.setattr(experiment, "COMMANDS", (train,))
    (here / "experiment.toml").write_text('out = "e"\n[train]\nmodel = "m"\n')
    assert run("experiment", "run", "experiment.toml") == 0
    caution, *lines = capsys.readouterr().err.splitlines()
    assert (
        caution == "experiment.toml: [train] model: no folder m is here; it is taken for an id on the Hugging Face hub"
    )
    assert lines == ["train, step 1 of 1", "trained m in e"]
    assert run("experiment", "run", config()) == 2
    assert "[design]: no step 'design'" in capsys.readouterr().err


def test_the_file_in_the_documentation_is_taken(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "experiment.md").read_text("utf-8"), re.DOTALL)
    (here / "experiment.toml").write_text(text)
    assert run("experiment", "run", "experiment.toml") == 1  # its options are right, and only its files are not there
    assert "experiment.toml: [design] pool: alpaca.jsonl: No such file" in capsys.readouterr().err
