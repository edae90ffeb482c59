from __future__ import annotations

import gzip
import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining import Rule, rescore
from instructmining.errors import OutputError, RuleError, SelectionError
from instructmining.scored.rescore import Rescoring

ADDED = ("predicted_log_loss", "truncated", "score_notes")
RULE = {"id": "mine", "intercept": 0.1, "terms": {"mtld": 1 / 3, "ifd": -0.7}}
ROWS = (
    {"instruction": "Name a colour.", "output": "Green is a colour."},
    {"instruction": "Name two.", "output": "5 6 7"},  # no word: no mtld
    {"instruction": "One letter?", "output": "a"},  # one token: no ifd
    {
        "instruction": 'A ,"predicted_log_loss":1 trap',
        "output": 'Bread rises \\ " ] } in the dough.',
        "meta": {"ifd": 3},
    },
    {"instruction": "Count.", "output": "one two three four five six seven"},
    {"instruction": "Say it.", "output": "The train leaves at noon."},
    {"instruction": "Again.", "output": "The ferry sails at three."},
    {"instruction": "Und?", "output": "Grün é 雪"},
)

Run = Callable[..., int]


@pytest.fixture
def rule(tmp_path: Path) -> Path:
    path = tmp_path / "rule.json"
    path.write_bytes(orjson.dumps(RULE))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def rescored(folder: Path, *lines: bytes, rule: Rule | None = None, prefix: str = "") -> list[bytes]:
    (folder / "scored.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    chosen = rule or Rule("half", 0.5, {"mtld": 2.0})
    rescore(folder / "scored.jsonl", folder / "re.jsonl", chosen, prefix=prefix, overwrite=True)
    return (folder / "re.jsonl").read_bytes().splitlines()


# Against score


@pytest.mark.parametrize("given", [("--rule", "paper-v1"), ()], ids=["replaced", "added"])
@pytest.mark.parametrize("prefix", ["", 'im"_'])
def test_the_bytes_are_those_that_score_writes_with_the_rule(
    *,
    run: Run,
    small_bundle: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    rule: Path,
    given: tuple[str, ...],
    prefix: str,
) -> None:
    rows, options = write_rows(*ROWS), ("--bundle", small_bundle, "--indicators", "all", "--prefix", prefix)
    scored, wanted, out = (tmp_path / name for name in ("scored.jsonl", "wanted.jsonl", "out.jsonl"))
    assert run("score", rows, "-o", scored, *options, *given) == 0
    assert run("score", rows, "-o", wanted, *options, "--rule", rule) == 0
    assert run("rescore", scored, "-o", out, "--rule", rule, "--prefix", prefix) == 0
    assert out.read_bytes() == wanted.read_bytes()
    nulls = [
        json.loads(line)[f"{prefix}score_notes"].get(f"{prefix}predicted_log_loss")
        for line in out.read_bytes().splitlines()
    ]
    assert nulls[1:3] == ["undefined: mtld", "undefined: ifd"]
    assert out.read_bytes() != scored.read_bytes()


def test_another_rule_and_back_is_the_file_itself(
    run: Run, small_bundle: Path, write_rows: Callable[..., Path], tmp_path: Path, rule: Path
) -> None:
    scored, there, back = (tmp_path / f"{name}.jsonl" for name in ("scored", "there", "back"))
    assert (
        run("score", write_rows(*ROWS), "-o", scored, "--bundle", small_bundle, "--indicators", "all", "--rule", rule)
        == 0
    )
    rescore(scored, there, "paper-v1")
    rescore(there, back, rule)
    assert back.read_bytes() == scored.read_bytes() != there.read_bytes()


# Bytes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"mtld":1,"P":7,"truncated":[]}', '{"mtld":1,"P":2.5,"truncated":[]}'),
        ('{"P": 7, "mtld": 1.0 }', '{"P": 2.5, "mtld": 1.0 }'),
        ('{"mtld":1}', '{"mtld":1,"P":2.5}'),
        ('{ "mtld" : 1 , "truncated" : [ ] }', '{ "mtld" : 1 , "P":2.5,"truncated" : [ ] }'),
        ('{"mtld":null}', '{"mtld":null,"P":null,"score_notes":{"P":"undefined: mtld"}}'),
        (
            '{"score_notes": {"P":"x","ifd":"y"}, "mtld":1, "P": null}',
            '{"score_notes": {"ifd":"y"}, "mtld":1, "P": 2.5}',
        ),
        ('{"a":"\\",\\"P\\":3","mtld":1}', '{"a":"\\",\\"P\\":3","mtld":1,"P":2.5}'),
        ('{"a":{"P":3},"mtld":1}', '{"a":{"P":3},"mtld":1,"P":2.5}'),
        ('{"predicted_log_l\\u006fss":3,"mtld":1}', '{"predicted_log_l\\u006fss":2.5,"mtld":1}'),
        ('{"P":3,"mtld":1,"P":4}', '{"P":3,"mtld":1,"P":2.5}'),
        ('{"mtld":1,"score_notes":{},"truncated":["a"]}', '{"mtld":1,"P":2.5,"score_notes":{},"truncated":["a"]}'),
    ],
)
def test_only_the_prediction_and_its_note_change(tmp_path: Path, before: str, after: str) -> None:
    (line,) = rescored(tmp_path, named(before))
    assert line == named(after)


def named(text: str) -> bytes:
    """P stands for the prediction's name, to keep the rows short."""
    return re.sub(r'P(\\?")', r"predicted_log_loss\1", text).encode()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    own=st.dictionaries(st.text().filter(lambda name: name not in {*ADDED, "mtld"}), JSON, max_size=4),
    value=st.none() | st.floats(-1e3, 1e3),
    added=st.fixed_dictionaries(
        {},
        optional={
            "predicted_log_loss": st.none() | st.floats(-9, 9),
            "truncated": st.just(["reward"]),
            "score_notes": st.dictionaries(st.sampled_from(["ifd", "predicted_log_loss"]), st.text()),
        },
    ),
    order=st.randoms(),
    spaced=st.booleans(),
    ascii_only=st.booleans(),
)
def test_any_row_keeps_its_other_members_as_they_are(
    tmp_path_factory: pytest.TempPathFactory,
    own: dict,
    value: float | None,
    added: dict,
    order: object,
    *,
    spaced: bool,
    ascii_only: bool,  # type: ignore[type-arg]
) -> None:
    members = [*own.items(), ("mtld", value), *added.items()]
    order.shuffle(members)  # type: ignore[attr-defined]
    colon, comma = (" : ", " ,") if spaced else (":", ",")

    def member(name: str, content: object) -> bytes:
        pair = json.dumps(name, ensure_ascii=ascii_only) + colon + json.dumps(content, ensure_ascii=ascii_only)
        return pair.encode()

    pieces = [member(*pair) for pair in members]
    (line,) = rescored(tmp_path_factory.mktemp("any"), b"{" + comma.encode().join(pieces) + b"}")
    found = orjson.loads(line)
    wanted = None if value is None else 0.5 + 2.0 * value
    notes = {key: why for key, why in added.get("score_notes", {}).items() if key != "predicted_log_loss"}
    if wanted is None:
        notes["predicted_log_loss"] = "undefined: mtld"
    assert found["predicted_log_loss"] == wanted
    assert found.get("score_notes", {}) == notes
    for (name, _), piece in zip(members, pieces, strict=True):
        if name not in {"predicted_log_loss", "score_notes"}:
            assert piece in line
    assert [name for name in found if name in dict(members)] == [name for name, _ in members]


def test_a_prediction_that_overflows_is_null_as_when_it_is_scored(tmp_path: Path) -> None:
    (line,) = rescored(tmp_path, b'{"mtld":1e308}')
    assert orjson.loads(line)["score_notes"] == {"predicted_log_loss": "not a finite number"}


# Files


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_compressed_files_go_in_and_out(tmp_path: Path, suffix: str) -> None:
    pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}[suffix]
    unpack = {
        ".jsonl": bytes,
        ".jsonl.gz": gzip.decompress,
        ".jsonl.zst": lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed),
    }[suffix]
    scored, out = tmp_path / f"scored{suffix}", tmp_path / f"out{suffix}"
    scored.write_bytes(pack(b'{"mtld":1}\n{"mtld":null}\n'))
    assert rescore(scored, out, Rule("half", 0.5, {"mtld": 2.0})) == Rescoring(rows=2, without_value=1, caution=None)
    assert unpack(out.read_bytes()).splitlines()[0] == b'{"mtld":1,"predicted_log_loss":2.5}'


def test_the_run_file_says_from_which_file_and_by_which_rule(
    write_rows: Callable[..., Path], out: Path, rule: Path, run: Run
) -> None:
    scored = write_rows({"mtld": 1, "ifd": 2}, {"mtld": None, "ifd": 2})
    assert run("rescore", scored, "-o", out, "--rule", rule) == 0
    told = orjson.loads(Path(f"{out}.run.json").read_bytes())
    assert told["scored"] == {
        "path": str(scored),
        "bytes": scored.stat().st_size,
        "sha256": hashlib.sha256(scored.read_bytes()).hexdigest(),
    }
    assert told["rule"] == {"id": "mine", "digest": hashlib.sha256(rule.read_bytes()).hexdigest(), "reward_model": None}
    assert told["counts"] == {"rows_in": 2, "rows_out": 2, "null": {"predicted_log_loss": 1}}


def test_another_reward_model_than_the_rules_is_said(
    write_rows: Callable[..., Path], out: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = write_rows({"reward": 1, "output_length": 2, "knn_6": 0.5})
    assert "it is not known which model gave the column" in (rescore(scored, out, "paper-v1").caution or "")
    told = Path(f"{scored}.run.json")
    told.write_bytes(orjson.dumps({"bundle": {"roles": {"reward": {"id": "mine/reward"}}}}))
    assert run("rescore", scored, "-o", out, "--rule", "paper-v1", "--overwrite") == 0
    assert "the column comes from mine/reward" in capsys.readouterr().err
    told.write_bytes(orjson.dumps({"bundle": {"roles": {"reward": {"id": Rule.load("paper-v1").reward_model}}}}))
    assert rescore(scored, out, "paper-v1", overwrite=True).caution is None


def test_a_missing_column_is_named_and_nothing_is_written(
    write_rows: Callable[..., Path], out: Path, rule: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rescore", write_rows({"mtld": 1}), "-o", out, "--rule", rule) == 1
    assert "rule 'mine' needs ifd; columns there: mtld" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(RuleError, match="with another --prefix"):
        rescore(write_rows({"im_mtld": 1, "im_ifd": 1}), out, rule)


def test_out_is_kept_unless_overwrite_is_given(
    write_rows: Callable[..., Path], out: Path, rule: Path, run: Run
) -> None:
    scored = write_rows({"mtld": 1, "ifd": 1})
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        rescore(scored, out, rule)
    with pytest.raises(OutputError, match="which this command reads; name another output"):
        rescore(scored, scored, rule, overwrite=True)
    assert run("rescore", scored, "-o", out, "--rule", rule, "--overwrite") == 0
    assert out.read_bytes() != b"old"


def test_notes_that_are_no_object_are_an_error_and_leave_nothing(write_rows: Callable[..., Path], out: Path) -> None:
    with pytest.raises(SelectionError, match=r"line 1: 'score_notes' is 'x' .*, wanted an object"):
        rescore(write_rows({"mtld": 1, "score_notes": "x"}), out, Rule("r", 0.0, {"mtld": 1.0}))
    assert not list(out.parent.glob("out*"))


def test_a_file_without_rows_gives_a_file_without_rows(tmp_path: Path, out: Path) -> None:
    (tmp_path / "scored.jsonl").write_bytes(b"")
    assert rescore(tmp_path / "scored.jsonl", out, "paper-v1").rows == 0
    assert out.read_bytes() == b""


def test_memory_does_not_grow_with_the_file(tmp_path: Path, out: Path) -> None:
    line = b'{"text":"%s","mtld":%r,"predicted_log_loss":1.0,"truncated":[],"score_notes":{}}\n'
    peaks = []
    for rows in (2_000, 10_000):
        (tmp_path / "scored.jsonl").write_bytes(b"".join(line % (b"x" * 500, n / 7) for n in range(rows)))
        tracemalloc.start()
        rescore(tmp_path / "scored.jsonl", out, Rule("r", 0.0, {"mtld": 1.0}), overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**20
    values = [orjson.loads(row)["predicted_log_loss"] for row in out.read_bytes().splitlines()]
    np.testing.assert_array_equal(values, np.arange(10_000) / 7)


def test_rows_go_to_standard_output_alone(
    write_rows: Callable[..., Path], rule: Path, run: Run, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scored = write_rows({"mtld": 1, "ifd": 1})
    assert run("rescore", scored, "-o", "-", "--rule", rule) == 0
    said = capfdbinary.readouterr()
    (row,) = map(orjson.loads, said.out.splitlines())
    assert row["mtld"] == 1
    assert row["predicted_log_loss"] is not None
    assert b"rescored 1 row" in said.err
    assert not Path("-.run.json").exists()


def test_a_role_that_is_missing_names_the_demo_bundle_where_it_gives_it(
    write_rows: Callable[..., Path],
    out: Path,
    small_bundle: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored = write_rows({"mtld": 1})
    for cached, words in ((small_bundle, f"--bundle {small_bundle}"), (None, "export one: instructmining export")):
        monkeypatch.setattr("instructmining_cli.run.demo_bundle.cached_demo_bundle", lambda cached=cached: cached)
        assert run("rescore", scored, "-o", out, "--rule", "paper-v1") == 1
        assert words in capsys.readouterr().err
        assert run("describe", scored, "--rule", "paper-v1") == 1
        assert words in capsys.readouterr().err
