"""Nodes of a graph as onnxruntime reports which provider runs them."""

from __future__ import annotations

from types import SimpleNamespace


def assigned(*nodes: tuple[str, str]) -> list[object]:
    """Return one subgraph for each provider and operator."""
    return [
        SimpleNamespace(ep_name=provider, get_nodes=lambda operator=operator: [SimpleNamespace(op_type=operator)])
        for provider, operator in nodes
    ]
