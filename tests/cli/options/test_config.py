from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import commands_of
from paths import EXAMPLES, ROOT

ALPACA = EXAMPLES / "alpaca.json"
COMMANDS = list(commands_of())
RUN = ("score", ALPACA, "--indicators", "mtld")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes options.toml into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "options.toml").write_text(text, encoding="utf-8")
        return "options.toml"

    return write


def printed(run: Callable[..., int], capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, object]:
    assert run(*arguments, "--print-config") == 0
    (table,) = tomllib.loads(capsys.readouterr().out).values()
    return dict(table)


def test_options_come_from_the_commands_table_and_are_relative_to_the_current_folder(
    run: Callable[..., int], config: Callable[[str], str], small_bundle: Path, tmp_path: Path
) -> None:
    table = (
        f'[score]\nout = "out.jsonl"\nbundle = "{small_bundle}"\nlimit = 2\nmax_row_bytes = 5000\n[select]\ntop = 1\n'
    )
    assert run(*RUN, "--config", config(table)) == 0
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 2


def test_the_command_line_comes_before_the_file(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = config(
        '[score]\nlimit = 2\nprefix = "im_"\nstrict = true\nmap = ["prompt=a", "response=b"]\ngpu-memory = 4\n'
    )
    found = printed(run, capsys, "score", "--config", file, "--limit", "3", "--no-strict", "--map", "prompt=c")
    assert (found["limit"], found["strict"], found["map"]) == (3, False, ["prompt=c"])
    assert (found["prefix"], found["gpu-memory"]) == ("im_", 4.0)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed_is_taken_back_and_printed_again(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = command.split()
    assert run(*words, "--print-config") == 0
    first = capsys.readouterr().out
    assert first.startswith(f"[{'.'.join(words)}]\n")
    assert run(*words, "--config", config(first), "--print-config") == 0
    assert capsys.readouterr().out == first


def test_a_command_of_a_group_has_its_table_in_the_groups(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    design = ("experiment", "design")
    file = config("[score]\nlimit = 2\n[experiment.design]\nruns = 12\n")
    assert run(*design, "--config", file, "--print-config") == 0
    assert "[experiment.design]\n" in (shown := capsys.readouterr().out)
    assert "runs = 12\n" in shown
    for text, message in (
        ("[experiment.design]\nrun = 3\n", "options.toml: [experiment.design]: no option 'run'; did you mean 'runs'?"),
        ("[experiment.desing]\nruns = 3\n", "options.toml: [desing]: no command 'desing'; did you mean 'design'?"),
        ("[experiment]\nruns = 3\n", "options.toml: 'runs' is outside a table; put it under [experiment.design]"),
        ("[experiment.design]\nruns = 1\n", "options.toml: [experiment.design] runs: "),
    ):
        assert run(*design, "pool.jsonl", "-o", "out", "--config", config(text)) == 2
        assert message in capsys.readouterr().err


def test_texts_of_any_characters_are_printed_as_toml(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'a"b\\c\n\t\x7f\x1b\u202e é 漢 \U0001f600'
    found = printed(run, capsys, "score", "--prefix", text)
    assert found["prefix"] == text
    assert run("select", "--max-loss", "inf", "--print-config") == 0
    again = capsys.readouterr().out
    assert printed(run, capsys, "select", "--config", config(again))["max-loss"] == float("inf")


def test_a_name_that_is_not_utf8_is_not_printed(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", "--bundle", os.fsdecode(b"caf\xe9"), "--print-config") == 2
    assert "--bundle: has bytes that are not UTF-8" in capsys.readouterr().err


def test_nothing_is_done_where_options_are_printed(
    run: Callable[..., int], config: Callable[[str], str], tmp_path: Path
) -> None:
    config("")
    assert run(*RUN, "-o", "out.jsonl", "--print-config") == 0
    assert [file.name for file in tmp_path.iterdir()] == ["options.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[score]\nlimt = 3\n", "options.toml: [score]: no option 'limt'; did you mean 'limit'?"),
        ("[scor]\nlimit = 3\n", "options.toml: [scor]: no command 'scor'; did you mean 'score'?"),
        ("limit = 3\n", "options.toml: 'limit' is outside a table; put it under [score]"),
        ("[score]\nconfig = 'other.toml'\n", "options.toml: [score]: no option 'config'"),
        ("[score]\nlimit = '3'\n", 'options.toml: [score] limit: found "3", wanted a whole number'),
        ("[score]\nlimit = true\n", "options.toml: [score] limit: found true, wanted a whole number"),
        ("[score]\nstrict = 1\n", "options.toml: [score] strict: found 1, wanted true or false"),
        ("[score]\ngpu-memory = [1]\n", "options.toml: [score] gpu-memory: found [1], wanted a number"),
        ("[score]\nrule = 1979-05-27\n", 'options.toml: [score] rule: found "1979-05-27", wanted text'),
        ("[score]\nmap = ['a', 1]\n", 'options.toml: [score] map: found ["a",1], wanted a list of texts'),
        ("[score]\nmax-length = 20\nmax_length = 20\n", "max_length: is given twice, with - and with _"),
        ("[score]\nlimit = 0\n", "'--limit': options.toml: [score] limit: "),
        ("[score]\nrule = 'paper_v1'\n", "'--rule': options.toml: [score] rule: no rule 'paper_v1'; did you mean"),
        ("[score\n", "options.toml: is not TOML: "),
    ],
)
def test_what_is_wrong_in_a_file_is_wrong_usage_and_names_its_place(
    run: Callable[..., int],
    config: Callable[[str], str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    message: str,
) -> None:
    assert run(*RUN, "-o", "out.jsonl", "--config", config(text)) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["options.toml"]


def test_a_file_that_is_missing_is_an_error(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*RUN, "-o", "out.jsonl", "--config", "gone.toml") == 1
    assert capsys.readouterr().err == "error: gone.toml: No such file or directory\n"


def test_an_integer_is_a_number_and_a_text_is_a_list_of_one(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(run, capsys, "select", "--config", config("[select]\nmax_loss = 1\nwhere = 'mtld>3'\n"))
    assert (found["max-loss"], found["where"]) == (1.0, ["mtld>3"])


def test_a_file_in_the_current_folder_is_not_read_unasked(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / config("[score]\nlimit = 2\n")).rename(tmp_path / "instructmining.toml")
    assert "limit" not in printed(run, capsys, "score")


def test_the_file_in_the_documentation_is_taken(
    run: Callable[..., int], config: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "command-line.md").read_text("utf-8"), re.DOTALL)
    file = config(text)
    for command, table in tomllib.loads(text).items():
        assert table.items() <= printed(run, capsys, command, "--config", file).items()
