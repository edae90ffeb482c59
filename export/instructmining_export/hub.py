"""Finds a checkpoint in a folder, or downloads it from the Hugging Face hub; never runs a model's code."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import HfApi, ModelInfo, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from instructmining.errors import ExportError
from instructmining_export.checkpoints import INDEX, PICKLE, SAFETENSORS, WEIGHTS, Checkpoint

Report: TypeAlias = Callable[[str], None]

ASK_TIMEOUT_S = 30.0  # for the request about a model; downloads use the library's own limits
MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
OWNED_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
NOT_STATED = "not stated"
# Matched against whole paths in a repository, so that onnx/, original/ and the like never match.
TEXT_FILES = re.compile(
    r"""config\.json
    | (tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json
    | README\.md | vocab\.txt | merges\.txt | (tokenizer|spiece|spm|sentencepiece\.bpe)\.model
    | [^/]+\.jinja | additional_chat_templates/[^/]+\.jinja
    | modules\.json | config_sentence_transformers\.json | sentence_\w+_config\.json | \d+_\w+/config\.json""",
    re.VERBOSE,
)
# Base of the errors of the HTTP library below huggingface_hub: requests before version 1; httpx later, whose errors are
# not OSErrors.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
SHARDS = {
    SAFETENSORS + INDEX: re.compile(r"[\w-]+-\d+-of-\d+\.safetensors"),
    PICKLE + INDEX: re.compile(r"[\w-]+-\d+-of-\d+\.bin"),
}
FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---", re.DOTALL)


def resolve(identifier: str, *, revision: str = "main", report: Report, licence: str | None = None) -> Checkpoint:
    """Find a checkpoint; downloads it unless the identifier is a local folder.

    Without network, or with HF_HUB_OFFLINE, uses a snapshot downloaded earlier, and reports that.

    Args:
        identifier: path of a folder, or ``owner/name`` on the hub; an existing folder takes precedence.
        revision: branch, tag or commit on the hub; ignored for a folder.
        report: called with source, size and licence before the first download.
        licence: recorded instead of what the model card states.

    Returns:
        The checkpoint; its source holds ``id``, ``revision`` (a commit, or "local"), ``licence`` and, for a folder,
        ``digest``, a sha256 over the weights.

    Raises:
        ExportError: there is no such folder or model, it has no readable weights, or it cannot be downloaded.
    """
    folder = Path(identifier).expanduser()
    if identifier and folder.is_dir():
        checkpoint = _from_folder(folder, licence)
        report(f"{folder}: a folder, {_size(_bytes(checkpoint))} of weights, licence {checkpoint.source['licence']}")
    elif identifier and folder.exists():
        raise ExportError(f"{identifier}: is a file; wanted a folder in the Hugging Face layout, or a model's id")
    elif not MODEL_ID.fullmatch(identifier):
        raise ExportError(f"{identifier!r}: no such folder; wanted one with config.json, or a model's id, owner/name")
    else:
        checkpoint = _from_hub(identifier, revision, report, licence)
    if "auto_map" in checkpoint.config():
        report(f"{identifier}: its config names Python code (auto_map); it is not run")
    return checkpoint


def files_to_fetch(names: Iterable[str]) -> list[str]:
    """Select the files of a repository that an export reads: config, tokenizer, templates, one form of the weights.

    Args:
        names: paths of all files.

    Returns:
        The selected paths, sorted; without weights where none are readable.
    """
    available = frozenset(names)
    fetched = {name for name in available if TEXT_FILES.fullmatch(name)}
    weights = next((name for name in WEIGHTS if name in available), None)
    if weights is not None:
        fetched.add(weights)
    if weights in SHARDS:
        fetched |= {name for name in available if SHARDS[weights].fullmatch(name)}
    return sorted(fetched)


# A folder


def _from_folder(folder: Path, licence: str | None) -> Checkpoint:
    """Return a local checkpoint, with its source as far as it can be told."""
    found = Checkpoint(folder)
    named = found.config().get("_name_or_path")
    path = folder.resolve()
    identifier, revision = path.name, "local"
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):  # in the hub's cache
        identifier, revision = path.parent.parent.name.removeprefix("models--").replace("--", "/"), path.name
    elif isinstance(named, str) and OWNED_ID.fullmatch(named):
        identifier = named
    source = {"id": identifier, "revision": revision, "licence": licence or _card_licence(folder)}
    return Checkpoint(folder, source | {"digest": _digest(found)})


def _digest(checkpoint: Checkpoint) -> str:
    """Return a sha256 over the weight files' names and contents; fine-tuned models often agree in names and sizes."""
    digest = hashlib.sha256()
    for file in checkpoint.weight_files():
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ExportError(f"{file}: {error}") from error
        digest.update(f"{content}  {file.name}\n".encode())
    return digest.hexdigest()


def _card_licence(folder: Path) -> str:
    """Read the licence from the front matter of the model card."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return NOT_STATED
    matter = FRONT_MATTER.match(card)
    fields = matter[1] if matter else ""
    # The value is on the same line, or a list with one entry below.
    values = [
        found[1].strip().strip("\"'")
        for key in ("license", "license_name")
        if (found := re.search(rf"^{key}:[ \t]*(?:\n[ \t]*-[ \t]*)?([^\s#][^\n#]*)", fields, re.MULTILINE))
    ]
    return _licence_text(*values)


def _licence_text(licence: object = None, name: object = None) -> str:
    """Return the licence as a model card states it, with its name in parentheses if it has one."""
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    if not licence:
        return NOT_STATED
    return f"{licence} ({name})" if name else str(licence)


# The hub


def _from_hub(identifier: str, revision: str, report: Report, licence: str | None) -> Checkpoint:
    """Download a checkpoint, or use one downloaded earlier where the hub cannot be reached."""
    try:
        info = HfApi().model_info(identifier, revision=revision, files_metadata=True, timeout=ASK_TIMEOUT_S)
    except (HFValidationError, OSError, HTTP_ERROR) as error:
        if _unreachable(error) and (folder := _cached(identifier, revision)) is not None:
            report(f"{identifier} at {folder.name}: {_reason(error)}; using what was downloaded before")
            source = {"id": identifier, "revision": folder.name, "licence": licence or _card_licence(folder)}
            return Checkpoint(folder, source)
        raise _explained(error, identifier, revision) from error
    commit, files, size = _contents(info, identifier)
    source = {"id": info.id, "revision": commit, "licence": licence or _info_licence(info)}
    cached = all(isinstance(try_to_load_from_cache(identifier, file, revision=commit), str) for file in files)
    action = "downloaded before" if cached else "downloading"
    report(f"{info.id} at {commit}: {_size(size)}, licence {source['licence']}; {action}")
    try:
        return Checkpoint(_download(identifier, revision, commit, files), source)
    except (OSError, HTTP_ERROR) as error:
        raise _explained(error, identifier, revision) from error


def _contents(info: ModelInfo, identifier: str) -> tuple[str, list[str], int]:
    """Return the commit, the files to fetch and their size in bytes."""
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = files_to_fetch(sizes)
    commit = info.sha or ""
    if not commit or "config.json" not in files or not set(files) & set(WEIGHTS):
        found = ", ".join(sorted(sizes)[:12]) or "nothing"
        raise ExportError(
            f"{identifier} at {commit}: found {found}; wanted config.json and {SAFETENSORS} or {PICKLE}, or the shards "
            f"of either with their {INDEX} file"
        )
    return commit, files, sum(sizes[name] for name in files)


def _download(identifier: str, revision: str, commit: str, files: list[str]) -> Path:
    """Download the files and return the snapshot's folder.

    Asks for the revision by name first, so that the cache can resolve it offline later; if the revision has moved
    since, downloads the commit that was reported.
    """
    patterns = [glob.escape(name) for name in files]
    folder = Path(snapshot_download(identifier, revision=revision, allow_patterns=patterns))
    if folder.name != commit:
        folder = Path(snapshot_download(identifier, revision=commit, allow_patterns=patterns))
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ExportError(f"{identifier} at {commit}: {missing[0]} did not arrive; run again to resume")
    return folder


def _cached(identifier: str, revision: str) -> Path | None:
    """Return the snapshot that was downloaded before; None where there is none.

    Raises:
        ExportError: the snapshot is incomplete.
    """
    # Not snapshot_download: since version 2 it refuses a snapshot that lacks any file of the repository, read or not.
    config = try_to_load_from_cache(identifier, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    checkpoint = Checkpoint(Path(config).parent)
    checkpoint.config()
    checkpoint.weight_files()
    return checkpoint.folder


def _unreachable(error: Exception) -> bool:
    """Return whether the hub did not answer, or answered with a server error."""
    if isinstance(error, HfHubHTTPError):
        return error.response is None or error.response.status_code >= 500
    return isinstance(error, (OSError, HTTP_ERROR))


def _explained(error: Exception, identifier: str, revision: str) -> ExportError:
    """Return the error in one line, with what to do."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # why the library could not ask the hub
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    if isinstance(error, GatedRepoError) or (status in (401, 403) and not isinstance(error, RepositoryNotFoundError)):
        return ExportError(
            f"{identifier}: access is refused; accept its terms at {constants.ENDPOINT}/{identifier}, then log in "
            "with hf auth login, or set HF_TOKEN to a token of your account"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ExportError(
            f"{identifier}: no such folder here and no such model on the hub; check the spelling, or for a private "
            "model set HF_TOKEN to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return ExportError(f"{identifier}: no revision {revision!r}; wanted a branch, tag or full commit of the model")
    if isinstance(error, HFValidationError):
        return ExportError(f"{identifier}: no such folder, and not a model's id ({_line(error)})")
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError | TimeoutError):
        return ExportError(
            f"{identifier}: cannot be stored ({_line(error)}); HF_HOME names another place for downloads"
        )
    return ExportError(
        f"{identifier} at {revision}: {_reason(error)}; on a machine with network download config.json, the tokenizer "
        f"files (tokenizer.json, tokenizer_config.json, *.model, *.jinja) and the .safetensors files, or "
        f"pytorch_model*.bin where there are none, of {identifier}, put them into a folder, and give the folder in "
        "place of the id"
    )


def _reason(error: Exception) -> str:
    """Return why the hub did not answer."""
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return f"the hub at {constants.ENDPOINT} cannot be reached or does not answer ({_line(error)})"


def _line(error: BaseException) -> str:
    """Return the error's text in one line; nested network errors give the innermost."""
    if isinstance(error, (OSError, HTTP_ERROR)) and not isinstance(error, HfHubHTTPError):
        while (inner := _inner(error)) is not None:
            error = inner
    return " ".join(str(error).split()) or type(error).__name__


def _inner(error: BaseException) -> BaseException | None:
    causes = [*error.args[:1], getattr(error, "reason", None), error.__cause__]
    return next((cause for cause in causes if isinstance(cause, BaseException)), None)


def _info_licence(info: ModelInfo) -> str:
    """Return the licence that the hub read from the model card."""
    card = info.card_data
    return NOT_STATED if card is None else _licence_text(card.get("license"), card.get("license_name"))


def _bytes(checkpoint: Checkpoint) -> int:
    """Return the size of the weight files in bytes."""
    return sum(file.stat().st_size for file in checkpoint.weight_files())


def _size(count: int) -> str:
    """Format bytes in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
