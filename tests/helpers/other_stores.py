"""Google's and Azure's stores on this machine: emulators in processes of their own, behind a faulting proxy.

The emulator of Google's store answers one request at a time, and pyarrow begins to read a whole object before it asks
for a range: only behind the proxy, which takes answers as a whole, do both end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from faulting_proxy import FaultingProxy, proxied
from object_stores import BUCKET
from own_process import end_with_standard_input, started
from pyarrow import fs

ACCOUNT = "devstoreaccount1"  # azurite's, as is its key
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
AZURITE = Path(sys.prefix) / "node_modules" / ".bin" / "azurite-blob"


@dataclass
class Store:
    """A store with one bucket, which is empty at first.

    Attributes:
        scheme: of its addresses.
        proxy: what clients talk to.
        variables: that a client process needs.
        files: the same for this process, past the proxy's rules where the emulator allows it.
    """

    scheme: str
    proxy: FaultingProxy
    variables: Mapping[str, str]
    files: fs.FileSystem = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the variables that a client process needs."""
        return dict(self.variables)

    def address(self, key: str) -> str:
        """Return an object's address."""
        return f"{self.scheme}://{BUCKET}/{key}"

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        with self.files.open_output_stream(f"{BUCKET}/{key}", compression=None) as stream:
            stream.write(content)

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        with self.files.open_input_stream(f"{BUCKET}/{key}", compression=None) as stream:
            content: bytes = stream.read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with a prefix, sorted."""
        found = self.files.get_file_info(fs.FileSelector(BUCKET, recursive=True))
        keys = (one.path.removeprefix(f"{BUCKET}/") for one in found if one.type == fs.FileType.File)
        return sorted(key for key in keys if key.startswith(prefix))

    def reset(self) -> None:
        """Empty the bucket; drop the proxy's rules and log."""
        self.proxy.forget()
        for key in self.keys():
            self.files.delete_file(f"{BUCKET}/{key}")
        self.proxy.forget()


@contextmanager
def serving_gcs() -> Iterator[Store]:
    """Run an emulator of Google's store."""
    with started([sys.executable, __file__, "gs"]) as port, proxied(int(port)) as proxy:
        endpoint = f"127.0.0.1:{proxy.port}"
        files = fs.GcsFileSystem(
            anonymous=True, endpoint_override=endpoint, scheme="http", retry_time_limit=timedelta(seconds=10)
        )
        variables = {"CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://{endpoint}", "INSTRUCTMINING_ANONYMOUS": "1"}
        yield Store("gs", proxy, variables, files)


@contextmanager
def serving_azure() -> Iterator[Store]:
    """Run azurite, with one container."""
    with started([sys.executable, __file__, "az"]) as port, proxied(int(port)) as proxy:
        at = f"127.0.0.1:{port}"
        files = fs.AzureFileSystem(
            ACCOUNT,
            account_key=ACCOUNT_KEY,
            blob_storage_authority=at,
            blob_storage_scheme="http",
            dfs_storage_authority=at,
            dfs_storage_scheme="http",
        )
        files.create_dir(BUCKET)
        variables = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        }
        yield Store("az", proxy, variables, files)


def missing(scheme: str) -> str:
    """Return why a store cannot be run here, or nothing."""
    if scheme == "az" and not (shutil.which("node") and AZURITE.exists()):
        return "azurite is not installed: run `make test-stores` where npm is"
    if scheme == "gs":
        try:
            import gcp_storage_emulator  # noqa: F401, PLC0415 - in an environment of its own
        except ImportError:
            return "gcp-storage-emulator is not installed: run `make test-stores`"
    return ""


def _serve_gcs() -> None:
    from gcp_storage_emulator.server import create_server  # noqa: PLC0415 - in an environment of its own

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    end_with_standard_input(str(server._api._httpd.server_port))


def _serve_azure() -> None:
    command: Sequence[str] = [
        *("node", str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"),
    ]
    ends_with_its_parent = "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    code = f"{ends_with_its_parent}os.execvp(sys.argv[1], sys.argv[1:])"
    server = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if match := re.search(r"listens on http://127\.0\.0\.1:(\d+)", line):
            end_with_standard_input(match[1])


if __name__ == "__main__":
    serve: Mapping[str, Callable[[], None]] = {"gs": _serve_gcs, "az": _serve_azure}
    serve[sys.argv[1]]()
