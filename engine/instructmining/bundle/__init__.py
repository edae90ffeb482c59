"""The bundle on disk: graphs, tokenizers and the manifest that binds them; the one contract with the exporter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias, get_args

import orjson

from instructmining.bundle.digests import Digests, sha256_of
from instructmining.bundle.template import Template
from instructmining.errors import BundleError, MissingRoleError
from instructmining.errors.arguments import check_type
from instructmining.reading.small_files import read_small

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
RoleName: TypeAlias = Literal["reward", "perplexity", "embedding", "unieval"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
PrecisionName: TypeAlias = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)  # of a graph's matrix products
UNITS = ("token", "scored", "row")  # for which a graph's multiply-adds are given
_MIN_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Role:
    """One model role of a bundle."""

    name: RoleName
    graph: Path
    tokenizer: Path
    template: Template
    max_length: int  # longest text the model is given, in tokens
    precision: str
    source: Mapping[str, object]  # id, revision, licence
    parity: Mapping[str, object]  # figures of the exporter's gate
    references: Path | None  # token ids and float32 values that the graph must give on any device
    bos: str | None = None  # the token that the model's tokenizer puts in front of a text
    multiply_adds: Mapping[str, int] = field(default_factory=dict)
    """Of the graph's products with weights, for each padded "token", each "scored" position and each "row"; empty in
    bundles written before they were counted."""

    @property
    def shares(self) -> tuple[object, ...]:
        """Equal for two roles whose conversations are the same tokens through the same graph."""
        return (self.graph, self.tokenizer, self.max_length, repr(self.template))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder of graphs, opened and checked."""

    path: Path
    name: str
    note: str  # what a user must know before trusting its numbers, "" if nothing
    roles: Mapping[RoleName, Role]
    default_rule: str | None
    length_tokenizer: RoleName
    digest: str  # sha256 of the manifest, which holds the digest of every file
    files: Mapping[str, Mapping[str, object]]

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest; check the size and the digest of every file.

        A file is read whole once for each state of it; see :mod:`instructmining.bundle.digests`.

        Raises:
            BundleError: the folder is no bundle, was written by another format version, or a file is missing, of
                another size, outside the folder, or not the one that was exported.
        """
        check_type("bundle", path, (str, Path), wanted="the path of a bundle's folder", error=BundleError)
        folder = Path(path)
        content = _read_manifest(folder)
        manifest = _object(orjson.loads(content), folder / MANIFEST)
        files = {name: _object(entry, folder / MANIFEST) for name, entry in _object(manifest["files"], folder).items()}
        _check_files(folder, files)
        roles = {
            (role := _role_name(name, folder)): _role(folder, role, _object(entry, folder), files)
            for name, entry in _object(manifest["roles"], folder).items()
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
        """Read every file whole and compare its digest with the manifest's.

        Raises:
            BundleError: one differs.
        """
        for name, entry in self.files.items():
            _check_digest(_inside(self.path, name), entry, sha256_of)

    def limited(self, max_length: int | None) -> Bundle:
        """The same with no model given a longer text than so many tokens; None sets no limit but each role's own."""
        if max_length is None:
            return self
        roles = {name: replace(role, max_length=min(role.max_length, max_length)) for name, role in self.roles.items()}
        return replace(self, roles=roles)

    def role(self, name: RoleName, *, wanted_by: str) -> Role:
        """The role, or the error that says how to get it.

        Raises:
            MissingRoleError: the bundle has no such role.
        """
        if name not in self.roles:
            lacks = f"{self.path}: has no role {name!r}, which {wanted_by} needs; its roles: {', '.join(self.roles)}"
            raise MissingRoleError(lacks, name, f"add it: {export_command([name], self.path)}")
        return self.roles[name]


def bundle_with(roles: Collection[str], folders: Iterable[str | Path]) -> Path | None:
    """The first of the folders that is a bundle with these roles, by its manifest alone; None where none is."""
    for folder in map(Path, folders):
        try:
            manifest = orjson.loads(_read_manifest(folder))
        except BundleError:
            continue
        if {*roles} <= {*_object(manifest["roles"], folder / MANIFEST)}:
            return folder
    return None


def foreign_files(folder: Path) -> list[str] | None:
    """The files in a bundle's folder that its manifest, of whatever version, does not name; None where it is none."""
    try:
        manifest = orjson.loads(read_small(folder / MANIFEST))
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or "roles" not in manifest:
        return None
    there = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir())
    return sorted(name for name in there if name != MANIFEST and name not in manifest["files"])


def export_command(roles: Iterable[str], out: str | Path) -> str:
    """The command that writes a bundle with these roles, or adds them to one."""
    models = " ".join(f"--{role} MODEL" for role in sorted(roles))
    return f"instructmining export -o {out} {models}"


def _read_manifest(folder: Path) -> bytes:
    file = folder / MANIFEST
    try:
        content = read_small(file)
    except OSError as error:
        raise BundleError(f"{folder}: is not a bundle: {MANIFEST}: {error.strerror}") from error
    try:
        manifest = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise BundleError(f"{file}: invalid JSON: {error}") from error
    found = _object(manifest, file).get("format")
    if found != FORMAT_VERSION:
        raise BundleError(
            f"{file}: format {found}, this version reads {FORMAT_VERSION}; "
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


def _role(folder: Path, name: RoleName, entry: Mapping[str, object], files: Mapping[str, object]) -> Role:
    def listed(key: str) -> Path:
        value = entry.get(key)
        if not isinstance(value, str) or value not in files:
            raise BundleError(f"{folder}: role {name!r}: {key} {value!r} is not among the manifest's files")
        return _inside(folder, value)

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
        bos=bos,
        multiply_adds=_multiply_adds(entry.get("multiply_adds", {}), f"{folder}: role {name!r}"),
    )


def _multiply_adds(value: object, where: str) -> dict[str, int]:
    """By unit; empty where none are given."""
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
    """A file of the bundle; never one outside of it."""
    pure = PurePosixPath(name)
    file = folder / name
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise BundleError(f"{folder}: the manifest names {name!r}, which is outside of the bundle")
    if any(part.is_symlink() for part in (file, *file.parents[: len(pure.parts) - 1])):
        raise BundleError(f"{file}: is a symbolic link; a bundle holds its files itself")
    if not file.is_file():
        raise BundleError(f"{file}: is missing; export the bundle again")
    return file


def _check_files(folder: Path, files: Mapping[str, Mapping[str, object]]) -> None:
    there = {name: _inside(folder, name) for name in files}
    for name, file in there.items():
        if file.stat().st_size != files[name].get("bytes"):
            raise BundleError(f"{file}: {file.stat().st_size} bytes, the manifest says {files[name].get('bytes')}")
    digests = Digests(folder)
    for name, file in there.items():
        _check_digest(file, files[name], digests.sha256)
    digests.remember()


def _check_digest(file: Path, entry: Mapping[str, object], sha256: Callable[[Path], str]) -> None:
    try:
        found = sha256(file)
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror}") from error
    if found != entry.get("sha256"):
        raise BundleError(f"{file}: is not the file that was exported (sha256 {found[:12]}…); export the bundle again")


def _object(value: object, where: Path) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BundleError(f"{where}: found {type(value).__name__} where the manifest has an object")
    return value
