"""Writes the graph of one or two roles and passes it through the parity gate."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from instructmining.bundle import PrecisionName, RoleName
from instructmining.inference.references import Agreement, References
from instructmining_export.bundles import BundleWriter, RoleEntry
from instructmining_export.calibration import Calibration, calibrate
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.graph_builder import GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save, save_variant
from instructmining_export.parity import ParityError, check
from instructmining_export.plans import Build, GraphPlan
from instructmining_export.role_texts import RoleText

_FIRST_KEPT = 1 / 16  # share of products kept in float32 after an int8 graph fails its gate; doubles at each failure

Report: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServedRole:
    """A role that a graph serves, with the reference values it must reproduce."""

    name: RoleName
    references: References
    source: dict[str, str]
    details: dict[str, object] = field(default_factory=dict)  # further entries for the manifest


@dataclass(frozen=True, slots=True)
class GraphWriter:
    """Writes a role's graph into a bundle, in one precision, and says each step."""

    bundle: BundleWriter
    precision: PrecisionName
    report: Report

    def add(self, checkpoint: Checkpoint, plan: GraphPlan, text: RoleText, roles: Sequence[ServedRole]) -> None:
        """Write the graph, pass the gate and add the roles to the bundle.

        Raises:
            ExportError: the graph cannot be made.
            ParityError: it is not equal to its checkpoint.
        """
        gc.collect()
        folder = text.tokenizer.parent
        if plan.via is not None:
            self.report(f"{roles[0].name}: exporting the graph with {plan.via}")
        with plan.graphs(folder) as build, checkpoint.weights() as weights:
            self._add(weights, build, text, roles, via=plan.via)

    def _add(
        self, weights: Weights, build: Build, text: RoleText, roles: Sequence[ServedRole], *, via: str | None
    ) -> None:
        """Write the graph; an int8 graph that fails the gate is retried with its worst products in float32."""
        path = text.tokenizer.with_name("model.onnx")
        name, precision = roles[0].name, Precision(self.precision)
        calibration = Calibration()
        if self.precision == "int8":
            self.report(f"{name}: measuring the inputs of its products")
            calibration = calibrate(build(weights, Precision()), text.tokens)
            precision = replace(precision, smoothing=calibration.smoothing, inputs=calibration.inputs)
        while True:
            graph = build(weights, precision)
            candidates = [*graph.tables, *calibration.worst_first]
            kept_note = f", {len(precision.kept)} of {len(candidates)} weights in fp32" if precision.kept else ""
            self.report(f"{name}: writing the graph in {self.precision}{kept_note}")
            save(graph.model(), path)
            self.report(f"{name}: running the gate on {len(text.tokens)} texts, in batches and each alone")
            try:
                found = check({role.name: role.references for role in roles}, path, precision=self.precision)
                break
            except ParityError as error:
                if self.precision != "int8" or len(precision.kept) == len(candidates):
                    raise
                self.report(f"{error}; retrying with the most affected weights in fp32")
                # Tables come first: keeping them costs bytes but no time.
                tables, first = len(graph.tables), math.ceil(_FIRST_KEPT * len(calibration.worst_first))
                count = max(tables + first, 2 * len(precision.kept)) if precision.kept else tables
                precision = replace(precision, kept=frozenset(candidates[:count]))
        cuda = None
        if via is None:  # another exporter's graph is the same for each device
            cuda = self._add_cuda_graph(graph, path, roles, lambda: build(weights, precision, "cuda"))
        facts = _graph_facts(path, precision.kept) | ({"via": via} if via is not None else {})
        for role in roles:
            entry = self._add_role(text, role, found[role.name], graph, facts)
            entry.cuda_graph = self.bundle.name_of(cuda) if cuda is not None else None

    def _add_cuda_graph(
        self, graph: GraphBuilder, path: Path, roles: Sequence[ServedRole], build: Callable[[], GraphBuilder]
    ) -> Path | None:
        """Write the graph for CUDA, on the same weights; None where one graph is fast on both.

        Its numbers pass the same gate, on the CPU, which has all of its operators.
        """
        if self.precision == "int8":  # runs on the CPU only
            return None
        variant = build()
        if variant.operators == graph.operators:
            return None
        self.report(f"{roles[0].name}: writing the graph for CUDA and running the gate on it")
        file = path.with_name("model.cuda.onnx")
        save_variant(variant.model(), file, first=path)
        check({role.name: role.references for role in roles}, file, precision=self.precision)
        return file

    def _add_role(
        self,
        text: RoleText,
        role: ServedRole,
        parity: Agreement,
        graph: GraphBuilder,
        facts: Mapping[str, object],
    ) -> RoleEntry:
        """Save the reference values and describe the role in the manifest."""
        references = self.bundle.file_of(role.name, "references.json")
        role.references.save(references)
        entry = self.bundle.roles[role.name] = RoleEntry(
            graph=self.bundle.name_of(text.tokenizer.with_name("model.onnx")),
            tokenizer=self.bundle.name_of(text.tokenizer),
            template=text.template,
            max_length=text.max_length,
            bos=text.bos,
            source=role.source,
            parity=parity.as_json(),
            references=self.bundle.name_of(references),
            precision=graph.precision.name,
            multiply_adds=graph.multiply_adds,
            details={**role.details, **facts},
        )
        return entry


def _graph_facts(path: Path, kept: frozenset[str]) -> dict[str, object]:
    facts: dict[str, object] = {"graph_bytes": sum(file.stat().st_size for file in path.parent.glob("model*.onnx*"))}
    return facts | ({"kept_fp32": sorted(kept)} if kept else {})
