"""S3 on this machine: moto's server in a process of its own, since pyarrow holds the GIL while it waits for one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from faulting_proxy import FaultingProxy, proxied
from own_process import end_with_standard_input, started

ACCESS_KEY = "AKIDFORTESTSALONE001"
SECRET_KEY = "SeCrEt/ThatStandsNowhere+InAnOutput00001"  # with characters that addresses escape
REGION = "eu-west-3"
BUCKET = "bucket"
# The requests of S3, as method and pattern of a rule.
REQUESTS: Mapping[str, tuple[str, str]] = {
    "list": ("GET", r"list-type=2"),
    "head": ("HEAD", ""),
    "get": ("GET", r"^/[^/?]+/[^?]+$"),
    "put": ("PUT", r"^/[^/?]+/[^?]+$"),
    "begin": ("POST", r"\?uploads"),
    "part": ("PUT", r"partNumber="),
    "complete": ("POST", r"uploadId="),
}


class S3Server:
    """A server with one empty bucket.

    Attributes:
        port: of the server itself, which :attr:`proxy` stands before.
        proxy: what clients talk to; without rules it only logs.
        bucket: its name.
    """

    def __init__(self, port: int, proxy: FaultingProxy, bucket: str = BUCKET) -> None:
        self.port, self.proxy, self.bucket = port, proxy, bucket
        import boto3  # noqa: PLC0415 - in an environment of its own

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        self.reset()

    def environment(self) -> dict[str, str]:
        """Return the variables that a client process needs, and nothing of the user's own."""
        nowhere = "/dev/null"
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_PROFILE": "",
            "AWS_SESSION_TOKEN": "",
        }

    def reset(self) -> None:
        """Empty the bucket; drop the proxy's rules and log."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", "/moto-api/reset")
            assert connection.getresponse().status == 200
        finally:
            connection.close()
        self._client.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        self.proxy.forget()

    def address(self, key: str) -> str:
        """Return an object's address."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, content: bytes | Path) -> None:
        """Write an object."""
        self._client.put_object(
            Bucket=self.bucket, Key=key, Body=content if isinstance(content, bytes) else content.read_bytes()
        )

    def put_folder(self, key: str, folder: Path) -> None:
        """Write the files of a folder under a prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder).as_posix()}", path)

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys below a prefix, sorted."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", ()))

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Return the bytes of all objects below a prefix, by key."""
        return {key: self.get(key) for key in self.keys(prefix)}

    def uploads(self) -> list[str]:
        """Return the keys of uploads in parts that were begun and neither completed nor aborted."""
        found = self._client.list_multipart_uploads(Bucket=self.bucket)
        return sorted(upload["Key"] for upload in found.get("Uploads", ()))

    def delete(self, *keys: str) -> None:
        """Delete objects."""
        for key in keys:
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def presigned(self, key: str) -> str:
        """Return an address that lets anybody read an object: its query is a secret."""
        address: str = self._client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key})
        return address

    def close(self) -> None:
        """Close the connections of these calls."""
        self._client.close()


@contextmanager
def serving_s3() -> Iterator[S3Server]:
    """Run a server and a proxy before it."""
    with started([sys.executable, __file__]) as port, proxied(int(port)) as proxy:
        server = S3Server(int(port), proxy)
        try:
            yield server
        finally:
            server.close()


def _serve() -> None:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - in an environment of its own

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    end_with_standard_input(str(server.get_host_and_port()[1]))


if __name__ == "__main__":
    _serve()
