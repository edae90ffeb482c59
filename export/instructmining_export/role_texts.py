"""The parity texts of a role: its tokenizer and template in the bundle, and the tokens that its graph is checked on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from instructmining.bundle import RoleName
from instructmining.bundle.template import Part, Template
from instructmining.errors import ExportError, RowError
from instructmining.tokenizing.templates import conversation, document, question
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import Example
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.parity import parity_examples
from instructmining_export.tokenizing import save_tokenizer

_LEAST_TEXTS = 100  # parity rows that a template must be able to hold


@dataclass(frozen=True, slots=True)
class RoleText:
    """A role's tokenizer, template and length limit, and the parity texts as its tokens."""

    tokenizer: Path
    template: dict[str, Any]
    max_length: int
    bos: str | None
    tokens: list[Tokens]


def conversations(
    bundle: BundleWriter,
    role: RoleName,
    tokenizer: PreTrainedTokenizerFast,
    template: dict[str, Any],
    max_length: int,
) -> RoleText:
    """Save the tokenizer and tokenize the parity conversations, without those that the template cannot hold.

    Raises:
        ExportError: fewer conversations are left than the gate needs.
    """
    path = bundle.file_of(role, "tokenizer.json")
    save_tokenizer(tokenizer, path)
    form = Template.from_json(template, "template")
    rendered = [parts for example in parity_examples() if (parts := _rendered(example, form)) is not None]
    if len(rendered) < _LEAST_TEXTS:
        raise ExportError(
            f"role {role!r}: its template holds only {len(rendered)} of the {len(parity_examples())} parity rows; "
            f"wanted {_LEAST_TEXTS}"
        )
    tokens = TextEncoder(path).rendered(rendered, max_length=max_length)
    return RoleText(path, template, max_length, templates.begin_of_text(tokenizer.backend_tokenizer), tokens)


def documents(
    bundle: BundleWriter, tokenizer: PreTrainedTokenizerFast, template: dict[str, Any], max_length: int
) -> RoleText:
    """Save the tokenizer of the role embedding and tokenize the parity rows."""
    path = bundle.file_of("embedding", "tokenizer.json")
    save_tokenizer(tokenizer, path)
    texts = [document(example, Template.from_json(template, "template")) for example in parity_examples()]
    return RoleText(path, template, max_length, None, TextEncoder(path).rendered(texts, max_length=max_length))


def questions(bundle: BundleWriter, tokenizer: PreTrainedTokenizerFast, max_length: int) -> RoleText:
    """Save the tokenizer of the role unieval and tokenize one of its questions about each parity row, in turn."""
    template = templates.unieval()
    path = bundle.file_of("unieval", "tokenizer.json")
    save_tokenizer(tokenizer, path)
    form = Template.from_json(template, "template")
    names = list(form.questions)
    texts = [question(example, form, names[number % len(names)]) for number, example in enumerate(parity_examples())]
    return RoleText(path, template, max_length, None, TextEncoder(path).rendered(texts, max_length=max_length))


def _rendered(example: Example, template: Template) -> list[Part] | None:
    try:
        return conversation(example, template)
    except RowError:
        return None
