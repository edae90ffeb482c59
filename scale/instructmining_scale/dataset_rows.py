"""Writes the rows of a Ray Dataset as files, in the dataset's order and once; from then on the files are the input."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from instructmining.errors import InstructMiningError, OutputError
from instructmining.errors.names import few
from instructmining.writing.atomic import beside, claimed, put_folder, write_whole

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

FOLDER, MARK = "rows", "rows.json"
_FORMAT = 1
_NAME = re.compile(r"rows-\d{6,}\.parquet")
_GROUP_ROWS = 8192  # of a row group: where shards may begin
_FEWEST_AT_ONCE = 2  # blocks that are written at once; on more nodes one each
_MOST_TRIES = 4  # of a block whose task was lost
_ANOTHER = "name another folder, or empty this one"


class DatasetError(InstructMiningError):
    """A Ray Dataset cannot be read, has no rows, or has values that rows of JSON cannot hold."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One block of the dataset, as a file."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """All rows of a dataset, as files."""

    folder: Path
    columns: Sequence[str]
    files: Sequence[WrittenFile]

    @classmethod
    def load(cls, out: Path) -> Self | None:
        """Return the rows that an earlier call wrote whole; None where none did, or files were cut short or lost.

        Raises:
            OutputError: the mark cannot be read.
        """
        folder = out / FOLDER
        try:
            said = orjson.loads((out / MARK).read_bytes())
            if said["format"] != _FORMAT:
                return None
            found = cls(folder, said["columns"], [WrittenFile(**file) for file in said["files"]])
            whole = all((folder / file.name).stat().st_size == file.bytes for file in found.files)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{out / MARK}: {error.strerror}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return found if whole else None

    @property
    def paths(self) -> list[str]:
        """The files, in the order of the rows."""
        return [str(self.folder / file.name) for file in self.files]

    @property
    def rows(self) -> int:
        """How many rows."""
        return sum(file.rows for file in self.files)

    def mark(self) -> bytes:
        """Return the content of the done-mark."""
        content: Mapping[str, object] = {
            "format": _FORMAT,
            "rows": self.rows,
            "columns": list(self.columns),
            "files": [asdict(file) for file in self.files],
        }
        return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def write_rows(dataset: Dataset, out: Path) -> WrittenRows:
    """Write the rows of a dataset to Parquet files in OUT/rows, unless an earlier call did.

    Blocks are written by tasks, while the dataset is read: a few at once, and the reading waits for them. The folder
    appears with all files, and then the mark that says so: what a lost driver leaves is written anew.

    Args:
        dataset: of any source, on the cluster that this process is connected to.
        out: a folder that all nodes see.

    Raises:
        DatasetError: the dataset cannot be read, has no rows or types that are no JSON, or is another than that of
            the folder.
        OutputError: the folder cannot be written, or another process writes there.
    """
    folder = out / FOLDER
    with claimed(folder):
        kept = WrittenRows.load(out)
        if kept is not None:
            _check_same(dataset, kept, out)
            return kept
        _check_ours(folder)
        partial = beside(folder)
        try:
            partial.mkdir()
            files, columns = _written(dataset, partial)
            if not files:
                raise DatasetError("the dataset has no rows")
            put_folder(partial, folder)
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror}") from error
        found = WrittenRows(folder, columns, files)
        write_whole(out / MARK, found.mark())
        return found


def _check_same(dataset: Dataset, kept: WrittenRows, out: Path) -> None:
    schema = dataset.schema(fetch_if_missing=False)  # reads nothing
    if schema is not None and list(schema.names) != list(kept.columns):
        raise DatasetError(
            f"{out}: has the rows of a dataset with the columns {few(list(kept.columns))}; this one has "
            f"{few(list(schema.names))}; {_ANOTHER}"
        )


def _check_ours(folder: Path) -> None:
    """Check that a folder without a mark holds only what an interrupted call wrote.

    Raises:
        OutputError: it has other files.
    """
    if not folder.exists():
        return
    if other := [path.name for path in folder.iterdir() if not _NAME.fullmatch(path.name)]:
        raise OutputError(f"{folder}: holds {few(sorted(other))}, which is no file of a dataset's rows; {_ANOTHER}")


def _written(dataset: Dataset, folder: Path) -> tuple[list[WrittenFile], list[str]]:
    """Write all blocks; returns the files that have rows, in order, and the names of all columns."""
    import ray  # noqa: PLC0415 - an extra
    from ray.data.exceptions import SystemException  # noqa: PLC0415

    # Without a CPU of their own: workers of the dataset may hold all that there are.
    task = ray.remote(_write_block).options(num_cpus=0, max_retries=_MOST_TRIES - 1)
    most = max(_FEWEST_AT_ONCE, sum(node["Alive"] for node in ray.nodes()))
    done: dict[int, tuple[WrittenFile | None, list[str]]] = {}
    at_work: dict[Any, int] = {}
    number = 0
    try:
        with _in_order(dataset):
            for bundle in dataset.iter_internal_ref_bundles():
                for entry, part in zip(bundle.blocks, bundle.slices, strict=True):
                    cut = None if part is None else (part.start_offset, part.end_offset)
                    at_work[task.remote(entry.ref, cut, str(folder), number)] = number
                    number += 1
                    if len(at_work) >= most:
                        _take(at_work, done, wanted=1)
            _take(at_work, done, wanted=len(at_work))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InstructMiningError):
            raise cause from None
        # Of what the dataset's own functions raise, only the text of the traceback is left.
        first, chained, _ = str(error).partition("\n\nThe above exception was the direct cause")
        raise DatasetError(f"the dataset cannot be read: {_last_line(first if chained else str(cause))}") from None
    except (ray.exceptions.RayError, SystemException) as error:
        raise DatasetError(f"the dataset cannot be read: {_last_line(str(error))}") from None
    results = [done[at] for at in range(number)]
    columns = dict.fromkeys(name for _, names in results for name in names)
    return [file for file, _ in results if file is not None], list(columns)


def _take(at_work: dict[Any, int], done: dict[int, Any], *, wanted: int) -> None:
    """Wait for some of the tasks."""
    import ray  # noqa: PLC0415 - an extra

    if wanted:
        ready, _ = ray.wait(list(at_work), num_returns=wanted)
        for reference in ready:
            done[at_work.pop(reference)] = ray.get(reference)


@contextmanager
def _in_order(dataset: Dataset) -> Iterator[None]:
    """Have a dataset give its blocks in order; it copied its options when it was made, so they are set on itself."""
    options = dataset.context.execution_options
    before = options.preserve_order
    options.preserve_order = True
    try:
        yield
    finally:
        options.preserve_order = before


def _write_block(
    block: object, cut: tuple[int, int] | None, folder: str, number: int
) -> tuple[WrittenFile | None, list[str]]:
    """Write a block, in a task; returns the file, None where the block has no rows, and the names of its columns."""
    import pyarrow as pa  # noqa: PLC0415 - in the task
    from pyarrow import parquet  # noqa: PLC0415
    from ray.data.block import BlockAccessor  # noqa: PLC0415

    table = BlockAccessor.for_block(block).to_arrow()
    if cut is not None:
        table = table.slice(cut[0], cut[1] - cut[0])
    if not table.num_rows:
        return None, []
    for field in table.schema:
        _check_type(field.name, field.type)
    sink = pa.BufferOutputStream()
    try:
        parquet.write_table(table, sink, row_group_size=_GROUP_ROWS, compression="zstd")
    except (pa.ArrowException, ValueError) as error:
        raise DatasetError(f"the dataset has rows that Parquet cannot hold: {_last_line(str(error))}") from error
    content = memoryview(sink.getvalue())
    name = f"rows-{number:06}.parquet"
    write_whole(Path(folder) / name, content)
    file = WrittenFile(name, table.num_rows, content.nbytes, hashlib.sha256(content).hexdigest())
    return file, table.schema.names


def _check_type(column: str, kind: pa.DataType) -> None:
    """Check that rows of JSON can hold a type.

    Raises:
        DatasetError: they cannot: it is that of a tensor, an image or a Python object.
    """
    import pyarrow as pa  # noqa: PLC0415 - in the task

    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name != "arrow.json":
        raise DatasetError(
            f"column {column!r} of the dataset is {kind}, which rows of JSON cannot hold; leave it out: "
            f"dataset.drop_columns([{column!r}])"
        )
    for number in range(kind.num_fields):
        _check_type(column, kind.field(number).type)


def _last_line(text: str) -> str:
    """Return the last line of a message, where Ray's have what was raised."""
    return text.strip().rpartition("\n")[2].strip()
