"""One shard of a run: which part of the input it reads, and the plan that it shares with the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from instructmining.errors import InputError
from instructmining.inference.batching import Batching
from instructmining.reading.blocks import Cut
from instructmining.reading.compression import file_size
from instructmining.reading.digests import InputPart
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import utf8
from instructmining.scorer.scorer import Scorer
from instructmining_cli.run.resuming import difference
from instructmining_scale.cuts import even_cuts
from instructmining_scale.plan import Plan, PlanError

_OWN = ("inputs", "knn_against")  # of the identity of a run, what each shard has of its own


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
        self.plan = plan or Plan(shards, suffix, files, even_cuts(inputs, shards, options), {})
        self._check(shards, suffix, files)

    def spools(self, scorer: Scorer) -> bool:
        """Return whether rows wait for those of the other shards, since columns need the neighbours among all."""
        return scorer.knn is not None and scorer.knn.against is None

    def out(self, scorer: Scorer) -> str:
        """Return the file of this shard's rows, or of the windows that wait for the other shards."""
        return str(Path(self._folder) / self.plan.part(self.number, spooled=self.spools(scorer)))

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
            self.plan = replace(self.plan, identity=common, rule=rule).kept_in(self._folder)
            self._check(self.plan.shards, self.plan.suffix, self.plan.files)
            scorer.batching = Batching(**self.plan.identity["batching"])
            common["batching"] = asdict(scorer.batching)
        if found := difference(self.plan.identity, common):
            raise PlanError(f"{self._folder}: its plan is of another run: {found}; name another folder")
        return {**identity, **common, "shard": self.number, "plan": self.plan.digest}

    def _check(self, shards: int, suffix: str, files: Sequence[tuple[str, int]]) -> None:
        plan = self.plan
        if plan.shards != shards:
            raise PlanError(f"{self._folder}: its plan has {plan.shards} shards, not {shards}; name another folder")
        if plan.suffix != suffix:
            raise PlanError(
                f"{self._folder}: the parts of its plan are {plan.suffix} files; give --part-format {plan.suffix}"
            )
        if (there := dict(plan.files)) != (now := dict(files)):
            changed = sorted(name for name in {*there, *now} if there.get(name) != now.get(name))
            raise InputError(
                f"{changed[0]}: {_of(now.get(changed[0]))} now, {_of(there.get(changed[0]))} in the plan of "
                f"{self._folder}; name another folder"
            )
        if list(plan.files) != list(files):
            raise InputError(f"{self._folder}: its plan has the files of the input in another order")


def _of(size: int | None) -> str:
    return "not in the input" if size is None else f"{size:,} bytes"
