"""What a run has done so far, kept in a folder beside OUT so that an interrupted run goes on where it stopped.

The folder holds the state of the last commit (``state.json``, replaced as a whole) and the outputs of the batches since
then (``batches.N``, appended record by record, each with its checksum: a torn last one is left out). A commit makes the
batches before it superfluous and begins the next file.
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
OTHERS = "others"  # the mark of the embeddings of another file that are the neighbours
SPOOLED = "spooled"  # the mark of what waits for the corpus pass
WRITTEN = "written"  # the mark of what is in OUT and in the rejects
_BATCHES = "batches"
_VERSION = 2
_FRAME = struct.Struct("<II")  # size and CRC-32 of a record
COMMIT_S = 5.0  # between commits: most of it is waiting for the disk
_SYNC_S = 5.0  # between two waits for the disk to have the batches
Job = TypeVar("Job")


class Texts(Protocol):
    """What is read of a batch."""

    @property
    def members(self) -> NDArray[np.int64]:
        """(rows,) one number for each text."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """(rows, width) token ids, 0 where padded."""

    @property
    def scored(self) -> NDArray[np.int64]:
        """(n, 2) row and position of each token whose likelihood is computed."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a batch gave, as it was kept."""

    crc: int  # of the batch's tokens
    texts: int  # of the batch
    seconds: float  # that a device was busy with it
    arrays: Mapping[str, NDArray[np.float32]]

    def check(self, batch: Texts) -> None:
        """Prove that they are of this batch.

        Raises:
            ResumeError: they are of another.
        """
        if self.crc != _crc(batch):
            raise ResumeError(
                "the interrupted run has results of other rows than come now; the input or the settings changed: "
                "give --overwrite to begin anew"
            )


class BatchLog:
    """The outputs of batches that no commit holds yet.

    Attributes:
        kept: batches, texts and seconds of what an earlier run left; of rows, tokens and devices it says nothing.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Read what is whole, and go on behind it.

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
        """Batches from an earlier run that were not asked for yet."""
        return len(self._known)

    def matched(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, Outputs]]:
        """The next jobs with what an earlier run has of them, in their order, while there is something of it."""
        while self._known and (job := next(jobs, None)) is not None:
            yield job, self._known.popleft()

    def add(self, batch: Texts, outputs: Mapping[str, NDArray[np.float32]], seconds: float = 0.0) -> None:
        """Keep what a batch gave, and the seconds that a device was busy with it.

        Raises:
            OutputError: the disk does not take it.
        """
        arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in outputs.items()}
        shapes = {name: values.shape for name, values in arrays.items()}
        head = orjson.dumps([_crc(batch), len(batch.members), seconds, shapes])
        record = b"".join([struct.pack("<I", len(head)), head, *(values.tobytes() for values in arrays.values())])
        try:
            self._file.write(_FRAME.pack(len(record), zlib.crc32(record)) + record)
            self._file.flush()  # from here on it outlives this process, from the next line on a power cut
            if self._clock() - self._synced_at >= _SYNC_S:
                os.fsync(self._file.fileno())
                self._synced_at = self._clock()
        except OSError as error:
            raise OutputError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Let the file go."""
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
        self.marks = marks  # what the last commits said, by their names
        self._generation = generation
        self._clock = clock
        self._committed_at = clock()
        self.batches = BatchLog(self._batches_path(), clock)

    @classmethod
    def begin(cls, folder: Path, identity: Mapping[str, object], clock: Callable[[], float] = time.monotonic) -> Self:
        """A new run.

        Args:
            folder: is there.
            identity: all that the results depend on; JSON.
            clock: seconds.

        Raises:
            OutputError: the disk does not take it.
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
        """The run that was begun in a folder; None where none was.

        Raises:
            ResumeError: its state cannot be read.
            OutputError: the disk does not take more.
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
                raise ResumeError(f"{path}: is of version {state['version']}; give --overwrite to begin anew")
            if "crc" in state and state.pop("crc") != _crc_of(state):  # it is not in the oldest of this version
                raise ResumeError(f"{path}: is damaged; give --overwrite to begin anew")
            return cls(folder, state["identity"], state["marks"], state["generation"], clock)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ResumeError(f"{path}: is damaged; give --overwrite to begin anew") from error

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    @property
    def due(self) -> bool:
        """Whether so much time passed since the last commit that the next one is worth its wait."""
        return self._clock() - self._committed_at >= COMMIT_S

    @property
    def empty(self) -> bool:
        """Whether nothing was done that a later run could take over."""
        return not self.marks and not self._batches_path().stat().st_size

    def commit(self, name: str, mark: dict[str, Any], files: Iterable[BinaryIO] = ()) -> None:
        """State that all up to here is done, batches included; from here on no interruption takes it back.

        Args:
            name: of what is done.
            mark: JSON, given back in :attr:`marks` by :meth:`resume`.
            files: what the mark speaks of; they are on the disk before it.

        Raises:
            OutputError: the disk does not take it.
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
        """Let the files go; the folder stays."""
        self.batches.close()

    def _batches_path(self) -> Path:
        return self.folder / f"{_BATCHES}.{self._generation}"

    def _write(self) -> None:
        """Replace the state as a whole."""
        state = {
            "version": _VERSION,
            "identity": dict(self.identity),
            "generation": self._generation,
            "marks": self.marks,
        }
        state["crc"] = _crc_of(state)
        write_whole(self.folder / STATE, orjson.dumps(state, option=orjson.OPT_INDENT_2))


def _crc_of(state: Mapping[str, object]) -> int:
    """Tells a state from one that was altered, which could put in place what is not finished."""
    return zlib.crc32(orjson.dumps(state, option=orjson.OPT_SORT_KEYS))


def opened_at(path: Path, size: int) -> BinaryIO:
    """A file cut to a size, to be written on from there.

    Raises:
        ResumeError: it is shorter.
        OutputError: it cannot be opened.
    """
    file: BinaryIO | None = None
    try:
        file = path.open("a+b")
        if file.seek(0, os.SEEK_END) < size:
            raise ResumeError(f"{path}: is shorter than the run left it; give --overwrite to begin anew")
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
    """Close a file whose last bytes the disk may refuse: who wrote them was told."""
    try:
        file.close()
    except OSError:
        return


def _crc(batch: Texts) -> int:
    """Tells a batch from others: its tokens, and which of them are scored."""
    return zlib.crc32(batch.scored.tobytes(), zlib.crc32(batch.ids.tobytes(), batch.ids.shape[1]))


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Whole records from here on, up to the first that is not."""
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
