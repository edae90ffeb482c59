"""Texts and tensors of KServe's protocol, in JSON or in its binary extension."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining_serving.http.bodies import BodyError

INPUT = "EXAMPLE"
HEADER = "Inference-Header-Content-Length"  # bytes of the JSON that the binary tensors follow
_LENGTH = struct.Struct("<I")  # before each element of a binary BYTES tensor
_FLAT, _COLUMN = 1, 2  # dimensions that an input may have: [rows] or [rows, 1]
Values: TypeAlias = NDArray[np.float64] | Sequence[str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to infer."""

    texts: list[str]  # each a row as JSON
    outputs: dict[str, bool]  # those that were named, and whether each is wanted in binary; empty for all
    binary: bool  # whether others are
    id: str | None
    shape: list[int]

    @classmethod
    def of(cls, body: bytes, header: str | None) -> Asked:
        """Read a request.

        Args:
            body: JSON, and binary tensors after it.
            header: the bytes of the JSON, as the request's header has it; None for all.

        Raises:
            BodyError: it is not a request of the protocol, or wants what is not served.
        """
        length = len(body)
        if header is not None:
            if not header.isascii() or not header.isdecimal() or len(header) > 12 or not 0 < int(header) <= length:
                raise _wrong(f"{HEADER}: {header[:20]!r}, wanted 1 to {length}, the bytes of the JSON in the body")
            length = int(header)
        said = _object(body[:length])
        tensor = _only_input(said)
        given = _parameters(tensor, "input")
        shape = _shape(tensor.get("shape"))
        if "binary_data_size" in given:
            texts = _from_binary(body[length:], given["binary_data_size"], shape[0])
        else:
            if len(body) > length:
                raise _wrong(f"{len(body) - length} bytes after the JSON belong to no input (binary_data_size)")
            texts = _from_json(tensor.get("data"), shape[0])
        parameters = _parameters(said, "request")
        number = said.get("id")
        if number is not None and not isinstance(number, str):
            raise _wrong("id: wanted a text")
        binary = _flag(parameters, "binary_data_output", usual=False)
        return cls(texts, _outputs(said.get("outputs"), binary=binary), binary, number, shape)


def answered(asked: Asked, model: Mapping[str, str], tensors: Mapping[str, Values]) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer, and its headers.

    Args:
        asked: the request.
        model: ``model_name`` and ``model_version``.
        tensors: by name, each with a value for every text; those of numbers are FP64, with NaN for null.

    Raises:
        BodyError: an output was named that is not there.
    """
    if unknown := [name for name in asked.outputs if name not in tensors]:
        raise _wrong(f"no output is named {unknown[0][:80]!r}; there are {', '.join(tensors)}")
    chosen = asked.outputs or dict.fromkeys(tensors, asked.binary)
    described: list[dict[str, object]] = []
    raw: list[bytes] = []
    for name, is_binary in chosen.items():
        values = tensors[name]
        tensor: dict[str, object] = {"name": name, "datatype": datatype(values), "shape": asked.shape}
        if is_binary:
            raw.append(_binary(values))
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = values.tolist() if isinstance(values, np.ndarray) else list(values)  # NaN becomes null
        described.append(tensor)
    said = orjson.dumps({**model, **({} if asked.id is None else {"id": asked.id}), "outputs": described})
    if not raw:
        return said, {"content-type": "application/json"}
    return b"".join([said, *raw]), {"content-type": "application/octet-stream", HEADER: str(len(said))}


def datatype(values: Values) -> str:
    """Return the protocol's name of the type of values."""
    return "FP64" if isinstance(values, np.ndarray) else "BYTES"


def rows_in(texts: Sequence[str]) -> list[object]:
    """Return the rows that texts hold as JSON, whatever it is.

    Raises:
        BodyError: a text is no JSON.
    """
    return [_value(text.encode(), f"{INPUT}, element {number}: ") for number, text in enumerate(texts)]


def _wrong(message: str) -> BodyError:
    return BodyError(400, message)


def _object(text: bytes) -> Mapping[str, Any]:
    found = _value(text, "the body ")
    if not isinstance(found, dict):
        raise _wrong("wanted a JSON object")
    return found


def _value(text: bytes, where: str) -> object:
    try:
        found: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _wrong(f"{where}is not JSON: {error.msg} at character {error.pos}") from error
    return found


def _only_input(said: Mapping[str, Any]) -> Mapping[str, Any]:
    inputs = said.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong(f"inputs: wanted one, {INPUT}")
    tensor: Mapping[str, Any] = inputs[0]
    if tensor.get("name") != INPUT:
        raise _wrong(f"inputs: wanted the name {INPUT}")
    if tensor.get("datatype") != "BYTES":
        raise _wrong(f"{INPUT}: wanted the datatype BYTES, each element a row as JSON")
    return tensor


def _parameters(part: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = part.get("parameters")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(f"{where}: parameters: wanted an object")
    for name in ("shared_memory_region", "classification"):
        if name in found:
            raise _wrong(f"{where}: {name} is not served")
    return found


def _flag(parameters: Mapping[str, Any], name: str, *, usual: bool) -> bool:
    found = parameters.get(name, usual)
    if not isinstance(found, bool):
        raise _wrong(f"{name}: wanted true or false")
    return found


def _shape(given: object) -> list[int]:
    sizes = given if isinstance(given, list) and all(type(size) is int for size in given) else []
    if len(sizes) not in {_FLAT, _COLUMN} or sizes[0] < 1 or sizes[1:] not in ([], [1]):
        raise _wrong(f"{INPUT}: shape: wanted [rows] or [rows, 1]")
    return list(sizes)


def _from_json(data: object, rows: int) -> list[str]:
    if not isinstance(data, list):
        raise _wrong(f"{INPUT}: data: wanted a list of texts")
    texts = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
    if not all(isinstance(each, str) for each in texts):
        raise _wrong(f"{INPUT}: data: wanted a list of texts")
    if len(texts) != rows:
        raise _wrong(f"{INPUT}: data has {len(texts)} elements, and the shape says {rows}")
    return texts


def _from_binary(data: bytes, size: object, rows: int) -> list[str]:
    if type(size) is not int or size != len(data):
        raise _wrong(f"{INPUT}: binary_data_size does not say {len(data)}, the bytes after the JSON")
    texts: list[str] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise _wrong(f"{INPUT}, element {len(texts)}: the data ends inside of its length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise _wrong(f"{INPUT}, element {len(texts)}: the data ends inside of it")
        try:
            texts.append(data[at : at + length].decode())
        except UnicodeDecodeError as error:
            raise _wrong(f"{INPUT}, element {len(texts)}: is not UTF-8") from error
        at += length
    if len(texts) != rows:
        raise _wrong(f"{INPUT}: the data has {len(texts)} elements, and the shape says {rows}")
    return texts


def _outputs(given: object, *, binary: bool) -> dict[str, bool]:
    if given is None:
        return {}
    if not isinstance(given, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in given
    ):
        raise _wrong('outputs: wanted a list of objects with a "name"')
    return {each["name"]: _flag(_parameters(each, "output"), "binary_data", usual=binary) for each in given}


def _binary(values: Values) -> bytes:
    if isinstance(values, np.ndarray):
        return values.astype("<f8").tobytes()
    encoded = [value.encode() for value in values]
    return b"".join(part for each in encoded for part in (_LENGTH.pack(len(each)), each))


def number_of(value: float | None) -> float:
    """Return a column's value as a float; NaN for null."""
    return math.nan if value is None else float(value)
