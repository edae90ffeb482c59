"""What a Parquet file says about how its rows were made, in the metadata of its schema.

Nothing in it depends on the machine, the clock or the cuts of the input: the same rows are the same file, whether a run
was resumed, or done in shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructmining.reading.values import dumps

RUN = "instructmining.run"
SELECTION = "instructmining.selection"
_PACKAGES = ("instructmining", "onnxruntime")
# Of the identity of a run, what rows depend on and what names no file.
_SETTINGS = (
    "columns",
    "prefix",
    "format",
    "map",
    "ignore",
    "limit",
    "recompute",
    "max_length",
    "batching",
)


def of_run(run: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the metadata for the rows of a run.

    Args:
        run: the content of its run file; what is not in it is left out.
    """
    identity = _part(run, "identity")
    versions = _part(run, "versions")
    said = {
        "versions": {name: versions[name] for name in _PACKAGES if name in versions},
        "bundle": {name: value for name, value in _part(run, "bundle").items() if name != "path"} or None,
        "rule": run.get("rule"),
        "caution": run.get("caution"),
        "device": identity.get("device"),
        "settings": {name: identity[name] for name in _SETTINGS if name in identity},
    }
    return {RUN: dumps(said)}


def of_selection(selection: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the metadata for the rows of a selection.

    Args:
        selection: the content of the selection file; the names of files are left out.
    """
    said = dict(selection)
    for name, path in (("scored", "path"), ("random_baseline", "file")):
        if isinstance(said.get(name), Mapping):
            said[name] = {key: value for key, value in said[name].items() if key != path}
    return {SELECTION: dumps(said)}


def _part(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = run.get(name)
    return found if isinstance(found, Mapping) else {}
