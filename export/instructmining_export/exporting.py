"""Models by id or folder to a bundle: the one entry for Python and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from instructmining.bundle import ROLES, RoleName
from instructmining.errors import ExportError
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import resolve
from instructmining_export.roles import Settings, add_embedding, add_perplexity, add_reward, add_unieval

_ADD: Mapping[RoleName, Callable[[BundleWriter, Checkpoint, Settings], None]] = {
    "reward": add_reward,
    "perplexity": add_perplexity,
    "embedding": add_embedding,
    "unieval": add_unieval,
}


@dataclass(frozen=True, slots=True)
class Preset:
    """The models that a rule of the paper was fitted with, as far as that is known."""

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


def export_bundle(
    path: str | Path,
    models: Mapping[RoleName, str | Path],
    *,
    settings: Settings | None = None,
    revision: str = "main",
    overwrite: bool = False,
    default_rule: str | None = None,
) -> None:
    """Export models to roles of a bundle; roles that the bundle has already, and that are not named, stay.

    Args:
        path: the bundle's folder.
        models: by role, an id on the Hugging Face hub or a local folder in its layout.
        settings: precision, limits, and who is told of each step.
        revision: branch, tag or commit of models on the hub; the commit is recorded.
        overwrite: replace roles that the bundle has.
        default_rule: what ``score`` applies when it is given neither rule nor indicators.

    Raises:
        ExportError: a model cannot be found, is of no supported family, or its graph is not equal to it; then nothing
            is written, and a bundle that was there is as before.
    """
    if unknown := [role for role in models if role not in ROLES]:
        raise ExportError(f"unknown role {unknown[0]!r}; known: {', '.join(ROLES)}")
    if not models:
        raise ExportError(f"no model was named; give at least one of the roles {', '.join(ROLES)}")
    chosen = settings or Settings()
    with BundleWriter(Path(path), frozenset(models), overwrite) as bundle:
        checkpoints = {
            role: resolve(str(models[role]), revision=revision, report=chosen.report)
            for role in ROLES
            if role in models
        }
        for role, checkpoint in checkpoints.items():
            _ADD[role](bundle, checkpoint, chosen)
        bundle.finish(default_rule=default_rule)
