"""Where the files of a run go: next to each other on this machine, or, finished here first, to a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from instructmining.errors import OutputError, ResumeError
from instructmining.stores.addresses import Address, is_address, name_of, plain
from instructmining.stores.files import read_file, size_of, stored
from instructmining.stores.transfers import put, upload_in_order
from instructmining.writing.atomic import check_apart
from instructmining.writing.cache import cache_folder

_RUN = ".run.json"


@dataclass(frozen=True, slots=True)
class Destination:
    """The place of a run's OUT.

    Attributes:
        out: OUT as given: a path, an address, or "-".
        here: the path where it is written; for a store in the cache of this machine, where an interrupted run can be
            resumed.
        resumes: whether the command can resume a run.
    """

    out: str
    here: str
    resumes: bool = True

    @classmethod
    def of(cls, out: str, *, resumes: bool = True) -> Self:
        """Return the place of OUT.

        Args:
            out: as given.
            resumes: whether the command can resume a run, and bring what was finished before.

        Raises:
            StoreError: the address is wrong.
        """
        out = plain(out)
        if not is_address(out):
            return cls(out, out, resumes)
        folder = hashlib.sha256(str(Address.parse(out)).encode()).hexdigest()[:16]
        return cls(out, str(cache_folder() / "outputs" / folder / name_of(out)), resumes)

    @property
    def is_stored(self) -> bool:
        """Whether OUT goes to a store."""
        return self.out != self.here

    @contextmanager
    def begun(self, *, overwrite: bool, resume: bool, reads: Iterable[str | Path | None]) -> Iterator[None]:
        """Check that OUT may be written; inside the block, the run writes it.

        Raises:
            OutputError: OUT exists, the command reads it, or the store refuses.
        """
        if not self.is_stored:
            yield
            return
        self._begin(overwrite=overwrite, resume=resume, reads=reads)
        try:
            yield
        finally:
            with suppress(OSError):  # there is none, or something is kept
                Path(self.here).parent.rmdir()

    def _begin(self, *, overwrite: bool, resume: bool, reads: Iterable[str | Path | None]) -> None:
        """Check that OUT may be written, and that the store takes files: an empty run file says that a run has begun.

        Raises:
            OutputError: OUT exists, the command reads it, or the store refuses.
        """
        if not (overwrite or resume) and self.resumes and Path(self.here).exists():
            raise OutputError(f"{self.out}: {self.waiting}, --overwrite starts over")
        run = f"{self.out}{_RUN}"
        check_apart([self.out, run], reads)
        try:
            kept = stored(run)
            has_begun = kept is not None and not kept.size  # and not finished, even where OUT is there
            if not (overwrite or resume or has_begun) and (kept is not None or stored(self.out) is not None):
                again = ", or --resume to finish it" if self.resumes else ""
                raise OutputError(f"{self.out}: exists; give --overwrite to replace it{again}")
            if kept is None:
                put(b"", run)
        except OSError as error:
            raise OutputError(f"{self.out}: {error.strerror}") from error

    def finished(self) -> Mapping[str, Any] | None:
        """Return the content of the run file in the store, where all files that it names are there; else None.

        Raises:
            OutputError: the store does not answer.
        """
        if not self.is_stored:
            return None
        try:
            run: Mapping[str, Any] = orjson.loads(read_file(f"{self.out}{_RUN}"))
            is_whole = all(size_of(f"{self.out}{end}") == size for end, size, _ in run["files"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.out}: {error.strerror}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None
        return run if is_whole else None

    @property
    def waiting(self) -> str | None:
        """A line about finished files that wait to be brought to the store; None where there are none."""
        if not self.is_stored or not Path(self.here).exists():
            return None
        again = "; --resume brings them there" if self.resumes else ""
        return f"finished files wait in {Path(self.here).parent}{again}"

    def deliver(self) -> None:
        """Bring the files of a finished run to the store, the run file last, and remove them here; if they are here.

        Raises:
            OutputError: the store refuses one; all are kept here.
        """
        if not self.is_stored:
            return
        run = Path(f"{self.here}{_RUN}")
        if run.exists():
            self._bring(run)

    def _bring(self, run: Path) -> None:
        try:
            ends = [end for end, _, _ in orjson.loads(run.read_bytes())["files"]]
        except (OSError, orjson.JSONDecodeError, KeyError) as error:
            raise ResumeError(f"{run}: is damaged; give --overwrite to start over") from error
        files = [(Path(f"{self.here}{end}"), f"{self.out}{end}") for end in ends]
        try:
            upload_in_order([*files, (run, f"{self.out}{_RUN}")])
        except OSError as error:
            raise OutputError(f"{self.out}: {error.strerror}; {self.waiting}") from error
        for local, _ in [*files, (run, "")]:
            local.unlink(missing_ok=True)
