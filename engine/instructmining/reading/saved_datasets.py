"""Reads what ``datasets.save_to_disk`` says of a folder: which files hold the rows, and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from instructmining.errors import InputError
from instructmining.reading.small_files import read_small
from instructmining.reading.values import utf8
from instructmining.stores.addresses import folder_of, is_address, joined, name_of
from instructmining.stores.files import exists

INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
SUFFIX = ".arrow"


@dataclass
class SavedDatasets:
    """The saved data sets among the folders that were met."""

    _names: dict[str, Sequence[str] | None] = field(default_factory=dict)  # of the files of each folder, in order
    _places: dict[str, str] = field(default_factory=dict)  # path → the name in whose place it comes

    def holds(self, path: str) -> bool:
        """Return whether a file may hold rows; not, if its folder is a saved data set that does not name it.

        Raises:
            InputError: what was saved of the folder is damaged.
        """
        if not path.endswith(SUFFIX):
            return True
        names = self.names_in(folder_of(path))
        return names is None or name_of(path) in names

    def names_in(self, folder: str) -> Sequence[str] | None:
        """Return the names of the files of a saved data set, in order; None where a folder is none.

        Raises:
            InputError: what was saved of the folder is damaged.
        """
        if folder not in self._names:
            self._names[folder] = names = _files_of(folder)
            if names is not None:
                self._keep_order(folder, names)
                self._keep_order(folder_of(folder), splits_in(folder_of(folder)))
        return self._names[folder]

    def missing(self, folder: str, files: Sequence[str], folders: Sequence[str]) -> str | None:
        """Return the name of a file or of a split that is saved in a folder, and is not there.

        Args:
            folder: that may be a saved data set, or one with splits.
            files: names in it.
            folders: the same.

        Raises:
            InputError: what was saved of the folder is damaged.
        """
        names = (self.names_in(folder) or ()) if STATE in files else ()
        splits = splits_in(folder) if SPLITS in files else ()
        return next((name for name in names if name not in files), None) or next(
            (name for name in splits if name not in folders), None
        )

    def place_of(self, path: str) -> str:
        """Return the path in whose place a file comes among files that are sorted by path."""
        if not self._places:
            return path
        above, mark, name = path.rpartition("/")
        return f"{self.place_of(above) if above else ''}{mark}{self._places.get(_as_joined(path), name)}"

    def _keep_order(self, folder: str, names: Sequence[str]) -> None:
        """Let names in a folder take each other's places."""
        for name, place in zip(names, sorted(names), strict=True):
            if name != place:
                self._places[joined(folder, name)] = place


def _as_joined(path: str) -> str:
    """Return a path in the form that :func:`joined` gives it."""
    return path if is_address(path) else str(Path(path))


def splits_in(folder: str) -> Sequence[str]:
    """Return the names of the splits that were saved in a folder, in order.

    Raises:
        InputError: what was saved is damaged.
    """
    path = joined(folder, SPLITS)
    said = _read(path)
    return () if said is None else _names(said.get("splits"), path)


def _files_of(folder: str) -> Sequence[str] | None:
    path = joined(folder, STATE)
    try:
        is_saved = exists(joined(folder, INFO))
    except OSError as error:
        raise InputError(f"{utf8(folder)}: {error.strerror}") from error
    if not is_saved or (said := _read(path)) is None:
        return None
    if said.get("_indices_data_files"):
        raise InputError(
            f"{utf8(path)}: an old version of datasets saved which rows count apart from the rows, which is not "
            "read; load the data set and save it again"
        )
    files = said.get("_data_files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise _damaged(path)
    return _names([file.get("filename") for file in files], path)


def _read(path: str) -> dict[str, object] | None:
    try:
        said = orjson.loads(read_small(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{utf8(path)}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise _damaged(path) from error
    if not isinstance(said, dict):
        raise _damaged(path)
    return said


def _names(value: object, path: str) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name and "/" not in name for name in value):
        raise _damaged(path)
    if len(set(value)) < len(value):
        raise _damaged(path)
    return value


def _damaged(path: str) -> InputError:
    return InputError(
        f"{utf8(path)}: is not what datasets' save_to_disk writes, or is damaged; save the data set again, or "
        "give its .arrow files"
    )
