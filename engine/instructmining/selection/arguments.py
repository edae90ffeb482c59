"""The types of a selection's arguments, proved before anything is read."""

from __future__ import annotations

from numbers import Integral, Real
from types import UnionType

from instructmining.errors import SelectionError


def wanted_type(name: str, value: object, kind: type | UnionType, wanted: str, *, none: bool = True) -> None:
    """Prove an argument's type; true and false are no numbers.

    Args:
        name: of the argument.
        value: what was given.
        kind: its type, ``Integral`` and ``Real`` for numbers.
        wanted: the type in words.
        none: whether None passes.

    Raises:
        SelectionError: it is of another type.
    """
    if (none and value is None) or (isinstance(value, kind) and not (isinstance(value, bool) and kind in _NUMBERS)):
        return
    raise SelectionError(f"{name} is {repr(value)[:60]} ({type(value).__name__}), wanted {wanted}")


_NUMBERS = (Integral, Real)
