"""Wrong types in the public functions: one of our errors, at once, with what was found and what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import instructmining
from instructmining import (
    Bundle,
    Differing,
    Distinct,
    Example,
    Extras,
    FieldOptions,
    KnnOptions,
    ReadOptions,
    Rule,
    SelectionOptions,
    Turn,
    compare,
    describe,
    fit,
    read_examples,
    rescore,
    score_table,
    select,
    to_arrow,
)
from instructmining.errors import (
    BundleError,
    FittingError,
    InputError,
    InstructMiningError,
    OutputError,
    RuleError,
    SelectionError,
)
from instructmining.errors.arguments import shown

ROWS = [{"output": "a", "mtld": 1.0}]
USER = Turn("user", "a")
RULE = Rule("mine", 0.0, {"mtld": 1.0})


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, "None"), (3, "3 (int)"), (True, "True (bool)"), ([], "a list"), (USER, "a Turn"), (RULE, "a Rule")],
)
def test_a_value_is_shown_with_its_type(value: object, wanted: str) -> None:
    assert shown(value) == wanted
    assert shown(Example((USER,))) == "an Example"
    assert len(shown("x" * 1000)) < 80


CALLS: dict[str, tuple[Callable[..., object], type[InstructMiningError], str]] = {
    "a prompt": (lambda: Example.of(1, "b"), InputError, r"turn of 'user': text is 1 \(int\), wanted text"),
    "a response": (lambda: Example.of("a", None), InputError, "turn of 'assistant': text is None, wanted text"),
    "a role": (
        lambda: Turn("robot", "x"),
        InputError,
        r"role is 'robot' \(str\), wanted system, user, assistant, tool",
    ),
    "no role": (lambda: Turn([], "x"), InputError, "role is a list, wanted system"),
    "turns": (lambda: Example("a"), InputError, r"turns is 'a' \(str\), wanted a tuple of Turn"),
    "a turn": (lambda: Example((USER, "b")), InputError, "turns is a tuple, wanted a tuple of Turn"),
    "a source": (lambda: read_examples(3), InputError, r"3 \(int\) is neither a path nor a table: wanted"),
    "no source": (lambda: read_examples(None), InputError, "None is neither a path nor a table: wanted"),
    "bytes": (lambda: read_examples(b"x"), InputError, r"b'x' \(bytes\) is neither a path nor a table"),
    "sources": (lambda: read_examples([3]), InputError, r"3 \(int\) is neither a path nor a table"),
    "a limit": (lambda: read_examples([], limit="3"), InputError, r"limit is '3' \(str\), wanted a number of rows"),
    "columns": (lambda: read_examples([], columns="mtld"), InputError, r"columns is 'mtld' \(str\), wanted a list"),
    "a size": (lambda: ReadOptions(max_row_bytes=1.5), InputError, r"max_row_bytes is 1.5 \(float\), wanted"),
    "a delimiter": (lambda: ReadOptions(delimiter=3), InputError, r"delimiter is 3 \(int\), wanted one character"),
    "options": (lambda: read_examples([], options=3), InputError, r"options is 3 \(int\), wanted ReadOptions"),
    "fields": (lambda: read_examples([], fields=3), InputError, r"fields is 3 \(int\), wanted FieldOptions"),
    "a map": (lambda: FieldOptions(map=3), InputError, r"map is 3 \(int\), wanted a dict"),
    "what is ignored": (lambda: FieldOptions(ignore="a"), InputError, r"ignore is 'a' \(str\), wanted names"),
    "a taker": (lambda: read_examples([], on_reject=3), InputError, r"on_reject is 3 \(int\), wanted a function"),
    "a format": (
        lambda: read_examples([], format=3),
        InputError,
        r"format is 3 \(int\), wanted one of preference",
    ),
    "a bundle": (lambda: Bundle.open(3), BundleError, r"bundle is 3 \(int\), wanted the path"),
    "no bundle": (lambda: Bundle.open(None), BundleError, "bundle is None, wanted the path"),
    "a rule": (lambda: Rule.load(3), RuleError, r"rule is 3 \(int\), wanted paper-v1, paper-v3, a JSON file"),
    "an intercept": (lambda: Rule("x", "1", {}), RuleError, r"rule: intercept is '1' \(str\), wanted a number"),
    "terms": (lambda: Rule("x", 1.0, ["mtld"]), RuleError, "rule: terms is a list, wanted a dict"),
    "a term": (lambda: Rule("x", 1.0, {"mtld": True}), RuleError, r"rule: 'mtld' is True \(bool\), wanted a number"),
    "an id": (lambda: Rule(3, 1.0, {}), RuleError, r"rule: id is 3 \(int\), wanted a name"),
    "a set": (lambda: describe(3), InputError, r"3 \(int\) is neither a path nor a table"),
    "a prefix": (lambda: describe(ROWS, prefix=3), SelectionError, r"prefix is 3 \(int\), wanted text"),
    "its rule": (lambda: describe(ROWS, rule=3), RuleError, r"rule is 3 \(int\), wanted"),
    "two sets": (lambda: compare(1, 2), InputError, r"1 \(int\) is neither a path nor a table"),
    "files": (lambda: compare(ROWS, ROWS, differing="x"), SelectionError, r"differing is 'x' \(str\), wanted a Diff"),
    "a file": (lambda: compare(ROWS, ROWS, differing=Differing(left=3)), OutputError, r"out is 3 \(int\), wanted"),
    "rescored": (lambda: rescore(None, "x.jsonl", RULE), InputError, "None is neither a path nor a table"),
    "its out": (lambda: rescore(ROWS, None, RULE), OutputError, "out is None, wanted the path of a file to write"),
    "no rule": (lambda: rescore(ROWS, "x.jsonl", None), RuleError, "rule is None, wanted"),
    "selected": (
        lambda: select(3, "x.jsonl", SelectionOptions(top=1)),
        InputError,
        r"3 \(int\) is neither a path nor a table",
    ),
    "a choice": (lambda: select(ROWS, "x.jsonl", 3), SelectionError, r"choice is 3 \(int\), wanted a SelectionOptions"),
    "its path": (lambda: select(ROWS, 3, SelectionOptions(top=1)), SelectionError, r"out is 3 \(int\), wanted"),
    "extras": (lambda: select(ROWS, "x.jsonl", SelectionOptions(top=1), extras=3), SelectionError, "extras is 3"),
    "a column": (lambda: select(ROWS, "x.jsonl", SelectionOptions(top=1), by=3), SelectionError, "by is 3"),
    "top": (lambda: SelectionOptions(top="3"), SelectionError, r"top is '3' \(str\), wanted a whole number"),
    "a fraction": (lambda: SelectionOptions(fraction="0.5"), SelectionError, "fraction is '0.5'"),
    "where": (lambda: SelectionOptions(where="mtld>5"), SelectionError, r"where is 'mtld>5' \(str\), wanted a list"),
    "a condition": (
        lambda: SelectionOptions(where=[3]),
        SelectionError,
        r"where is 3 \(int\), wanted conditions as text",
    ),
    "quotas": (
        lambda: SelectionOptions(quotas=[1], group_by="a"),
        SelectionError,
        "quotas is a list, wanted a mapping",
    ),
    "a quota": (lambda: SelectionOptions(quotas={"a": "b"}, group_by="a"), SelectionError, "quota of 'a' is 'b'"),
    "distinct": (
        lambda: SelectionOptions(distinct=0.3),
        SelectionError,
        r"distinct is 0.3 \(float\), wanted a Distinct",
    ),
    "a distance": (lambda: Distinct("0.3", None), SelectionError, "distance is '0.3'"),
    "an embedder": (lambda: Distinct(0.3, None), SelectionError, "embedder is None, wanted a Scorer"),
    "a seed": (lambda: Extras(seed="x"), SelectionError, "seed is 'x'"),
    "a search": (lambda: KnnOptions(3), RuleError, "knn: 3 is not known"),
    "a pool": (lambda: KnnOptions(pool=3), RuleError, r"knn: pool is 3 \(int\), wanted a field's name"),
    "others": (lambda: KnnOptions(against=3), RuleError, r"knn: against is 3 \(int\), wanted the path"),
    "runs": (lambda: fit(3), FittingError, r"runs: 3 \(int\), wanted a path"),
    "no runs": (lambda: fit(None), FittingError, "runs: None, wanted a path"),
    "its terms": (lambda: fit({}, terms="mtld"), FittingError, r"terms is 'mtld' \(str\), wanted a list"),
    "resamples": (lambda: fit({}, bootstrap="3"), FittingError, "bootstrap is '3'"),
    "a scorer": (lambda: score_table(3, ROWS), InputError, r"scorer is 3 \(int\), wanted an open Scorer"),
    "no rows": (lambda: to_arrow(3), InputError, r"rows is 3 \(int\), wanted scored rows"),
    "a row": (lambda: to_arrow([3]), InputError, r"row 1 is 3 \(int\), wanted a ScoredRow"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_type_is_one_of_our_errors_in_one_line(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    function, error, message = CALLS[call]
    with pytest.raises(error, match=message) as raised:
        function()
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("former", "now"), [("Choice", SelectionOptions), ("Neighbourhood", KnnOptions)])
def test_a_renamed_class_is_there_by_its_former_name_with_a_warning(former: str, now: type) -> None:
    with pytest.warns(DeprecationWarning, match=rf"instructmining\.{former} is called {now.__name__} now"):
        assert getattr(instructmining, former) is now
