"""Chooses how a role's graph is made: by a builder of ours, or by another exporter with our outputs on its graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import onnx_ir as ir
from transformers import PretrainedConfig

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export import families
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal
from instructmining_export.graphs.bidirectional import Pooling
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.heads import Dense
from instructmining_export.graphs.precision import Precision
from instructmining_export.transformers_versions import graph_settings
from instructmining_export.via import exporters, tails
from instructmining_export.via.choices import Via
from instructmining_export.via.exporters import Exporter, Task

SCORE = "score.weight"  # the head that every decoder's sequence classifier has
_Graph = TypeVar("_Graph")
_Tail = Callable[[ir.Model, Weights], GraphBuilder]


class Build(Protocol):
    """Builds a role's graph."""

    def __call__(self, weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        """Build it for a kind of device."""


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """How a role's graph is made."""

    graphs: Callable[[Path], AbstractContextManager[Build]]  # given a folder for files that are needed meanwhile
    via: str | None = None  # the other exporter and its version

    @classmethod
    def own(cls, build: Build) -> GraphPlan:
        """Return the plan of a builder of ours."""
        return cls(lambda _: nullcontext(build))


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans the graphs of one checkpoint."""

    checkpoint: Checkpoint
    config: PretrainedConfig
    via: Via
    precision: PrecisionName
    max_length: int  # tokens of the longest text

    def likelihoods(self, head: LinearHead | None) -> GraphPlan:
        """Plan the graph of the role perplexity, with a linear reward head on the last token or without.

        Raises:
            ExportError: nothing makes a graph of the family, or not with one of its settings.
        """
        chosen = self._choose(families.CAUSAL, wanted_for="perplexity")
        if isinstance(chosen, Exporter):
            _check_causal(self.checkpoint, self.config)
            if head is not None:
                raise ExportError(f"--via {self.via}: a reward head of one's own needs --via own")
            return self._exported(chosen, "text-generation", tails.likelihoods)
        backbone = chosen.from_config(graph_settings(self.config), max_length=self.max_length)

        def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
            return causal.build(backbone, weights, vocabulary=True, reward=head, precision=precision, device=device)

        return GraphPlan.own(build)

    def last_token_reward(self, weight: str, bias: str | None) -> GraphPlan:
        """Plan the graph of a decoder with a reward head, whose tensors have these names.

        Raises:
            ExportError: as for :meth:`likelihoods`.
        """
        chosen = self._choose(families.REWARD_DECODERS, wanted_for="reward")
        if isinstance(chosen, Exporter):
            return self._exported(chosen, "feature-extraction", partial(tails.last_token_reward, head=weight))
        backbone = chosen.from_config(graph_settings(self.config), max_length=self.max_length)

        def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
            head = LinearHead.read(weights, weight, bias)
            return causal.build(backbone, weights, vocabulary=False, reward=head, precision=precision, device=device)

        return GraphPlan.own(build)

    def pair_reward(self, separator: int | None) -> GraphPlan:
        """Plan the graph of an encoder's classifier over pairs of texts.

        Raises:
            ExportError: as for :meth:`likelihoods`.
        """
        chosen = self._choose(families.ENCODERS, wanted_for="reward")
        if isinstance(chosen, Exporter):
            marked = separator if getattr(self.config, "type_vocab_size", 0) > 1 else None
            tail = partial(tails.classifier_reward, separator=marked)
            return self._exported(chosen, "text-classification", tail, segments=marked is not None)
        backbone = chosen.from_config(graph_settings(self.config), max_length=self.max_length)

        def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
            return bidirectional.build_reward(
                backbone, weights, separator=separator, precision=precision, device=device
            )

        return GraphPlan.own(build)

    def embedding(self, pooling: Pooling, dense: Sequence[Dense]) -> GraphPlan:
        """Plan the graph of a sentence encoder, with its layers after the pooling.

        Raises:
            ExportError: as for :meth:`likelihoods`.
        """
        chosen = self._choose(families.SENTENCE_ENCODERS, wanted_for="embedding")
        if isinstance(chosen, Exporter):
            return self._exported(chosen, "feature-extraction", partial(tails.embedding, pooling=pooling, dense=dense))
        backbone = chosen.from_config(graph_settings(self.config), max_length=self.max_length)

        def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
            return bidirectional.build_embedding(
                backbone, weights, pooling=pooling, dense=dense, precision=precision, device=device
            )

        return GraphPlan.own(build)

    def reads_last_token(self) -> bool:
        """Return whether a sequence classifier is a decoder's, which reads the last token, or an encoder's."""
        if self.config.model_type in families.REWARD_DECODERS:
            return True
        if self.config.model_type in families.ENCODERS:
            return False
        with self.checkpoint.weights() as weights:
            return SCORE in weights

    def _choose(self, table: Mapping[str, _Graph], *, wanted_for: str) -> _Graph | Exporter:
        """Return the family's graph from the table, or the exporter that makes one.

        Raises:
            ExportError: there is neither.
        """
        known = self.config.model_type in table
        # Neither exporter gives an encoder-decoder as one graph of our inputs.
        if self.via == "own" or (self.via == "auto" and known) or self.config.is_encoder_decoder:
            return families.choose(table, self.config, wanted_for=wanted_for)
        if self.via != "auto":
            return exporters.find(self.via)
        try:
            return exporters.find("auto")
        except ExportError as error:
            raise ExportError(f"{families.unknown(table, self.config, wanted_for=wanted_for)}; {error}") from error

    def _exported(self, exporter: Exporter, task: Task, tail: _Tail, *, segments: bool = False) -> GraphPlan:
        if self.precision != "fp32":
            raise ExportError(
                f"--precision {self.precision}: a graph made with {exporter.label} is in fp32; use --precision fp32"
            )

        @contextmanager
        def graphs(folder: Path) -> Iterator[Build]:
            with exporters.exported(exporter, self.checkpoint, task, folder, segments=segments) as file:
                yield lambda weights, _precision, _device="cpu": tail(ir.load(file), weights)

        return GraphPlan(graphs, exporter.label)


def _check_causal(checkpoint: Checkpoint, config: PretrainedConfig) -> None:
    """Refuse a model that is no causal language model, such as a masked one, whose weights would fit one."""
    architecture = (config.architectures or ["of no stated architecture"])[0]
    if not architecture.endswith(("ForCausalLM", "LMHeadModel")):
        raise ExportError(f"{checkpoint.folder}: a model {architecture}; the role perplexity wants one …ForCausalLM")
