"""Addresses of files in object stores. Credentials come from the environment, never from an address."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.request import url2pathname

from instructmining.errors import StoreError

SCHEMES = ("s3", "gs", "az", "hf", "file")
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_QUERY = re.compile(r"\?[\w.-]+=.*", re.DOTALL)  # unlike the "?" of a pattern
_AZURE_HOST = re.compile(r"([a-z0-9]+)\.(?:blob|dfs)\.core\.windows\.net")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file or a folder of a store is.

    Attributes:
        scheme: one of "s3", "gs", "az" and "hf".
        bucket: the bucket; in Azure the container, and on the Hugging Face hub what stands before the first slash.
        key: the rest, without a slash at its ends; may hold the stars of a pattern.
        account: of Azure; None for the one in AZURE_STORAGE_ACCOUNT_NAME.
    """

    scheme: str
    bucket: str
    key: str
    account: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse SCHEME://BUCKET/KEY.

        Raises:
            StoreError: the scheme is not known, or the address has no bucket, or has credentials or a query.
        """
        match = _FORM.fullmatch(text)
        scheme = match[1].lower() if match else ""
        scheme = _ALIASES.get(scheme, scheme)
        if match is None or scheme not in SCHEMES or scheme == "file":
            how = (
                "; to read from the web, pipe: curl ADDRESS | instructmining score -"
                if scheme.startswith("http")
                else ""
            )
            raise StoreError(f"{shown(text)}: is no address of a store; wanted {', '.join(SCHEMES)}://… or a path{how}")
        if _QUERY.search(text):
            raise StoreError(
                f"{shown(text)}: has a query; give region, endpoint and credentials in the environment (AWS_REGION, "
                "AWS_ENDPOINT_URL, …)"
            )
        host, _, key = match[2].partition("/")
        account = None
        if scheme == "az":
            host, key, account = _azure(host, key)
        if "@" in host or (":" in host and scheme != "hf"):
            raise StoreError(f"{shown(text)}: holds credentials; give them in the environment")
        if not host:
            raise StoreError(f"{shown(text)}: names no bucket; wanted {scheme}://BUCKET/KEY")
        return cls(scheme, host, key.strip("/"), account)

    @property
    def path(self) -> str:
        """The path in the store's file system."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def __str__(self) -> str:
        """Return the address, in one form for all aliases."""
        host = self.bucket if self.account is None else f"{self.bucket}@{self.account}.dfs.core.windows.net"
        return f"{self.scheme}://{host}/{self.key}" if self.key else f"{self.scheme}://{host}"


def _azure(host: str, key: str) -> tuple[str, str, str | None]:
    """Return container, key and account of CONTAINER/KEY, CONTAINER@ACCOUNT…/KEY or ACCOUNT.blob…/CONTAINER/KEY."""
    container, at, server = host.rpartition("@")
    if match := _AZURE_HOST.fullmatch(server):
        if at and ":" not in container:
            return container, key, match[1]
        if not at:
            container, _, key = key.partition("/")
            return container, key, match[1]
    return host, key, None


def is_address(name: str | Path | None) -> bool:
    """Return whether a name is an address of a store, good or bad; ``file://`` is a path of this machine."""
    match = _FORM.match(name) if isinstance(name, str) else None
    return match is not None and match[1].lower() != "file"


def plain(name: str) -> str:
    """Return an address in its one form, or the path that a ``file://`` address names; other names as they are.

    Raises:
        StoreError: the address is wrong, or has credentials or a query.
    """
    if is_address(name):
        return str(Address.parse(name))
    match = _FORM.match(name)
    if match is None:
        return name
    if not match[2].startswith("/"):
        raise StoreError(f"{name}: names a host; wanted file:///PATH")
    return url2pathname(match[2])


def shown(text: str) -> str:
    """Return an address without what may be secret in it: credentials before the host, and a query."""
    match = _FORM.fullmatch(_QUERY.sub("", text))
    if match is None:
        return text
    host, slash, rest = match[2].partition("/")
    if "@" in match[2]:  # a secret may itself have a slash
        before, _, after = match[2].rpartition("@")
        is_container = ":" not in before and "/" not in before and _AZURE_HOST.match(after)
        host, slash, rest = (host, slash, rest) if is_container else after.partition("/")
    return f"{match[1]}://{host}{slash}{rest}"


def joined(folder: str | Path, name: str) -> str:
    """Return the path or address of a file in a folder."""
    return f"{str(folder).rstrip('/')}/{name}" if is_address(str(folder)) else os.fspath(Path(folder) / name)


def folder_of(path: str) -> str:
    """Return the folder of a file's path or address."""
    return path.rpartition("/")[0] if is_address(path) else str(Path(path).parent)


def name_of(path: str | Path) -> str:
    """Return the last part of a path or an address."""
    return str(path).rpartition("/")[2] if is_address(str(path)) else Path(path).name
