"""Checks the types of arguments, and describes wrong values in one line."""

from __future__ import annotations

from instructmining.errors import InstructMiningError

_SHOWN = 60  # longest value shown, in characters


def shown(value: object) -> str:
    """Describe a value for messages: with its type where it is short, else by its type alone."""
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, (str, bytes, int, float)):
        text = repr(value)
        return f"{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'} ({kind})"
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def check_type(
    name: str,
    value: object,
    kinds: type | tuple[type, ...],
    *,
    wanted: str,
    error: type[InstructMiningError],
) -> None:
    """Check that an argument has a type.

    Args:
        name: name of the argument, as the caller writes it.
        value: value of the argument.
        kinds: accepted types; a bool is not accepted as a number.
        wanted: the types in words, and how to fix the call.
        error: class of the error to raise.
    """
    taken = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, taken) or (isinstance(value, bool) and bool not in taken and object not in taken):
        raise error(f"{name} is {shown(value)}, wanted {wanted}")


def check_call(name: str, value: object, *, error: type[InstructMiningError]) -> None:
    """Check that an argument is callable or None."""
    if value is not None and not callable(value):
        raise error(f"{name} is {shown(value)}, wanted a function or None")
