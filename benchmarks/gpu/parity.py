"""Step ``parity``: our float16 graphs against transformers in float32. Step ``tf32``: what TF32 changes and saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.gpu import ways
from benchmarks.gpu.checkpoints import make
from benchmarks.gpu.parts import Measure, Part, Place
from benchmarks.gpu.rows import seeded_texts
from benchmarks.gpu.subjects import FAMILY_SUBJECTS, REWARD_V1, SUBJECTS, TINY, UNIEVAL, Subject, named
from instructmining.inference.executor import Executor
from instructmining.inference.references import BOUNDS, References, agreement
from instructmining.inference.sessions import Acceleration, GraphSession
from instructmining.tokenizing.truncation import Tokens

_CHECKED = 6 if TINY else 48  # rows
_TIMED = 24 if TINY else 1024
_BUDGET = 512 if TINY else 16384


def parity_parts() -> list[Part]:
    subjects = (*FAMILY_SUBJECTS, *SUBJECTS)
    return [Part("parity", subject.slug, _parity(subject), 90 if subject.gigabytes else 25) for subject in subjects]


def tf32_parts() -> list[Part]:
    """Of the graphs that keep some products in float32."""
    return [Part("tf32", subject.slug, _tf32(subject), 60) for subject in named(UNIEVAL, REWARD_V1)]


def checked_texts(subject: Subject) -> list[Tokens]:
    """A few rows, of all lengths."""
    return seeded_texts(_CHECKED, words=subject.words, max_length=subject.max_length)


def _parity(subject: Subject) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        made = make(subject, place.models, place.device, place.precision)
        wanted = ways.references(subject, made.folder, checked_texts(subject), place.device)
        session = GraphSession(made.graph, place.device)
        yield {"model": subject.name, **_figures(wanted, session, place)}

    return measure


def _figures(wanted: References, session: GraphSession, place: Place) -> dict[str, Any]:
    found = agreement(wanted, session)
    bounds = BOUNDS[place.precision]
    return {
        "precision": place.precision,
        "figures": found.as_json(),
        "beyond": found.beyond(bounds),
        "nodes": session.placement.as_json() if session.placement else None,
    }


def _tf32(subject: Subject) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        made = make(subject, place.models, place.device, place.precision)
        wanted = ways.references(subject, made.folder, checked_texts(subject), place.device)
        texts = seeded_texts(_TIMED, words=subject.words, max_length=subject.max_length)
        tokens = sum(len(text.ids) for text in texts)
        found: dict[str, Any] = {"model": subject.name, "precision": place.precision}
        values = {}
        for tf32 in (False, True):
            acceleration = Acceleration(tf32=tf32)
            figures = _figures(wanted, GraphSession(made.graph, place.device, acceleration), place)
            with Executor([made.graph], [place.device], acceleration) as executor:
                way = ways.executor_way("ours", subject, executor, made.graph, [])
                values[tf32] = ways.by_row(subject.output, way.run(texts, _BUDGET))  # warm: shapes are new
                seconds = min(way.seconds(texts, _BUDGET) for _ in range(3))
            found[f"tf32_{int(tf32)}"] = {**figures, "tokens_s": round(tokens / seconds, 1)}
            yield found
        found["difference"] = ways.difference(subject.output, values[True], values[False])
        yield found

    return measure
