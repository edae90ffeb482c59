"""The card of a data set: what it says, and that nothing in it can be anything but text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from instructmining.errors import SelectionError
from instructmining.rules import Rule
from instructmining.scored.card_facts import facts_of
from instructmining.scored.card_text import CardOptions, card_text, code, plain, unknown_of
from instructmining.scored.selection import select

Run = Callable[..., int]
TURNS = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]
HOSTILE = 'x"\n---\nlicense: mit\n# <script>alert(1)</script> | [a](http://b) `c` \u202e\u2028'


def run_file(rule: object) -> dict[str, Any]:
    model = {"id": "some/model", "revision": "abc", "licence": "Apache-2.0", "precision": "fp32"}
    return {
        "rule": rule,
        "caution": "the reward model is another one",
        "bundle": {
            "path": "/home/me/bundle",
            "name": "mine",
            "digest": "d1",
            "note": "a note",
            "roles": {"reward": model},
        },
        "settings": {"columns": ["mtld", "predicted_log_loss"], "format": None, "map": {}},
        "counts": {"rows_out": 4, "rows_rejected": 2},
    }


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    path = tmp_path / "scored.jsonl"
    rows = [
        {
            "id": at,
            "messages": TURNS,
            "mtld": at / 3,
            "predicted_log_loss": float(at),
            "truncated": ["reward"] * (at == 1),
        }
        for at in range(4)
    ]
    path.write_bytes(b"".join(orjson.dumps(row | {"score_notes": {}}) + b"\n" for row in rows))
    rule = Rule.load("paper-v1")
    Path(f"{path}.run.json").write_bytes(orjson.dumps(run_file({"id": rule.id, "digest": rule.digest})))
    return path


def card_of(*paths: Path, **options: Any) -> str:  # noqa: ANN401
    facts = [facts_of(str(path)) for path in paths]
    return card_text(facts, CardOptions(**options), [path.name for path in paths])


def head_of(text: str) -> Any:  # noqa: ANN401
    return yaml.safe_load(text.split("---\n", 2)[1])


def test_the_card_says_how_rows_were_scored_and_selected(scored: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.jsonl"
    select(scored, best, top=2, where=["mtld>=0.1"], keep_scores=True)
    text = card_of(best, name="My set", license="cc-by-4.0", languages=("en",))
    for wanted in (
        "# My set",
        "2 rows for fine-tuning language models, scored and selected with InstructMining.",
        "The rule `paper-v1` predicts the natural logarithm",
        "- paper: Cao, Kang, Sun, arXiv 2307.06290 version 1",
        "| reward | `some/model` | `abc` | `Apache-2.0` | `fp32` |",
        "- rows kept at most: `2`",
        "- condition: `mtld>=0.1`",
        "| scored | 4 |",
        "| left out: `fails mtld>=0.1` | 1 |",
        "| kept | 2 |",
        "| `mtld` | 0 | 0.5 | 0.3333 |",
        "- The reward model is another one.",
        "- A note.",
        "In 1 row a model saw only a part of the text",
        "2 rows of the input could not be read or scored",
    ):
        assert wanted in text
    assert str(tmp_path) not in text
    assert "/home/me" not in text


def test_the_head_is_what_the_hub_reads(scored: Path, tmp_path: Path) -> None:
    best, random = tmp_path / "best.jsonl", tmp_path / "random.jsonl"
    for path in (best, random):
        select(scored, path, top=2)
    path = tmp_path / "README.md"
    path.write_text(card_of(best, random, name="My set", license="cc-by-4.0", languages=("en", "de")), "utf-8")
    card = DatasetCard.load(path)
    assert card.data.to_dict() == {
        "license": "cc-by-4.0",
        "language": ["en", "de"],
        "pretty_name": "My set",
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
        "tags": ["instructmining", "instruction-tuning"],
        "configs": [
            {"config_name": "best", "data_files": [{"split": "train", "path": "best.jsonl"}]},
            {"config_name": "random", "data_files": [{"split": "train", "path": "random.jsonl"}]},
        ],
    }


def test_what_is_not_known_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(orjson.dumps({"messages": TURNS}) + b"\n")
    facts = [facts_of(str(path))]
    unknown = unknown_of(facts, CardOptions())
    assert [line.partition(":")[0] for line in unknown] == [
        "no license is named (--license)",
        "no language is named (--language)",
        "no name is given (--name)",
        *["rows.jsonl"] * 3,
    ]
    text = card_of(path)
    assert "<!-- rows.jsonl: no run file says how its rows were scored -->" in text
    assert set(head_of(text)) == {"task_categories", "size_categories", "tags", "configs"}
    assert not re.search("^##* How", text, re.MULTILINE)


def test_files_of_several_kinds_are_named(scored: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.csv"):
        select(scored, tmp_path / name, top=2)
    unknown = unknown_of(
        [facts_of(str(tmp_path / name)) for name in ("a.jsonl", "b.csv")], CardOptions("x", "y", ("z",))
    )
    assert unknown[0].startswith("the files are of several kinds (csv, json)")


def test_a_rule_of_ones_own_has_no_provenance(scored: Path) -> None:
    Path(f"{scored}.run.json").write_bytes(orjson.dumps(run_file({"id": "paper-v1", "digest": "other"})))
    text = card_of(scored)
    assert "Where it comes from is not in the run file." in text
    assert "arXiv" not in text


def test_pairs_are_tagged_and_shown_to_dpo(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + b"\n")
    text = card_of(path)
    assert head_of(text)["tags"] == ["instructmining", "instruction-tuning", "preference-data"]
    assert 'DPOTrainer(..., train_dataset=rows.select_columns(["prompt", "chosen", "rejected"]))' in text


def test_a_table_alone_tells_how_it_was_made(scored: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.parquet"
    select(scored, best, top=2, keep_scores=True)
    Path(f"{best}.selection.json").unlink()
    Path(f"{scored}.run.json").unlink()
    text = card_of(best)
    assert "The rule `paper-v1`" in text
    assert "| kept | 2 |" in text


def test_files_beside_that_tell_of_other_rows_are_an_error(scored: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.jsonl"
    select(scored, best, top=2)
    best.write_bytes(best.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(SelectionError, match=r"has 1 rows, and .*selection\.json tells of 2; select again"):
        facts_of(str(best))


@pytest.mark.parametrize(
    ("rows", "wanted"), [(999, "n<1K"), (1000, "1K<n<10K"), (2_000_000, "1M<n<10M"), (10**12, "100B<n<1T")]
)
def test_the_size_is_the_hubs_category(rows: int, wanted: str, scored: Path) -> None:
    from dataclasses import replace  # noqa: PLC0415 - of this test alone

    facts = replace(facts_of(str(scored)), rows=rows)
    assert head_of(card_text([facts], CardOptions(), ["scored.jsonl"]))["size_categories"] == [wanted]


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    path = tmp_path / "rows<b>`.jsonl"
    path.write_bytes(
        orjson.dumps({"messages": TURNS, HOSTILE: 1, "mtld": 1.0, "truncated": [], "score_notes": {}}) + b"\n"
    )
    run = run_file({"id": HOSTILE, "digest": "d"})
    run["bundle"] |= {"name": HOSTILE, "note": HOSTILE, "roles": {HOSTILE: {"id": HOSTILE}}}
    run["caution"] = HOSTILE
    run["counts"] = {"rows_out": 1}
    Path(f"{path}.run.json").write_bytes(orjson.dumps(run))
    text = card_of(path, name=HOSTILE, license=HOSTILE, languages=(HOSTILE,))
    head = head_of(text)
    assert (head["pretty_name"], head["license"], head["language"]) == (HOSTILE, HOSTILE, [HOSTILE])
    body = text.split("---\n", 2)[2]
    shown = MarkdownIt("commonmark").enable("table").render(body)
    tags = set(re.findall(r"<([a-z0-9]+)", re.sub("<!--.*?-->", "", shown)))
    assert tags <= {"h1", "h2", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert shown.count("<h1>") == 1
    assert "\u202e" not in body
    assert not re.search("^license:", body, re.MULTILINE)


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(text=ANY)
@settings(max_examples=300, deadline=None)
def test_any_name_is_read_again_from_the_head(text: str) -> None:
    head = head_of(card_text([], CardOptions(name=text or "x"), []))
    assert head["pretty_name"] == (text or "x")


@given(text=ANY)
@settings(max_examples=300, deadline=None)
def test_any_text_stays_on_its_line_and_in_its_code(text: str) -> None:
    for shown in (code(text), plain(text)):
        assert len(shown.splitlines()) <= 1
    fence = re.match("`+", code(text))
    assert fence is not None
    assert fence.group() not in re.split("[^`]+", code(text)[len(fence.group()) : -len(fence.group())])
    assert "<" not in plain(text)


@pytest.mark.parametrize("name", ["best.jsonl", "best.jsonl.gz", "best.parquet", "best.csv", "best.tsv"])
def test_the_code_for_pandas_loads_the_file(
    scored: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    select(scored, tmp_path / name, top=3, convert="messages", keep_scores=True)
    (block,) = re.findall("```python\n(.*?)```", card_of(tmp_path / name), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec("import pandas" + block.partition("import pandas")[2], found)
    assert isinstance(found["table"], pd.DataFrame)
    assert len(found["table"]) == 3


def test_a_json_array_is_loaded_by_pandas_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(orjson.dumps([{"instruction": "a", "output": "b", "reward": 1.0, "score_notes": {}}] * 3))
    text = card_of(path)
    assert "pandas.read_json('rows.json')" in text
    assert pd.read_json(path).shape[0] == 3


def test_the_command_writes_a_card_and_names_what_is_missing(
    run: Run, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    select(scored, folder / "best.jsonl", top=2)
    assert run("card", folder / "best.jsonl", "-o", tmp_path / "README.md", "--language", "en,de", "--json") == 0
    shown = capsys.readouterr()
    assert "not in the card: no license is named" in shown.err
    document = orjson.loads(shown.out)
    assert document["language"] == ["en", "de"]
    assert len(document["not_known"]) == 3
    assert (
        head_of((tmp_path / "README.md").read_text("utf-8"))["configs"][0]["data_files"][0]["path"] == "data/best.jsonl"
    )
    assert run("card", folder / "best.jsonl", "-o", tmp_path / "README.md") == 1
    assert run("card", folder / "gone.jsonl", "-o", tmp_path / "other.md") == 1
    assert run("card", folder / "best.jsonl", "-o", folder / "best.jsonl", "--overwrite") == 1


def test_a_card_of_rows_that_were_never_scored_does_not_say_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "a", "output": "b"}\n')
    assert "1 row for fine-tuning language models.\n" in card_of(path)


def test_a_card_of_rows_without_columns_says_that_they_are_elsewhere(scored: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.jsonl"
    select(scored, best, top=2)
    text = card_of(best)
    assert "Columns that were computed: " in text
    assert "This file does not have them" in text
    assert "–keep" not in text
