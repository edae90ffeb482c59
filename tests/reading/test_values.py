"""JSON in and out."""

from __future__ import annotations

import json
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructmining.reading.values import dumps, loads, utf8

TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(value=VALUES, sort_keys=st.booleans())
def test_what_is_written_is_read_again(value: object, sort_keys: bool) -> None:
    text = dumps(value, sort_keys=sort_keys)
    assert loads(text) == json.loads(text) == value
    assert str(loads(text)) == str(json.loads(text))


@given(value=VALUES, sort_keys=st.booleans())
def test_with_and_without_what_orjson_cannot_write_the_bytes_are_the_same(value: object, sort_keys: bool) -> None:
    alone = dumps([value], sort_keys=sort_keys)
    assert dumps([value, 2**70], sort_keys=sort_keys) == alone[:-1] + b",%d]" % 2**70


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 2**70 + 1, -(2**63) - 1, 10**300])
def test_integers_of_any_size_stay_what_they_are(number: int) -> None:
    text = b'{"a":[1,{"b":%d}]}' % number
    assert loads(text) == {"a": [1, {"b": number}]}
    assert dumps(loads(text)) == text


def test_large_floats_are_floats() -> None:
    assert loads(b"[1e30, 123456789012345678901.0]") == [1e30, 123456789012345678901.0]
    assert isinstance(loads(b"1e30"), float)


@pytest.mark.parametrize("depth", [255, 400, 1024])
def test_what_is_read_deep_is_written_deep(depth: int) -> None:
    text = b'{"a":[' * (depth // 2) + b"]}" * (depth // 2)
    assert dumps(loads(text)) == text


def test_an_object_that_holds_itself_is_refused() -> None:
    value: dict[str, object] = {}
    value["a"] = value
    with pytest.raises(TypeError, match="1024 lists and objects inside each other"):
        dumps(value)


def test_a_large_integer_too_deep_for_its_reader_is_no_json() -> None:
    with pytest.raises(orjson.JSONDecodeError, match="beyond 64 bits inside too many lists"):
        loads(b"[" * 1020 + b"%d" % 2**70 + b"]" * 1020)


def test_other_values_are_written_by_the_default_beside_large_integers_too() -> None:
    def default(value: object) -> object:
        if isinstance(value, Decimal):
            return orjson.Fragment(format(value, "f"))
        raise TypeError(f"a {type(value).__name__}")

    assert dumps({"a": 2**70, "b": [Decimal("1.50")]}, default=default) == b'{"a":%d,"b":[1.50]}' % 2**70
    with pytest.raises(TypeError, match="complex"):
        dumps([2**70, 1j], default=default)


def test_bytes_of_a_name_that_are_no_utf8_are_shown() -> None:
    name = b"caf\xe9.jsonl".decode("utf-8", "surrogateescape")
    assert utf8(name) == r"caf\xe9.jsonl"
    assert utf8("café.jsonl") == "café.jsonl"
