"""Sets of models by name; imports nothing heavy, as the command line reads it first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instructmining.bundle import RoleName


@dataclass(frozen=True, slots=True)
class Preset:
    """The models that a rule of the paper was fitted with, as far as they are known."""

    rule: str
    models: Mapping[RoleName, str]  # role → id on the hub


PRESETS: Mapping[str, Preset] = {
    "paper-v1": Preset(
        "paper-v1",
        {
            "reward": "OpenAssistant/reward-model-deberta-v3-large-v2",
            "embedding": "sentence-transformers/all-MiniLM-L6-v2",
        },
    ),
    "paper-v3": Preset(
        "paper-v3",
        {"reward": "OpenAssistant/oasst-rm-2.1-pythia-1.4b-epoch-2.5", "unieval": "MingZhong/unieval-dialog"},
    ),
}
