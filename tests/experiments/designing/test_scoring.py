from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from instructmining.bundle import Bundle
from instructmining.errors import InputError, OutputError
from instructmining_experiments.designing.scoring import digest_of, score_pool
from instructmining_experiments.state.plan import PoolFile
from instructmining_experiments.state.pool import SCORED, Pool


def score(folder: Path, files: Sequence[Path], bundle: Path, **options: bool) -> tuple[PoolFile, ...]:
    folder.mkdir(exist_ok=True)
    return score_pool(
        folder,
        [str(file) for file in files],
        bundle=Bundle.open(bundle),
        indicators=["mtld"],
        device="cpu",
        progress=lambda _what, _share: None,
        **options,
    )


def test_files_of_several_shapes_become_one_pool_in_order(
    write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path
) -> None:
    alpaca = write_rows({"instruction": "a", "output": "1", "mtld": "mine"}, {"instruction": "bad", "output": ""})
    turns = [("human", "b"), ("gpt", "2"), ("human", "c"), ("gpt", "3")]
    chat = write_rows({"conversations": [{"from": who, "value": text} for who, text in turns]}, name="chat.jsonl")
    found = score(tmp_path / "e", [alpaca, chat], small_bundle)
    assert found == (PoolFile(str(alpaca), digest_of(str(alpaca)), 1), PoolFile(str(chat), digest_of(str(chat)), 1))
    pool = Pool.read(tmp_path / "e" / SCORED, ["mtld"])
    assert [[turn.text for turn in example.turns] for example in pool.examples] == [["a", "1"], ["b", "2", "c", "3"]]
    assert (
        "no response" in (tmp_path / "e" / f"{SCORED}.rejects.jsonl").read_text()
        or json.loads((tmp_path / "e" / f"{SCORED}.rejects.jsonl").read_text())["reason"]
    )


def test_a_pool_is_scored_once_and_another_one_only_where_told(
    write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path
) -> None:
    first, other = (write_rows({"instruction": text, "output": "1"}, name=f"{text}.jsonl") for text in "ab")
    score(tmp_path / "e", [first], small_bundle)
    state = (tmp_path / "e" / SCORED).stat()
    score(tmp_path / "e", [first], small_bundle)
    assert (tmp_path / "e" / SCORED).stat().st_ino == state.st_ino
    with pytest.raises(OutputError, match="holds scores of other rows; name another folder, or give --overwrite"):
        score(tmp_path / "e", [other], small_bundle)
    score(tmp_path / "e", [other], small_bundle, overwrite=True)
    assert Pool.read(tmp_path / "e" / SCORED, []).examples[0].turns[0].text == "b"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction": "a", "output": ""}, "no row can be scored; the first because "),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "line 1: is a preference pair"),
        ({"number": 3}, "rows.jsonl"),
    ],
)
def test_a_pool_without_rows_to_train_on_is_an_error(
    write_rows: Callable[..., Path], small_bundle: Path, tmp_path: Path, row: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score(tmp_path / "e", [write_rows(row)], small_bundle)
