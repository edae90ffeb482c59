"""Options that say how the fields of rows are read, through the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

Run = Callable[..., int]
ROW: dict[str, object] = {"query": "a colour", "reply": "green", "who": "Ann", "topic": "art"}


@pytest.fixture
def score(
    run: Run,
    small_bundle: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str]]:
    """Scores rows and returns the exit code and what was said."""

    def call(*rows: dict[str, object], options: tuple[str, ...] = ()) -> tuple[int, str]:
        out = ["-o", str(tmp_path / "out.jsonl"), "--overwrite"]
        fixed = ["--bundle", str(small_bundle), "--indicators", "input_length,output_length"]
        code = run("score", write_rows(*rows), *out, *fixed, *options)
        return code, capsys.readouterr().err

    return call


def out(tmp_path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]


def test_any_fields_are_read_as_the_map_says(score: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    known = {"prompt": "a colour", "response": "green"}
    assert score(known)[0] == 0
    (wanted,) = out(tmp_path)
    code, said = score(ROW, options=("--map", "prompt=query,response=reply"))
    assert code == 0
    assert "rows.jsonl: not read: topic (1 row), who (1 row)\n" in said
    (row,) = out(tmp_path)
    assert (row["input_length"], row["output_length"]) == (wanted["input_length"], wanted["output_length"])
    run_file = orjson.loads((tmp_path / "out.jsonl.run.json").read_bytes())
    assert run_file["settings"]["map"] == {"prompt": "query", "response": "reply"}
    (counts,) = run_file["counts"]["not_read"].values()
    assert counts == {"who": 1, "topic": 1}
    assert list(run_file["settings"]["formats"].values()) == ["mapped"]


def test_every_role_may_be_mapped(score: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    known = {"system": "s s", "history": [["h", "i"]], "prompt": "p", "context": "c c", "response": "r"}
    assert score(known)[0] == 0
    (wanted,) = out(tmp_path)
    row = {"s": "s s", "h": [["h", "i"]], "p": "p", "c": "c c", "r": "r"}
    code, said = score(row, options=("--map", "system=s,history=h", "--map", "prompt=p,context=c,response=r"))
    assert (code, "not read" in said) == (0, False)
    assert out(tmp_path)[0]["input_length"] == wanted["input_length"]


def test_the_keys_inside_turns_may_be_mapped(score: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    turns = [{"speaker": "user", "utterance": "a"}, {"speaker": "assistant", "utterance": "b"}]
    code, said = score({"dialog": turns}, options=("--map", "messages=dialog,role=speaker,content=utterance"))
    assert (code, "not read" in said) == (0, False)
    assert score({"messages": turns}, options=("--map", "role=speaker,content=utterance"))[0] == 0
    assert out(tmp_path)[0]["output_length"] == 1


def test_pairs_may_be_mapped(score: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    row = {"q": "a", "good": "b c", "bad": "d"}
    assert score(row, options=("--map", "prompt=q,chosen=good,rejected=bad"))[0] == 0
    assert out(tmp_path)[0]["margin.output_length"] == 2  # tokens of "b c" beyond those of "d"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--map", "prompt"), "--map 'prompt': wanted ROLE=FIELD"),
        (("--map", "prompt=a,prompt=b,response=c"), "--map: 'prompt' is given twice"),
        (("--map", "promt=query,response=reply"), "no role 'promt'; did you mean 'prompt'?"),
        (("--map", "prompt=query"), "no response; name 'response', 'messages', or 'chosen' and 'rejected'"),
        (("--map", "prompt=query,chosen=reply"), "a pair is 'chosen' and 'rejected'; name both"),
        (("--map", "prompt=query,response=query"), "the field 'query' is given more than one role"),
        (
            ("--map", "response=reply", "--format", "text"),
            "--map and --format both say what the fields are; give one of them",
        ),
        (("--format", "alpacca"), "no format 'alpacca'; did you mean 'alpaca'?"),
    ],
)
def test_a_map_that_says_too_little_or_too_much_is_wrong_usage(
    score: Callable[..., tuple[int, str]], options: tuple[str, ...], said: str
) -> None:
    code, found = score(ROW, options=options)
    assert code == 2
    assert said in " ".join(found.split())


def test_a_field_that_no_row_has_is_said_with_those_that_there_are(score: Callable[..., tuple[int, str]]) -> None:
    code, said = score(ROW, options=("--map", "prompt=query,response=replay"))
    assert code == 1
    assert "in the first row is no field 'replay'; did you mean 'reply'? There are: query, reply, who, topic" in said
    assert "device" not in said  # before a model is loaded


def test_an_unknown_shape_says_what_there_is_and_how_to_map_it(score: Callable[..., tuple[int, str]]) -> None:
    code, said = score(ROW)
    assert code == 1
    assert "fields found: query, reply, topic, who" in said
    assert "--map prompt=FIELD,response=FIELD" in said


def test_fields_that_are_ignored_are_not_named(score: Callable[..., tuple[int, str]]) -> None:
    base = ("--map", "prompt=query,response=reply")
    assert "not read: topic (1 row)\n" in score(ROW, options=(*base, "--ignore", "who"))[1]
    assert "not read" not in score(ROW, options=(*base, "--ignore", "who,topic"))[1]


def test_strict_fields_stop_before_anything_is_written(score: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    base = ("--map", "prompt=query,response=reply", "--strict-fields")
    code, said = score(ROW, options=base)
    assert code == 1
    assert "rows.jsonl, line 1: text that is not read, in topic, who" in said
    assert not (tmp_path / "out.jsonl").exists()
    assert score(ROW, options=(*base, "--ignore", "who", "--ignore", "topic"))[0] == 0


def test_each_file_names_its_own_fields(
    run: Run, small_bundle: Path, write_rows: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, object] = {"prompt": "a", "response": "b"}
    first = write_rows({**row, "x": "c"}, {**row, "x": ""}, name="1.jsonl")
    second = write_rows({**row, "y": ["d"]}, row, {**row, "y": ["e"]}, name="2.jsonl")
    options = ["-o", tmp_path / "out.jsonl", "--bundle", small_bundle, "--indicators", "mtld"]
    assert run("score", first, second, *options) == 0
    said = capsys.readouterr().err
    assert f"{first}: not read: x (1 row)\n" in said
    assert f"{second}: not read: y (2 rows)\n" in said
    assert said.count("not read") == 2
