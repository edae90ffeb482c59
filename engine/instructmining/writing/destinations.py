"""Where the files of a run go: next to each other on this machine, or, finished here first, to a store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from instructmining.errors import OutputError, ResumeError
from instructmining.stores.addresses import Address, is_address, name_of, plain
from instructmining.stores.files import read_file, size_of, stored
from instructmining.stores.transfers import upload_in_order
from instructmining.writing.atomic import check_apart, claimed
from instructmining.writing.cache import cache_folder

_RUN = ".run.json"


@dataclass(frozen=True, slots=True)
class Destination:
    """The place of a run's OUT.

    Attributes:
        out: OUT as given: a path, an address, or "-".
        here: the path where it is written; for a store in the cache of this machine, where an interrupted run can be
            resumed.
    """

    out: str
    here: str

    @classmethod
    def of(cls, out: str) -> Self:
        """Return the place of OUT.

        Raises:
            StoreError: the address is wrong.
        """
        out = plain(out)
        if not is_address(out):
            return cls(out, out)
        folder = hashlib.sha256(str(Address.parse(out)).encode()).hexdigest()[:16]
        return cls(out, str(cache_folder() / "outputs" / folder / name_of(out)))

    @property
    def is_stored(self) -> bool:
        """Whether OUT goes to a store."""
        return self.out != self.here

    def check(self, *, overwrite: bool, resume: bool, reads: Iterable[str | Path | None]) -> None:
        """Check that OUT may be written.

        Raises:
            OutputError: it exists, the command reads it, or the store does not answer.
        """
        if not self.is_stored:
            return
        check_apart([self.out, f"{self.out}{_RUN}"], reads)
        if overwrite or resume:
            return
        try:
            there = stored(self.out) or stored(f"{self.out}{_RUN}")
        except OSError as error:
            raise OutputError(f"{self.out}: {error.strerror}") from error
        if there is not None:
            raise OutputError(f"{self.out}: exists; give --overwrite to replace it, or --resume to finish it")

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

    def deliver(self) -> None:
        """Bring the files of a finished run to the store, the run file last, and remove them here.

        Raises:
            OutputError: the store refuses one; all are kept here.
        """
        if not self.is_stored:
            return
        run = Path(f"{self.here}{_RUN}")
        with claimed(Path(self.here)):
            try:
                ends = [end for end, _, _ in orjson.loads(run.read_bytes())["files"]]
            except (OSError, orjson.JSONDecodeError, KeyError) as error:
                raise ResumeError(f"{run}: is damaged; give --overwrite to start over") from error
            files = [(Path(f"{self.here}{end}"), f"{self.out}{end}") for end in ends]
            try:
                upload_in_order([*files, (run, f"{self.out}{_RUN}")])
            except OSError as error:
                raise OutputError(
                    f"{self.out}: {error.strerror}; the finished files are kept in {run.parent}, and --resume brings "
                    "them there"
                ) from error
            for local, _ in [*files, (run, "")]:
                local.unlink(missing_ok=True)
        with suppress(OSError):  # another run writes there
            run.parent.rmdir()
