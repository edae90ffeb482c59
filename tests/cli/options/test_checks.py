"""Wrong values of options: exit code 2, the option named, before anything is read or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import commands_of
from paths import EXAMPLES

ALPACA = EXAMPLES / "alpaca.json"

# Of each option that has wrong values one of them, by its name alone or with the command's.
WRONG = {
    "--as": "mesages",
    "--batches-at-once": "0",
    "--evaluation-rows": "0",
    "--examples": "0",
    "--near": "2.5",
    "--replicates": "-1",
    "--reserve": "1",
    "--runs": "1",
    "--subset-tokens": "0",
    "--tokens-per-second": "0",
    "--bootstrap": "-1",
    "--max-batch-tokens": "0",
    "--choose": "al",
    "--delimiter": "ab",
    "--device": "gpu",
    "--distinct": "2.5",
    "--encoding": "utf-88",
    "--entered": "entered.txt",
    "--explain": "why.txt",
    "--format": "alpacca",
    "--fraction": "1.5",
    "--gpu-memory": "nan",
    "--indicators": "perplexty",
    "--knn": "aprox",
    "--knn-metric": "cosin",
    "--knn-text": "promt",
    "--left": "left.txt",
    "--limit": "0",
    "--map": "prompt",
    "--max-loss": "nan",
    "--max-row-bytes": "1",
    "--shard": "4/3",
    "--part-format": ".csv",
    "--pair": "2",
    "--shards": "0",
    "--workers": "0",
    "--block-bytes": "0",
    "--max-length": "15",
    "--only": "rewrd",
    "--plot": "plot.png",
    "--precision": "fp33",
    "--via": "optimun",
    "--preset": "dmo",
    "--quota": "science",
    "--random-baseline": "random.txt",
    "--roles": "rewrd",
    "--rounds": "0",
    "--rows": "-1",
    "--rule": "paper_v1",
    "--sample": "0",
    "--seed": "-1",
    "--tokens": "0",
    "--top": "0",
    "--where": "perplexity",
    "--template": "chatlm",
    "--epochs": "0",
    "--step-tokens": "0",
    "--learning-rate": "0",
    "--rates": "1e-5,0",
    "--checkpoint-steps": "0",
    "--methods": "longest,shortest",
    "--port": "70000",
    "--max-wait-ms": "-1",
    "--queue-tokens": "0",
    "--max-rows": "0",
    "--max-row-tokens": "0",
    "--max-tokens": "0",
    "--max-bytes": "0",
    "--timeout": "0",
    "--random": "0",
    "--seeds": "0",
    "score --out": "out.txt",
    "merge --out": "out.txt",
    "select --out": "out.txt",
    "rescore --out": "out.txt",
    "experiment export-oda --out": "out.txt",
    "report --out": "out.txt",
    "--top-k": "0",
}
# Text of any kind, or a name of something in a file or on the disk: that it is not there is an error, not wrong usage.
FREE = {
    *("--bundle", "--knn-against", "--figures", "--config", "--evaluation"),  # files and folders
    *(
        "card --out",
        "--name",
        "--license",
        "--language",
        "describe --out",
        "compare --out",
        "fit --out",
        "export --out",
        "bench --out",
        "experiment design --out",
    ),
    *("experiment import-oda --out", "--trials"),
    *("--pool", "--group-by", "--by", "--terms", "--ignore", "--keep-fields"),  # fields and columns of a file
    *("--reward", "--perplexity", "--embedding", "--unieval", "--revision"),  # models
    *("--prefix", "--id", "--reward-model", "--model", "--licence"),
    *("--host", "--token-file", "--triton", "--ray"),
}
NEEDED = {
    "experiment train": ["experiment", "--model", "model"],
    "experiment evaluate": ["experiment"],
    "experiment compare": ["experiment"],
    "experiment fit": ["experiment"],
    "score": [str(ALPACA), "-o", "out.jsonl"],
    "merge": ["parts", "-o", "out.jsonl"],
    "neighbours": ["parts"],
    "inspect": [str(ALPACA)],
    "select": ["scored.jsonl", "-o", "out.jsonl"],
    "describe": ["scored.jsonl"],
    "card": ["scored.jsonl"],
    "compare": ["scored.jsonl", "other.jsonl"],
    "report": ["scored.jsonl", "-o", "report.html"],
    "rescore": ["scored.jsonl", "-o", "out.jsonl", "--rule", "paper-v1"],
    "fit": ["runs.csv", "-o", "rule.json"],
    "export": ["-o", "bundle"],
    "bench": [str(ALPACA)],
    "doctor": [],
    "serve": [],
    "experiment design": [str(ALPACA), "-o", "experiment"],
    "experiment export-oda": ["scored.jsonl", "-o", "out.jsonl"],
    "experiment import-oda": ["rows.jsonl", "-o", "out.csv", "--trials", "trials.json", "--top-k", "3"],
    "experiment run": ["gone.toml"],
}
WITHOUT_FILES = {
    "export",
    "doctor",
    "serve",
    *(f"experiment {step}" for step in ("train", "evaluate", "fit", "compare")),
}
NEAR = {
    "--rule": "'paper-v1'",
    "--indicators": "'perplexity'",
    "--format": "'alpaca'",
    "--preset": "'demo'",
    "--precision": "'fp32'",
    "--via": "'optimum'",
    "--as": "'messages'",
}


def options() -> list[tuple[str, str]]:
    """Every option of every command that takes a value."""
    return [
        (command, option.opts[-1])
        for command, made in commands_of().items()
        for option in made.params
        if option.opts[-1].startswith("--") and not option.is_flag
    ]


def test_each_option_of_each_command_has_a_wrong_value_or_is_free() -> None:
    known = WRONG.keys() | FREE
    assert not [pair for pair in options() if not {pair[1], " ".join(pair)} & known]
    names = {name for pair in options() for name in (pair[1], " ".join(pair))}
    assert not known - names


@pytest.mark.parametrize(
    ("command", "option"), [pair for pair in options() if {pair[1], " ".join(pair)} & WRONG.keys()]
)
def test_a_wrong_value_is_wrong_usage_and_names_the_option(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    option: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    value = WRONG.get(option) or WRONG[f"{command} {option}"]
    assert run(*command.split(), *NEEDED[command], option, value) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert option in said
    if option in NEAR and (command, option) not in {("describe", "--format"), ("compare", "--format")}:
        assert NEAR[option] in said
    assert list(tmp_path.iterdir()) == []


COUNTS = {
    *("--epochs", "--step-tokens", "--checkpoint-steps"),
    *(
        "--batches-at-once",
        "--bootstrap",
        "--max-batch-tokens",
        "--limit",
        "--max-row-bytes",
        "--max-length",
        "--rounds",
    ),
    *("--gpu-memory", "--rows", "--sample", "--seed", "--tokens", "--top", "--top-k"),
    *("--evaluation-rows", "--replicates", "--runs", "--subset-tokens"),
}


@pytest.mark.parametrize(("command", "option"), [pair for pair in options() if pair[1] in COUNTS])
def test_a_number_that_nothing_could_be_is_wrong_usage(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    option: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*command.split(), *NEEDED[command], option, "1" + 30 * "0") == 2
    assert f"'{option}': " in capsys.readouterr().err.splitlines()[-1]


def test_a_prefix_that_is_not_utf8_is_wrong_usage(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("score", ALPACA, "-o", tmp_path / "out.jsonl", "--prefix", "p\udcff") == 2
    assert "'--prefix': has bytes that are not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("command", [command for command in NEEDED if command not in WITHOUT_FILES])
def test_an_input_that_is_missing_is_an_error_of_one_line(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    small_bundle: Path,
    command: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with_bundle: list[object] = ["--bundle", small_bundle]
    more = {"select": ["--top", 3], "inspect": with_bundle, "experiment design": with_bundle}.get(command, [])
    arguments = [argument.replace(str(ALPACA), "not-there.jsonl") for argument in NEEDED[command]]
    assert run(*command.split(), *arguments, *more) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert "No such file" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "--overwrite"), "--resume"),
        (("--resume", "-o", "-"), "--resume"),
        (("--map", "prompt=a", "--format", "alpaca"), "--map"),
        (("--indicator", "mtld"), "--indicators"),
    ],
)
def test_options_that_do_not_go_together_or_do_not_exist_are_wrong_usage(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("score", *NEEDED["score"], *arguments) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_rule_file_that_is_missing_is_an_error(run: Callable[..., int], tmp_path: Path) -> None:
    for name in (tmp_path / "mine", "mine.json"):
        assert run("score", ALPACA, "-o", tmp_path / "out.jsonl", "--rule", name) == 1
