"""What a caller gave in place of what is wanted: checked by type, and said in one line."""

from __future__ import annotations

from instructmining.errors import InstructMiningError

_SHOWN = 60  # characters of a value


def shown(value: object) -> str:
    """A value for messages: with its type where it is short, else its type alone."""
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
    """Prove that an argument is of a type.

    Args:
        name: of the argument, as the caller writes it.
        value: what was given.
        kinds: those that are taken; a truth value is none of the numbers.
        wanted: the same in words, and how to mend.
        error: the leaf that is raised.
    """
    taken = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, taken) or (isinstance(value, bool) and bool not in taken and object not in taken):
        raise error(f"{name} is {shown(value)}, wanted {wanted}")


def check_call(name: str, value: object, *, error: type[InstructMiningError]) -> None:
    """Prove that an argument can be called, or is None."""
    if value is not None and not callable(value):
        raise error(f"{name} is {shown(value)}, wanted a function or None")
