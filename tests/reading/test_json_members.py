"""Fields of an object in its own bytes."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.reading.json_members import members, without

VALUES = st.recursive(
    st.one_of(st.text(max_size=8), st.integers(-9, 9), st.none(), st.booleans(), st.floats(-1, 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    fields=st.dictionaries(st.text(max_size=6), VALUES, max_size=6),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    data=st.data(),
)
def test_the_fields_that_stay_keep_their_bytes(
    fields: dict[str, object], indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    raw = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    names = data.draw(st.sets(st.sampled_from(sorted(fields)))) if fields else set()
    found = {member.name: raw[slice(*member.value)] for member in members(raw)}
    assert {name: json.loads(value) for name, value in found.items()} == fields
    left = without(raw, fields, names)
    assert json.loads(left) == {name: value for name, value in fields.items() if name not in names}
    kept = {member.name: left[slice(*member.value)] for member in members(left)}
    assert kept == {name: value for name, value in found.items() if name not in names}


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b'{ "a": 1 ,"x":2,"y":[1]}', b'{ "a": 1 }'),  # as score spliced them: all before them stays as it was
        (b'{ "x": 2, "a": 1 , "y": [1] }', b'{"a": 1}'),
        (b'{"x":1}', b"{}"),
        (b'{"a":{"x":1},"x":{"a":"\\"}"}}', b'{"a":{"x":1}}'),
        (b'{"a":"\\"x\\":1,","x":1,"b":2}', b'{"a":"\\"x\\":1,","b":2}'),
        (b'{"\\u0078":1,"a":2}', b'{"a":2}'),
    ],
)
def test_fields_are_taken_off_wherever_they_stand(raw: bytes, left: bytes) -> None:
    assert without(raw, orjson.loads(raw), {"x", "y"}) == left
