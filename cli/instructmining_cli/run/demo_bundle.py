"""Finds the demo bundle in the cache, or puts it together there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from instructmining.bundle import bundle_with, export_command
from instructmining.bundle.demo import cached_demo_bundle, demo_place, demo_places
from instructmining.errors import BundleError, MissingRoleError
from instructmining.writing.atomic import claimed


def demo_bundle(say: Callable[[str], None]) -> Path:
    """Return the cached demo bundle; fetch its weights and put it together first, once.

    Raises:
        ExportError: the weights cannot be fetched, or this machine computes other values than its maintainers'.
        OutputError: the cache cannot be written.
    """
    if (cached := cached_demo_bundle()) is not None:
        return cached
    from instructmining_export.demo.assemble import assemble_demo

    folder = demo_place()
    waiting = partial(say, "waiting for another run that writes the demo bundle")
    with claimed(folder.with_name(f"{folder.name}.build"), on_wait=waiting):
        if (cached := cached_demo_bundle()) is not None:  # another run wrote it in the meantime
            return cached
        say(f"writing the demo bundle, once: 630 MB in {folder.parent}, half a minute after its weights are fetched")
        assemble_demo(folder, overwrite=True, say=say)
    for other in set(demo_places()) - {folder}:  # of an older version, or left by an interrupted run
        shutil.rmtree(other, ignore_errors=True)
    return folder


@contextmanager
def naming_another() -> Iterator[None]:
    """Extend the error for a missing role: say whether the demo bundle, if built, has that role.

    Raises:
        BundleError: the bundle lacks a role.
    """
    try:
        yield
    except MissingRoleError as error:
        found = bundle_with([error.role], _built())
        if found is None:
            is_demo = any(error.lacks.startswith(f"{folder}:") for folder in _built())
            how = f"write one: {export_command([error.role], 'DIR')}" if is_demo else error.how
            raise BundleError(f"{error.lacks}; no other bundle here has it; {how}") from error
        raise BundleError(f"{error.lacks}; the demo bundle has it: --bundle {found}") from error


def check_terms(scored: str, rule: str, *, prefix: str) -> None:
    """Check that a scored file has the columns of a rule; the error names the demo bundle if that can compute them.

    Raises:
        InputError: the file cannot be read.
        SelectionError: its first line is not a row.
        RuleError: the rule cannot be read, or a column is missing; the message says how to compute it.
    """
    from instructmining.rules import Rule
    from instructmining.scored.scored_file import ScoredRows

    ScoredRows(scored, prefix=prefix).check_terms(Rule.load(rule), bundles=_built())


def _built() -> list[Path]:
    cached = cached_demo_bundle()
    return [cached] if cached is not None else []
