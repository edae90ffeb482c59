"""Opens the file systems of stores through pyarrow; credentials come from where each store's tools look for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from instructmining.errors import StoreError
from instructmining.stores.addresses import Address
from instructmining.stores.failures import translated

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

ANONYMOUS = "INSTRUCTMINING_ANONYMOUS"  # set to read public buckets without credentials
_TRIES = 8  # of a request
_REQUEST_S, _CONNECT_S = 60, 10  # without a byte; pyarrow's own three seconds are fewer than a busy store takes
_GIVE_UP_S = 60


def file_system(address: Address) -> FileSystem:
    """Return the file system of an address, which stays open.

    Raises:
        StoreError: something that it needs is not installed or not set.
        OSError: the store cannot be reached.
    """
    with translated():
        return _opened(address.scheme, address.bucket if address.scheme == "s3" else "", address.account)


@lru_cache(maxsize=64)
def _opened(scheme: str, bucket: str, account: str | None) -> FileSystem:
    openers: dict[str, Callable[[], FileSystem]] = {
        "s3": lambda: _s3(bucket),
        "gs": _gs,
        "az": lambda: _azure(account),
        "hf": _hub,
    }
    return openers[scheme]()


def _s3(bucket: str) -> FileSystem:
    from pyarrow import fs  # noqa: PLC0415 - only where a store is used

    said: dict[str, Any] = {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise StoreError("AWS_ENDPOINT_URL: wanted http://HOST:PORT or https://HOST, without credentials")
        said |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
        region = region or "us-east-1"
    return fs.S3FileSystem(
        region=region or fs.resolve_s3_region(bucket),
        anonymous=_is_anonymous(),
        request_timeout=_REQUEST_S,
        connect_timeout=_CONNECT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        **said,
    )


def _gs() -> FileSystem:
    from pyarrow import fs  # noqa: PLC0415 - only where a store is used

    return fs.GcsFileSystem(anonymous=_is_anonymous(), retry_time_limit=timedelta(seconds=_GIVE_UP_S))


def _azure(account: str | None) -> FileSystem:
    from pyarrow import fs  # noqa: PLC0415 - only where a store is used

    name = account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not name:
        raise StoreError(
            "az:// needs the account: set AZURE_STORAGE_ACCOUNT_NAME, or give "
            "az://CONTAINER@ACCOUNT.dfs.core.windows.net/KEY"
        )
    said: dict[str, Any] = {}
    if key := os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"):
        said["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        said["sas_token"] = token
    if endpoint := os.environ.get("AZURE_STORAGE_ENDPOINT"):  # of an emulator, http://HOST:PORT
        parts = urlsplit(endpoint)
        if parts.scheme != "https" and not said:  # pyarrow would end the process
            raise StoreError("AZURE_STORAGE_ENDPOINT: without https it needs AZURE_STORAGE_ACCOUNT_KEY or a SAS token")
        for kind in ("blob", "dfs"):
            said |= {f"{kind}_storage_authority": parts.netloc, f"{kind}_storage_scheme": parts.scheme}
    return fs.AzureFileSystem(account_name=name, **said)


def _hub() -> FileSystem:
    from pyarrow import fs  # noqa: PLC0415 - only where a store is used

    try:
        from huggingface_hub import HfFileSystem  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise StoreError("hf:// needs the hub's client: pip install huggingface-hub") from error
    return fs.PyFileSystem(fs.FSSpecHandler(HfFileSystem()))


def _is_anonymous() -> bool:
    return os.environ.get(ANONYMOUS, "") not in {"", "0"}
