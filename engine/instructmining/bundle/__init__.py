"""The bundle on disk: graphs, tokenizers and their manifest; the only contract with the exporter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import orjson

from instructmining.bundle.digests import Digests, sha256_of
from instructmining.bundle.fetching import MANIFEST as MANIFEST
from instructmining.bundle.fetching import check_inside, fetched
from instructmining.bundle.template import Template
from instructmining.errors import BundleError, MissingRoleError
from instructmining.errors.arguments import check_type
from instructmining.reading.small_files import read_small
from instructmining.stores.addresses import is_address, joined, plain

FORMAT_VERSION = 3  # graphs take ``best_of``; CUDA may have its own
_FORMATS = (2, FORMAT_VERSION)  # that this version reads
RoleName: TypeAlias = Literal["reward", "perplexity", "embedding", "unieval"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
PrecisionName: TypeAlias = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)  # of the matrix products in a graph
UNITS = ("token", "scored", "row")  # that a graph's multiply-adds are counted by
_MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Role:
    """One model role of a bundle."""

    name: RoleName
    graph: Path
    tokenizer: Path
    template: Template
    max_length: int  # longest text that the model is given, in tokens
    precision: str
    source: Mapping[str, object]  # id, revision, licence
    parity: Mapping[str, object]  # figures of the export gate
    references: Path | None  # token ids, and the float32 values that the graph must give for them on any device
    cuda_graph: Path | None = None  # the same on CUDA, where it wants other operators than a CPU
    bos: str | None = None  # the token that the model's tokenizer puts before a text
    multiply_adds: Mapping[str, int] = field(default_factory=dict)
    """Multiply-adds with weights per padded "token", per "scored" position and per "row"; empty in bundles of earlier
    exporters."""

    def graph_on(self, device_kind: str) -> Path:
        """Return the graph for a kind of device, "cpu" or "cuda"."""
        return self.cuda_graph if device_kind == "cuda" and self.cuda_graph is not None else self.graph

    @property
    def shares(self) -> tuple[object, ...]:
        """A key, equal for two roles that run the same tokens of a conversation through the same graph."""
        return (self.graph, self.tokenizer, self.max_length, repr(self.template))


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened and checked bundle."""

    path: Path
    name: str
    note: str  # what users must know before they trust its numbers; may be empty
    roles: Mapping[RoleName, Role]
    default_rule: str | None
    length_tokenizer: RoleName
    digest: str  # SHA-256 of the manifest, which holds the digest of every file
    files: Mapping[str, Mapping[str, object]]

    @classmethod
    def open(cls, path: str | Path, *, tokenizers_alone: bool = False) -> Bundle:
        """Read the manifest, and check the size and the digest of every file.

        Files that did not change since an earlier check are not read; see :mod:`instructmining.bundle.digests`.

        Args:
            path: the folder, or its address in a store; then its files are copied to the cache.
            tokenizers_alone: whether the folder has the tokenizers and no other file of the manifest, since the graphs
                run elsewhere.

        Raises:
            BundleError: the folder is no bundle, has another format version, or a file is missing, differs from the
                exported one, or lies outside of the folder.
        """
        check_type("bundle", path, (str, Path), wanted="the path of a bundle's folder", error=BundleError)
        name = plain(str(path))
        content = _read_manifest(name)
        folder = Path(name)
        where = joined(name, MANIFEST)
        manifest = _object(orjson.loads(content), where)
        files = {file: _object(entry, where) for file, entry in _object(manifest["files"], where).items()}
        entries = _object(manifest["roles"], folder)
        if tokenizers_alone:
            named = {_object(entry, folder).get("tokenizer") for entry in entries.values()}
            files = {name: entry for name, entry in files.items() if name in named}
        if is_address(name):
            folder = fetched(name, content, files)
        _check_files(folder, files)
        roles = {
            (role := _role_name(name, folder)): _role(
                folder, role, _object(entry, folder), _object(manifest["files"], folder), files
            )
            for name, entry in entries.items()
        }
        length_tokenizer = _role_name(manifest.get("length_tokenizer"), folder)
        if length_tokenizer not in roles:
            raise BundleError(f"{folder}: length_tokenizer {length_tokenizer!r} is not one of its roles")
        default_rule = manifest.get("default_rule")
        return cls(
            path=folder,
            name=str(manifest.get("name", folder.name)),
            note=str(manifest.get("note", "")),
            roles=roles,
            default_rule=str(default_rule) if default_rule is not None else None,
            length_tokenizer=length_tokenizer,
            digest=hashlib.sha256(content).hexdigest(),
            files=files,
        )

    def verify(self) -> None:
        """Read every file and compare its digest with the manifest's.

        Raises:
            BundleError: a file differs.
        """
        for name, entry in self.files.items():
            _check_digest(_inside(self.path, name), entry, sha256_of)

    def limited(self, max_length: int | None) -> Bundle:
        """Return the bundle with texts limited to so many tokens, where a role's own limit is not lower."""
        if max_length is None:
            return self
        roles = {name: replace(role, max_length=min(role.max_length, max_length)) for name, role in self.roles.items()}
        return replace(self, roles=roles)

    def role(self, name: RoleName, *, wanted_by: str) -> Role:
        """Return a role.

        Raises:
            MissingRoleError: the bundle has no such role; the message says how to get it.
        """
        if name not in self.roles:
            lacks = f"{self.path}: has no role {name!r}, which {wanted_by} needs; its roles: {', '.join(self.roles)}"
            raise MissingRoleError(lacks, name, f"add it: {export_command([name], self.path)}")
        return self.roles[name]


def bundle_with(roles: Collection[str], folders: Iterable[str | Path]) -> Path | None:
    """Return the first folder whose manifest has these roles; None where none has. Checks no other file."""
    for folder in map(Path, folders):
        try:
            manifest = orjson.loads(_read_manifest(str(folder)))
        except BundleError:
            continue
        if {*roles} <= {*_object(manifest["roles"], folder / MANIFEST)}:
            return folder
    return None


def foreign_files(folder: Path) -> list[str] | None:
    """Return the files in a folder that its manifest, of any version, does not name; None where it is no bundle."""
    try:
        manifest = orjson.loads(read_small(folder / MANIFEST))
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or "roles" not in manifest:
        return None
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())
    return sorted(name for name in names if name != MANIFEST and name not in manifest["files"])


def export_command(roles: Iterable[str], out: str | Path) -> str:
    """Return the command that writes a bundle with these roles, or adds them to one."""
    models = " ".join(f"--{role} MODEL" for role in sorted(roles))
    return f"instructmining export -o {out} {models}"


def _read_manifest(folder: str) -> bytes:
    file = joined(folder, MANIFEST)
    try:
        content = read_small(file)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not is_address(folder) and not Path(folder).exists():
            raise BundleError(
                f"{folder}: no such folder; wanted a bundle, which instructmining export writes"
            ) from error
        raise BundleError(
            f"{folder}: is not a bundle: {MANIFEST}: {error.strerror}; wanted a folder that "
            "instructmining export writes"
        ) from error
    try:
        manifest = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{file}: invalid JSON: {error}") from error
    found = _object(manifest, file).get("format")
    if type(found) is not int or found not in _FORMATS:
        raise BundleError(
            f"{file}: format {found}, this version reads {' and '.join(map(str, _FORMATS))}; "
            "export the bundle again, or install the version that wrote it"
        )
    for key in ("files", "roles"):
        if key not in manifest:
            raise BundleError(f"{file}: {key!r} is missing; export the bundle again")
    return content


def _role_name(name: object, folder: Path) -> RoleName:
    for known in ROLES:
        if name == known:
            return known
    raise BundleError(f"{folder}: unknown role {name!r}; known: {', '.join(ROLES)}")


def _role(
    folder: Path,
    name: RoleName,
    entry: Mapping[str, object],
    files: Mapping[str, object],
    here: Mapping[str, object],  # those of the files that the folder has
) -> Role:
    def listed(key: str) -> Path:
        value = entry.get(key)
        if not isinstance(value, str) or value not in files:
            raise BundleError(f"{folder}: role {name!r}: {key} {value!r} is not among the manifest's files")
        return _inside(folder, value) if value in here else folder / value

    limit = entry.get("max_length", entry.get("max_tokens"))  # the key's former name
    if not isinstance(limit, int) or limit < _MIN_TOKENS:
        raise BundleError(f"{folder}: role {name!r}: max_length is {limit!r}, wanted at least {_MIN_TOKENS}")
    bos = entry.get("bos")
    if bos is not None and not isinstance(bos, str):
        raise BundleError(f"{folder}: role {name!r}: bos is {bos!r}, wanted a token or null; export the bundle again")
    if (precision := entry.get("precision")) not in PRECISIONS:
        raise BundleError(
            f"{folder}: role {name!r}: precision {precision!r}; this version runs {', '.join(PRECISIONS)}; "
            "export the bundle again"
        )
    return Role(
        name=name,
        graph=listed("graph"),
        tokenizer=listed("tokenizer"),
        template=Template.from_json(_object(entry.get("template"), folder), f"{folder}: role {name!r}: template"),
        max_length=limit,
        precision=str(precision),
        source=_object(entry.get("source", {}), folder),
        parity=_object(entry.get("parity", {}), folder),
        references=listed("references") if "references" in entry else None,
        cuda_graph=listed("cuda_graph") if entry.get("cuda_graph") is not None else None,
        bos=bos,
        multiply_adds=_multiply_adds(entry.get("multiply_adds", {}), f"{folder}: role {name!r}"),
    )


def _multiply_adds(value: object, where: str) -> dict[str, int]:
    """Parse multiply-adds by unit; empty where the manifest has none."""
    if value == {}:
        return {}
    counts = {str(unit): count for unit, count in value.items()} if isinstance(value, dict) else {}
    found = {unit: count for unit, count in counts.items() if type(count) is int and count >= 0}
    if found.keys() != counts.keys() or not found.keys() >= {*UNITS}:
        raise BundleError(
            f"{where}: multiply_adds is {value!r}, wanted a count for {', '.join(UNITS)}; export it again"
        )
    return found


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file in the bundle.

    Raises:
        BundleError: the file lies outside of the bundle, is a link or is missing.
    """
    check_inside(folder, name)
    file = folder / name
    if any(part.is_symlink() for part in (file, *file.parents[: len(PurePosixPath(name).parts) - 1])):
        raise BundleError(f"{file}: is a symbolic link; a bundle must contain its files")
    if not file.is_file():
        raise BundleError(f"{file}: is missing; export the bundle again")
    return file


def _check_files(folder: Path, files: Mapping[str, Mapping[str, object]]) -> None:
    paths = {name: _inside(folder, name) for name in files}
    for name, file in paths.items():
        if file.stat().st_size != files[name].get("bytes"):
            raise BundleError(f"{file}: {file.stat().st_size} bytes, the manifest says {files[name].get('bytes')}")
    digests = Digests(folder)
    for name, file in paths.items():
        _check_digest(file, files[name], digests.sha256)
    digests.store()


def _check_digest(file: Path, entry: Mapping[str, object], sha256: Callable[[Path], str]) -> None:
    try:
        found = sha256(file)
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    if found != entry.get("sha256"):
        raise BundleError(f"{file}: is not the file that was exported (sha256 {found[:12]}…); export the bundle again")


def _object(value: object, where: str | Path) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BundleError(f"{where}: found {type(value).__name__} where the manifest has an object")
    return value
