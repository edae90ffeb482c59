"""Records a run's progress in a folder next to OUT, so that an interrupted run resumes where it stopped.

The folder holds the state of the last commit (``state.json``, replaced atomically) and the outputs of the batches since
then (``batches.N``, appended as records with checksums; a torn last one is ignored). A commit makes the batches before
it obsolete and starts the next file.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import OutputError, ResumeError
from instructmining.writing.atomic import write_whole
from instructmining.writing.statistics import Work

STATE = "state.json"
OTHERS = "others"  # the mark of embeddings of another file that serve as neighbours
SPOOLED = "spooled"  # the mark of what waits for the corpus pass
WRITTEN = "written"  # the mark of what is in OUT and in the rejects
_BATCHES = "batches"
_VERSION = 2
_FRAME = struct.Struct("<II")  # size and CRC-32 of a record
COMMIT_S = 5.0  # seconds between commits, which mostly wait for the disk
_SYNC_S = 5.0  # seconds between waits until the disk has the batches
Job = TypeVar("Job")


class Texts(Protocol):
    """The parts of a batch that are read here."""

    @property
    def members(self) -> NDArray[np.int64]:
        """Row number of each text, (rows,)."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """Token ids, (rows, width), 0 where padded."""

    @property
    def scored(self) -> NDArray[np.int64]:
        """Row and position of each token whose likelihood is computed, (n, 2)."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The stored outputs of a batch."""

    crc: int  # checksum of the batch's tokens
    texts: int  # texts of the batch
    seconds: float  # seconds that a device computed it
    arrays: Mapping[str, NDArray[np.float32]]

    def check(self, batch: Texts) -> None:
        """Check that the outputs belong to this batch.

        Raises:
            ResumeError: they belong to another.
        """
        if self.crc != _crc(batch):
            raise ResumeError(
                "the interrupted run holds results of other rows; the input or the settings changed: "
                "give --overwrite to start over"
            )


class BatchLog:
    """The outputs of batches since the last commit.

    Attributes:
        kept: batches, texts and seconds that an earlier run left; its rows, tokens and devices are not known.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the intact records, and append after them.

        Raises:
            OutputError: the file cannot be read or written.
        """
        self._path = path
        self._clock = clock
        self._known: deque[Outputs] = deque()
        self.kept = Work()
        try:
            self._file = path.open("a+b")
            self._file.seek(0)
            whole = 0
            for record in _records(self._file):
                self._known.append(outputs := _outputs(record))
                self.kept.batches += 1
                self.kept.texts += outputs.texts
                self.kept.busy[""] += outputs.seconds
                whole += _FRAME.size + len(record)
            self._file.truncate(whole)
            self._file.seek(whole)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        self._synced_at = clock()

    def __len__(self) -> int:
        """Batches from an earlier run that have not been matched yet."""
        return len(self._known)

    def matched(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outputs]]:
        """Yield the next jobs with their stored outputs, in order, as long as there are stored outputs."""
        while self._known and (job := next(jobs, None)) is not None:
            yield job, self._known.popleft()

    def add(self, batch: Texts, outputs: Mapping[str, NDArray[np.float32]], seconds: float = 0.0) -> None:
        """Store the outputs of a batch, and the seconds that a device computed it.

        Raises:
            OutputError: the disk refuses it.
        """
        arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in outputs.items()}
        shapes = {name: values.shape for name, values in arrays.items()}
        head = orjson.dumps([_crc(batch), len(batch.members), seconds, shapes])
        record = b"".join([struct.pack("<I", len(head)), head, *(values.tobytes() for values in arrays.values())])
        try:
            self._file.write(_FRAME.pack(len(record), zlib.crc32(record)) + record)
            self._file.flush()  # after this it survives the end of this process, after the next line a power cut
            if self._clock() - self._synced_at >= _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced_at = self._clock()
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        close_quietly(self._file)


class Journal:
    """The state of a run in its folder."""

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, object],
        marks: dict[str, dict[str, Any]],
        generation: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use :meth:`begin` or :meth:`resume`."""
        self.folder = folder
        self.identity = identity
        self.marks = marks  # marks of the last commits, by name
        self._generation = generation
        self._clock = clock
        self._committed_at = clock()
        self.batches = BatchLog(self._batches_path(), clock)

    @classmethod
    def begin(cls, folder: Path, identity: Mapping[str, object], clock: Callable[[], float] = time.monotonic) -> Self:
        """Start a new run.

        Args:
            folder: an existing folder.
            identity: everything that the results depend on, as JSON.
            clock: returns seconds.

        Raises:
            OutputError: the disk refuses it.
        """
        found = cls(folder, identity, {}, 0, clock)
        try:
            found._write()
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def resume(cls, folder: Path, clock: Callable[[], float] = time.monotonic) -> Self | None:
        """Resume the run in a folder; returns None where there is none.

        Raises:
            ResumeError: its state cannot be read.
            OutputError: the disk refuses further writes.
        """
        path = folder / STATE
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ResumeError(f"{path}: {error.strerror}") from error
        try:
            state = orjson.loads(content)
            if state["version"] != _VERSION:
                raise ResumeError(f"{path}: is of version {state['version']}; give --overwrite to start over")
            if "crc" in state and state.pop("crc") != _crc_of(state):  # the first states of this version have none
                raise ResumeError(f"{path}: is damaged; give --overwrite to start over")
            return cls(folder, state["identity"], state["marks"], state["generation"], clock)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"{path}: is damaged; give --overwrite to start over") from error

    def __enter__(self) -> Self:
        """Return the journal."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def due(self) -> bool:
        """Return whether enough time passed since the last commit for the next one to be worth its wait."""
        return self._clock() - self._committed_at >= COMMIT_S

    @property
    def empty(self) -> bool:
        """Whether nothing was done that a later run could resume."""
        return not self.marks and not self._batches_path().stat().st_size

    def commit(self, name: str, mark: dict[str, Any], files: Iterable[BinaryIO] = ()) -> None:
        """Record that everything so far is done, batches included; no later interruption loses it.

        Args:
            name: name of the mark.
            mark: JSON, returned in :attr:`marks` by :meth:`resume`.
            files: files that the mark describes; they are synced before it.

        Raises:
            OutputError: the disk refuses it.
        """
        try:
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"{self.folder}: {error.strerror}") from error
        self.marks[name] = mark
        done, log = self._batches_path(), self.batches
        self._generation += 1
        self._write()
        self.batches = BatchLog(self._batches_path(), self._clock)
        log.close()
        done.unlink(missing_ok=True)
        self._committed_at = self._clock()

    def close(self) -> None:
        """Close the files; keeps the folder."""
        self.batches.close()

    def _batches_path(self) -> Path:
        return self.folder / f"{_BATCHES}.{self._generation}"

    def _write(self) -> None:
        """Replace the state atomically."""
        state = {
            "version": _VERSION,
            "identity": dict(self.identity),
            "generation": self._generation,
            "marks": self.marks,
        }
        state["crc"] = _crc_of(state)
        write_whole(self.folder / STATE, orjson.dumps(state, option=orjson.OPT_INDENT_2))


def _crc_of(state: Mapping[str, object]) -> int:
    """Return a checksum that exposes an altered state, which could put unfinished files in place."""
    return zlib.crc32(orjson.dumps(state, option=orjson.OPT_SORT_KEYS))


def opened_at(path: Path, size: int) -> BinaryIO:
    """Open a file cut to a size, to append after it.

    Raises:
        ResumeError: it is shorter.
        OutputError: it cannot be opened.
    """
    file: BinaryIO | None = None
    try:
        file = path.open("a+b")
        if file.seek(0, os.SEEK_END) < size:
            raise ResumeError(f"{path}: is shorter than the run left it; give --overwrite to start over")
        file.truncate(size)
        file.seek(size)
    except BaseException as error:
        if file is not None:
            close_quietly(file)
        if isinstance(error, OSError):
            raise OutputError(f"{path}: {error.strerror}") from error
        raise
    return file


def close_quietly(file: BinaryIO) -> None:
    """Close a file whose last bytes the disk may refuse; the writer was told already."""
    try:
        file.close()
    except OSError:
        return


def _crc(batch: Texts) -> int:
    """Return a checksum of a batch's tokens and of which are scored."""
    return zlib.crc32(batch.scored.tobytes(), zlib.crc32(batch.ids.tobytes(), batch.ids.shape[1]))


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Yield the records from here on, up to the first that is not intact."""
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        size, checksum = _FRAME.unpack(head)
        record = file.read(size)
        if len(record) < size or zlib.crc32(record) != checksum:
            return
        yield record


def _outputs(record: bytes) -> Outputs:
    (size,) = struct.unpack_from("<I", record)
    crc, texts, seconds, shapes = orjson.loads(record[4 : 4 + size])
    arrays = {}
    offset = 4 + size
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(record, dtype=np.float32, count=count, offset=offset).reshape(shape)
        offset += 4 * count
    return Outputs(crc, texts, seconds, arrays)
