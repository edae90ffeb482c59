"""One shard of a run: which part of the input it reads, and the plan that it shares with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from instructmining.errors import InputError
from instructmining.errors.names import few
from instructmining.inference.batching import Batching
from instructmining.reading.blocks import Cut
from instructmining.reading.compression import file_size
from instructmining.reading.digests import InputPart
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import utf8
from instructmining.scorer.scorer import Scorer
from instructmining.stores.addresses import joined
from instructmining_scale.cuts import even_cuts
from instructmining_scale.plan import Plan, PlanError
from instructmining_scale.runs.resuming import difference

_OWN = ("inputs", "knn_against")  # of the identity of a run, what each shard has of its own
_ELSEWHERE = "name another folder, or empty this one"


class Sharding:
    """A shard of the run that a folder holds the parts of."""

    def __init__(
        self, folder: str, shard: tuple[int, int], suffix: str, inputs: Sequence[str], options: ReadOptions
    ) -> None:
        """Follow the plan in the folder, or make one.

        Args:
            folder: that the parts are written to.
            shard: its number, from 1, and how many there are.
            suffix: of the parts' files.
            inputs: the files of the whole input.
            options: of reading them.

        Raises:
            PlanError: the folder's plan is of another input, or of another number of shards.
            InputError: an input cannot be read, or is a pipe.
        """
        self.number, shards = shard
        self._folder = folder
        self._inputs = inputs
        plan = Plan.load(folder)
        self._is_planned = plan is not None
        files = [(utf8(path), file_size(path)) for path in inputs]
        self._own = Plan(shards, suffix, files, [], {})
        self.plan = plan or replace(self._own, cuts=even_cuts(inputs, shards, options))
        self._check()

    def spools(self, scorer: Scorer) -> bool:
        """Return whether rows wait for those of the other shards, since columns need the neighbours among all."""
        return scorer.knn is not None and scorer.knn.against is None

    def out(self, scorer: Scorer) -> str:
        """Return the file of this shard's rows, or of the windows that wait for the other shards."""
        return joined(self._folder, self.plan.part(self.number, spooled=self.spools(scorer)))

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """Identity of the run without its input; None where this shard makes the plan."""
        return self.plan.identity if self._is_planned else None

    def restrict(self, reader: ExampleReader) -> None:
        """Let a reader of the whole input read this shard's part."""
        reader.restrict(*self.plan.bounds(self.number))

    def parts(self) -> list[InputPart]:
        """Return the files of which this shard reads something, with what it reads."""
        begin, end = self.plan.bounds(self.number)
        begin, end = begin or Cut(0, 0), end or Cut(len(self._inputs), 0)
        return [
            InputPart.of(path, begin.at if file == begin.file else 0, end.at if file == end.file and end.at else None)
            for file, path in enumerate(self._inputs)
            if begin.file <= file < end.file + (end.at > 0)
        ]

    def settled(self, scorer: Scorer, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Write the plan, or follow it; return the identity of this shard's run.

        Args:
            scorer: gets the batch sizes of the plan, where another shard was first to write it.
            identity: of the shard's run, by its own settings.

        Raises:
            PlanError: the settings are not those of the plan.
            OutputError: the folder cannot be written.
        """
        common = {name: value for name, value in identity.items() if name not in _OWN}
        if not self._is_planned:
            rule = None if scorer.rule is None else asdict(scorer.rule)
            cuts = list(self.plan.cuts)
            self.plan = replace(self.plan, identity=common, rule=rule).kept_in(self._folder)
            self._check()  # another process may have been first
            if list(self.plan.cuts) != cuts:
                raise PlanError(f"{self._folder}: its plan cuts the input at other places; {_ELSEWHERE}")
            scorer.batching = Batching(**self.plan.identity["batching"])
            common["batching"] = asdict(scorer.batching)
        if found := difference(self.plan.identity, common):
            raise PlanError(f"{self._folder}: its plan is of another run: {found}; {_ELSEWHERE}")
        return {**identity, **common, "shard": self.number, "plan": self.plan.digest}

    def _check(self) -> None:
        plan, own = self.plan, self._own
        if plan.shards != own.shards:
            raise PlanError(f"{self._folder}: its plan has {plan.shards} shards, not {own.shards}; {_ELSEWHERE}")
        if plan.suffix != own.suffix:
            raise PlanError(
                f"{self._folder}: the parts of its plan are {plan.suffix} files; give --part-format {plan.suffix}"
            )
        there, now = dict(plan.files), dict(own.files)
        if unknown := [name for name in now if name not in there]:
            raise InputError(
                f"{unknown[0]}: is not in the plan of {self._folder}, which has {few(list(there))}; name the input as "
                f"the first shard did, or {_ELSEWHERE}"
            )
        if gone := [name for name in there if name not in now]:
            raise InputError(f"{gone[0]}: is in the plan of {self._folder}, not in the input; {_ELSEWHERE}")
        if changed := [name for name in there if there[name] != now[name]]:
            name = changed[0]
            raise InputError(
                f"{name}: {now[name]:,} bytes now, {there[name]:,} bytes in the plan of {self._folder}; {_ELSEWHERE}"
            )
        if list(plan.files) != list(own.files):
            raise InputError(f"{self._folder}: its plan has the files of the input in another order; {_ELSEWHERE}")


def is_damaged(out: str) -> bool:
    """Return whether a finished part has files of other sizes than its run file says."""
    path = Path(f"{out}.run.json")
    if not Path(out).exists() or not path.exists():
        return False
    try:
        files = orjson.loads(path.read_bytes())["files"]
        return any(not (at := Path(f"{out}{end}")).exists() or at.stat().st_size != size for end, size, _ in files)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return True
