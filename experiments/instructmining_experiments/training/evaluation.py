"""Measures a model's loss with the engine: its weights in the graph that was exported and gated once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instructmining.bundle import Bundle, Role
from instructmining.inference.batching import Batching
from instructmining.inference.devices import Device
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens
from instructmining.writing.atomic import beside, claimed
from instructmining_experiments.state.settings import TemplateName
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save, save_variant
from instructmining_export.originals import read_config
from instructmining_export.plans import Planner
from instructmining_export.roles import Settings, add_perplexity
from instructmining_export.tokenizing import load_tokenizer

MODEL = "model"  # the base model as a bundle, in the experiment's folder


@dataclass(frozen=True, slots=True)
class SetLoss:
    """A model's loss on one evaluation set."""

    loss: float  # in nats per response token, over all of them
    tokens: int  # response tokens
    rows: tuple[tuple[float, int], ...]  # of each row: the sum over its response tokens in nats, and their number


def export_base(
    folder: Path,
    base: Checkpoint,
    *,
    template: TemplateName,
    max_length: int | None,
    report: Callable[[str], None],
) -> Role:
    """Export the base model to the experiment's folder, pass the gate, and return its role perplexity.

    Args:
        folder: of the experiment; a bundle that a killed call left there is replaced.
        base: the model.
        template: "auto" for the model's own chat template, or plain text where it has none.
        max_length: tokens of the longest text; None for the model's own limit, at most 2,048.
        report: called with a message before each step.

    Raises:
        ExportError: the family is not supported, the model has no tokenizer, or the graph is not equal to the model.
    """
    settings = Settings(max_length=max_length, report=report, via="own")
    with BundleWriter(folder / MODEL, frozenset({"perplexity"}), overwrite=True) as bundle:
        add_perplexity(bundle, base, settings, template=_template(base, template))
        bundle.finish()
    return base_role(folder)


def base_role(folder: Path) -> Role:
    """Return the role that was exported to the experiment's folder.

    Raises:
        BundleError: it is missing or damaged.
    """
    return Bundle.open(folder / MODEL).role("perplexity", wanted_by="an experiment")


def _template(base: Checkpoint, name: TemplateName) -> dict[str, Any] | None:
    if name == "auto":
        return None
    if name == "chatml":
        return templates.chatml()
    tokenizer = load_tokenizer(base, words=read_config(base).vocab_size)
    return templates.plain(templates.begin_of_text(tokenizer.backend_tokenizer))


@contextmanager
def graph_of(model: Checkpoint, gated: Role, folder: Path, *, device: Device) -> Iterator[Path]:
    """Write another model's weights into the gated graph, and remove the file at the end.

    Args:
        model: of the same architecture.
        gated: the role whose graph passed the gate.
        folder: for the file.
        device: that the graph is for.

    Raises:
        ExportError: the model has other tensors.
    """
    plan = Planner(model, read_config(model), "own", "fp32", gated.max_length).likelihoods(None)
    with claimed(folder / "graph"):  # removes what a killed process left
        made = beside(folder / "graph")
        made.mkdir()
        try:
            first = made / gated.graph.name
            with plan.graphs(made) as build, model.weights() as weights:
                save(build(weights, Precision()).model(), first)
                if device.kind == "cuda" and gated.cuda_graph is not None:
                    variant = build(weights, Precision(), "cuda").model()
                    save_variant(variant, made / gated.cuda_graph.name, first=first)
            yield made / gated.graph_on(device.kind).name
        finally:
            shutil.rmtree(made, ignore_errors=True)


def losses(graph: Path, role: Role, sets: Mapping[str, Sequence[Tokens]], device: Device) -> dict[str, SetLoss]:
    """Return the loss on each evaluation set.

    Args:
        graph: of the model, for the device.
        role: its role in the bundle.
        sets: texts by the set's name.
        device: where.

    Raises:
        BundleError: the graph cannot be loaded.
        DeviceError: the graph fails, or the device has too little memory.
    """
    session = GraphSession(graph, device)
    batching = Batching.usual(device.kind, [role.name])
    return {name: _loss(session, role, texts, batching) for name, texts in sets.items()}


def _loss(session: GraphSession, role: Role, texts: Sequence[Tokens], batching: Batching) -> SetLoss:
    sums = np.zeros(len(texts))
    for begin in range(0, len(texts), batching.window_rows):
        window = texts[begin : begin + batching.window_rows]
        for batch in batching.of(role, window):
            nll = session.run(batch, ["nll"])["nll"].astype(np.float64)
            np.add.at(sums, begin + batch.members[batch.scored[:, 0]], nll)
    tokens = [len(text.scored) for text in texts]
    rows = tuple(zip(sums.tolist(), tokens, strict=True))
    return SetLoss(float(sums.sum() / sum(tokens)), sum(tokens), rows)


def as_json(found: Mapping[str, SetLoss]) -> dict[str, Any]:
    """Return losses as an object by set."""
    return {name: {"loss": one.loss, "tokens": one.tokens, "rows": one.rows} for name, one in found.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, SetLoss]:
    """Return what :func:`as_json` was given."""
    return {
        name: SetLoss(one["loss"], one["tokens"], tuple((total, tokens) for total, tokens in one["rows"]))
        for name, one in content.items()
    }
