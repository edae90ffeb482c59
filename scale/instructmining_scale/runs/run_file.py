"""The run file: the record of one scoring run."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version

from instructmining import __version__
from instructmining.reading.values import all_utf8
from instructmining_scale.runs.scoring_run import Run

_TEXTS = {
    "document": "turns joined by newlines",
    "prompt": "turns that are not the assistant's, joined by newlines",
    "response": "the assistant's turns, joined by newlines",
}


def run_file(run: Run) -> dict[str, object]:
    """Return the content of OUT.run.json, without the identity of the run."""
    bundle, rule, statistics = run.scorer.bundle, run.scorer.rule, run.statistics
    elapsed = run.elapsed_s
    packages = ("numpy", "orjson", "tokenizers")
    content = {
        "started_at": run.began_at.isoformat(timespec="seconds"),
        "versions": {
            "instructmining": __version__,
            "python": platform.python_version(),
            "onnxruntime": run.scorer.runtime_version,
            **{package: version(package) for package in packages},
        },
        "device": ", ".join(map(str, run.scorer.devices)),
        "nodes": {roles: placement.as_json() for roles, placement in run.scorer.placements.items()},
        "bundle": {
            "path": str(bundle.path),
            "name": bundle.name,
            "digest": bundle.digest,
            "note": bundle.note,
            "roles": {
                name: {"precision": role.precision, "max_length": role.max_length, **role.source}
                for name, role in bundle.roles.items()
            },
        },
        "rule": {"id": rule.id, "digest": rule.digest, "reward_model": rule.reward_model} if rule else None,
        "caution": run.scorer.caution,
        "settings": {
            "inputs": list(run.inputs),
            "formats": dict(run.reader.formats) if run.reader else {},
            "columns": list(run.scorer.columns),
            **asdict(run.scorer.batching),
            "knn": _neighbours(run),
            **run.settings,
        },
        "counts": {
            "rows_in": run.reader.rows if run.reader else 0,
            "rows_out": run.rows_written,
            "rows_rejected": run.rejected,
            "rows_from_before": run.from_before.rows,
            "blank_lines": run.reader.blank if run.reader else 0,
            "null": dict(run.nulls),
            "truncated": run.truncated,
            "not_read": run.unread,
        },
        "from_before": asdict(run.from_before),
        "tokens": dict(statistics.tokens),
        "padding_share": round(statistics.padding_share, 4),
        "batches": statistics.batches,
        "batches_split_for_memory": run.scorer.memory_splits,
        "texts_retried": run.scorer.texts_retried,
        "device_busy_share": {device: round(share, 4) for device, share in run.busy_shares.items()},
        "seconds": {
            "total": round(elapsed, 3),
            **{stage: round(seconds, 3) for stage, seconds in statistics.seconds.items()},
        },
    }
    if run.reader is not None and run.reader.lines is not None:
        content["lines"] = run.reader.lines
    valid: dict[str, object] = all_utf8(content)
    return valid


def _neighbours(run: Run) -> dict[str, object] | None:
    if not run.scorer.searches_neighbours:
        return None
    approximation = run.statistics.approximation
    pool = "all rows of the run" if run.knn.pool is None else f"rows that are equal in {run.knn.pool!r}"
    return {
        "metric": run.knn.metric,
        "pool": pool if run.knn.against is None else f"the {run.statistics.others} rows of another file",
        "against": run.knn.against,
        "text": _TEXTS[run.knn.text],
        "search": run.knn.search,
        "approximation": asdict(approximation) if approximation else None,
    }
