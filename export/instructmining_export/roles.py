"""One checkpoint to one role of a bundle: references first, then the graph, then the gate."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from instructmining.bundle import RoleName, Template
from instructmining.prompts import conversation, document
from instructmining.references import References
from instructmining.tokens import TextEncoder
from instructmining_export.bundles import BundleWriter, RoleEntry
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import decoder, encoder
from instructmining_export.graphs.tape import save
from instructmining_export.parity import check, decoder_references, encoder_references, parity_examples


@dataclass(frozen=True, slots=True)
class RoleText:
    """What a role is given."""

    template: dict[str, Any]  # in the manifest's form
    max_tokens: int


@dataclass(frozen=True, slots=True)
class RewardHead:
    """A linear reward head and where it comes from."""

    head: decoder.LinearHead
    source: dict[str, str]


def add_decoder(bundle: BundleWriter, checkpoint: Checkpoint, text: RoleText, reward: RewardHead | None = None) -> None:
    """The role perplexity, and with a head on the same model the role reward, on one graph and one pass.

    Raises:
        ExportError: the family is not supported, or the graph is not equal to its checkpoint.
    """
    shape = decoder.DecoderShape.from_config(checkpoint.config())
    tokenizer = _add_tokenizer(bundle, checkpoint, "perplexity")
    template = Template.from_json(text.template, str(checkpoint.folder))
    texts = TextEncoder(tokenizer).rendered(
        [conversation(example, template) for example in parity_examples()], max_tokens=text.max_tokens
    )
    # References first, then torch's copy of the weights goes, then the graph is written and run.
    head = reward.head if reward is not None else None
    nll, rewards = decoder_references(checkpoint.folder, texts, head)
    gc.collect()
    with checkpoint.weights() as weights:
        model = decoder.build(shape, weights, vocabulary=True, reward=head)
        graph = save(model, bundle.file("perplexity/model.onnx"))[0]
    _add_role(bundle, "perplexity", nll, graph, text, checkpoint.source)
    if reward is not None:
        _add_role(bundle, "reward", rewards, graph, text, reward.source)


def add_encoder(bundle: BundleWriter, checkpoint: Checkpoint, text: RoleText) -> None:
    """The role embedding: mean pooling, unit length.

    Raises:
        ExportError: the family is not supported, or the graph is not equal to its checkpoint.
    """
    shape = encoder.EncoderShape.from_config(checkpoint.config())
    tokenizer = _add_tokenizer(bundle, checkpoint, "embedding")
    template = Template.from_json(text.template, str(checkpoint.folder))
    texts = TextEncoder(tokenizer).rendered(
        [document(example, template) for example in parity_examples()], max_tokens=text.max_tokens
    )
    references = encoder_references(checkpoint.folder, texts)
    gc.collect()
    with checkpoint.weights() as weights:
        graph = save(encoder.build(shape, weights), bundle.file("embedding/model.onnx"))[0]
    _add_role(bundle, "embedding", references, graph, text, checkpoint.source)


def _add_role(
    bundle: BundleWriter, role: RoleName, references: References, graph: Path, text: RoleText, source: dict[str, str]
) -> None:
    """Pass the gate, keep the reference values, and say in the manifest what was found."""
    parity = check(role, references, graph)
    kept = f"{role}/references.json"
    references.save(bundle.file(kept))
    bundle.roles[role] = RoleEntry(
        graph=graph.relative_to(bundle.folder).as_posix(),
        tokenizer=f"{graph.parent.name}/tokenizer.json",
        template=text.template,
        max_tokens=text.max_tokens,
        source=source,
        parity=parity,
        references=kept,
    )


def _add_tokenizer(bundle: BundleWriter, checkpoint: Checkpoint, role: str) -> Path:
    """The tokenizer as the bundle holds it: without truncation and padding of its own."""
    tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    path = bundle.file(f"{role}/tokenizer.json")
    tokenizer.save(str(path))
    return path
