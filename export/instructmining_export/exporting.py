"""Exports models, by id or folder, to a bundle; used from Python and by the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from instructmining.bundle import ROLES, RoleName
from instructmining.errors import ExportError
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import resolve
from instructmining_export.roles import Settings, add_embedding, add_perplexity, add_reward, add_unieval
from instructmining_export.via.exporters import find

_ADD: Mapping[RoleName, Callable[[BundleWriter, Checkpoint, Settings], None]] = {
    "reward": add_reward,
    "perplexity": add_perplexity,
    "embedding": add_embedding,
    "unieval": add_unieval,
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
    """Export models to roles of a bundle; other roles of an existing bundle stay.

    Args:
        path: the bundle's folder.
        models: by role, an id on the Hugging Face hub, a local folder in the hub's layout, or ``FOLDER=ID`` to state
            which model the folder holds.
        settings: precision, length limit, what makes the graphs, and progress messages.
        revision: branch, tag or commit of models on the hub; the manifest records the commit.
        overwrite: replace roles that the bundle already has.
        default_rule: rule that ``score`` applies when it is given neither rule nor indicators.

    Raises:
        ExportError: a model cannot be found, nothing that is installed makes a graph of its family, or its graph is not
            equal to it. Nothing is written then, and an existing bundle stays as it was.
    """
    if unknown := [role for role in models if role not in ROLES]:
        raise ExportError(f"unknown role {unknown[0]!r}; known: {', '.join(ROLES)}")
    if not models:
        raise ExportError(f"no model was named; give at least one of the roles {', '.join(ROLES)}")
    chosen = settings or Settings()
    if chosen.via in {"optimum", "transformers"}:
        find(chosen.via)  # before anything is downloaded
    with BundleWriter(Path(path), frozenset(models), overwrite) as bundle:
        checkpoints = {role: _find(str(models[role]), revision, chosen) for role in ROLES if role in models}
        for role, checkpoint in checkpoints.items():
            _ADD[role](bundle, checkpoint, chosen)
        bundle.finish(default_rule=default_rule)


def _find(model: str, revision: str, settings: Settings) -> Checkpoint:
    """Find the checkpoint; for ``FOLDER=ID`` the source says that the id was stated, not checked."""
    folder, _, stated = model.rpartition("=")
    if not folder or not Path(folder).is_dir():
        return resolve(model, revision=revision, report=settings.report)
    found = resolve(folder, revision=revision, report=settings.report)
    return replace(
        found, source=found.source | {"id": stated, "id_from": "stated at export, not compared with the hub"}
    )
