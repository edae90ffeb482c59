"""Turns rows of the pool into tokens, by the template and tokenizer with which the role perplexity scores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from instructmining.bundle import Role
from instructmining.errors import InputError, RowError
from instructmining.tokenizing.templates import conversation
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import Example


def tokens_of(examples: Sequence[Example], rows: Iterable[int], role: Role) -> dict[int, Tokens]:
    """Return each row's tokens with the positions of its response, truncated to the role's limit.

    Args:
        examples: of the pool.
        rows: numbers of the rows wanted; one that is named twice is tokenized once.
        role: whose template and tokenizer.

    Raises:
        InputError: the template has no place for a row, or a row has no response token.
    """
    wanted = sorted(set(rows))
    rendered = []
    for row in wanted:
        try:
            rendered.append(conversation(examples[row], role.template))
        except RowError as error:
            raise InputError(f"{_place(examples[row], row)}: {error}; design without it, or give --template") from error
    tokens = dict(zip(wanted, TextEncoder(role.tokenizer).rendered(rendered, max_length=role.max_length), strict=True))
    if empty := [row for row, text in tokens.items() if not len(text.scored)]:
        raise InputError(f"{_place(examples[empty[0]], empty[0])}: has no response token to learn; design without it")
    return tokens


def _place(example: Example, row: int) -> str:
    where = f", line {example.row.line}" if example.row is not None else ""
    return f"row {row} of the pool{where}"
