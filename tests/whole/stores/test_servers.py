"""The servers that stand for stores in other tests: pyarrow against them, through each fault."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from faulting_proxy import Kind, Request, Rule
from object_stores import REQUESTS, SECRET_KEY, S3Server
from other_stores import Store
from paths import ROOT

pytestmark = pytest.mark.peer
CONTENT = bytes(range(256)) * 64
CLIENT = """
import json, os, sys
from urllib.parse import urlsplit
from pyarrow import fs
endpoint = urlsplit(os.environ["AWS_ENDPOINT_URL"])
store = fs.S3FileSystem(
    endpoint_override=endpoint.netloc,
    scheme=endpoint.scheme,
    request_timeout=1,
    retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
)

def write(key, content):
    stream = store.open_output_stream(f"bucket/{key}")
    stream.write(content)
    stream.close()

try:
    found = eval(sys.argv[1], {"store": store, "fs": fs, "write": write})
except OSError as error:
    found = f"{type(error).__name__}: {error}"
print(json.dumps(found), flush=True)
"""
OTHER_CLIENT = """
import os, sys
from urllib.parse import urlsplit
from pyarrow import fs
if sys.argv[1] == "gs":
    store = fs.GcsFileSystem(anonymous=True)
else:
    endpoint = urlsplit(os.environ["AZURE_STORAGE_ENDPOINT"]).netloc
    store = fs.AzureFileSystem(
        os.environ["AZURE_STORAGE_ACCOUNT_NAME"],
        account_key=os.environ["AZURE_STORAGE_ACCOUNT_KEY"],
        blob_storage_authority=endpoint,
        blob_storage_scheme="http",
        dfs_storage_authority=endpoint,
        dfs_storage_scheme="http",
    )
with store.open_input_file("bucket/folder/a") as file:
    sys.stdout.buffer.write(file.read_at(1000, 100))
"""
READ = "store.open_input_file('bucket/a').read().hex()"
WRITE = "write('a', bytes(range(256)) * 64)"
WRITE_PARTS = "write('many', bytes(25_000_000))"  # three of them


def client(s3: S3Server, expression: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, expression],
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
        env=os.environ | s3.environment(),
    )
    assert SECRET_KEY not in done.stdout + done.stderr
    return json.loads(done.stdout)


def test_pyarrow_reads_ranges_of_an_object_and_the_log_says_which(s3: S3Server) -> None:
    s3.put("a", CONTENT)
    assert client(s3, "store.open_input_file('bucket/a').read_at(1000, 100).hex()") == CONTENT[100:1100].hex()
    head, get = s3.proxy.log()
    assert head == Request("HEAD", "/bucket/a", "", "", status=200)
    assert get == Request("GET", "/bucket/a", "bytes=100-1099", "", status=206, answered=1000)


def test_pyarrow_writes_and_lists_objects_in_one_part_or_several(s3: S3Server) -> None:
    assert client(s3, f"[{WRITE}, {WRITE_PARTS}]") == [None, None]
    assert s3.objects() == {"a": CONTENT, "many": bytes(25_000_000)}
    assert s3.uploads() == []
    assert sum("partNumber=" in request.target for request in s3.proxy.log()) == 4
    listed = "sorted((found.path, found.size) for found in store.get_file_info(fs.FileSelector('bucket')))"
    assert client(s3, listed) == [["bucket/a", len(CONTENT)], ["bucket/many", 25_000_000]]
    s3.delete("many")
    assert s3.keys() == ["a"]


@pytest.mark.parametrize("kind", ["error500", "slow_down_503", "cut_before", "cut_after", "half_body", "delay"])
def test_a_fault_that_passes_is_not_seen(s3: S3Server, kind: Kind) -> None:
    s3.put("a", CONTENT)
    s3.proxy.rules(Rule(kind, "GET", times=1, seconds=0.3))
    assert client(s3, READ) == CONTENT.hex()
    faults = [(request.fault, request.method) for request in s3.proxy.log()]
    assert faults == [("", "HEAD"), (kind, "GET")] + [("", "GET")] * (kind != "delay")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("error500", "INTERNAL_FAILURE"),
        ("slow_down_503", "SERVICE_UNAVAILABLE"),
        ("denied_403", "ACCESS_DENIED"),
        ("cut_before", "NETWORK_CONNECTION"),
        ("cut_after", "NETWORK_CONNECTION"),
        ("half_body", "NETWORK_CONNECTION"),
        ("hang", "NETWORK_CONNECTION"),
    ],
)
def test_a_fault_that_stays_is_an_error_of_the_client(s3: S3Server, kind: Kind, said: str) -> None:
    s3.put("a", CONTENT)
    s3.proxy.rules(Rule(kind, *REQUESTS["get"]))
    assert f"AWS Error {said} during GetObject operation" in str(client(s3, READ))
    assert {request.fault for request in s3.proxy.log() if request.method == "GET"} == {kind}


@pytest.mark.parametrize(
    ("request_kind", "kind"),
    [
        ("begin", "error500"),
        ("part", "error500"),
        ("part", "cut_upload"),
        ("part", "cut_after"),
        ("complete", "error500"),
        ("complete", "error_in_200"),
        ("complete", "cut_before"),
        ("complete", "cut_after"),
    ],
)
def test_uploads_meet_faults_too(s3: S3Server, request_kind: str, kind: Kind) -> None:
    s3.proxy.rules(Rule(kind, *REQUESTS[request_kind], times=1))
    assert client(s3, WRITE) is None
    assert s3.objects() == {"a": CONTENT}
    s3.delete("a")
    s3.proxy.rules(Rule(kind, *REQUESTS[request_kind]))
    assert "AWS Error" in str(client(s3, WRITE))
    done = (request_kind, kind) == ("complete", "cut_after")  # which the client cannot know
    assert s3.keys() == ["a"] * done
    assert s3.uploads() == ["a"] * (not done and request_kind != "begin")


def test_rules_let_so_many_pass_and_break_so_many(s3: S3Server) -> None:
    s3.put("a", CONTENT)
    s3.proxy.rules(Rule("denied_403", *REQUESTS["get"], after=1, times=1))
    assert client(s3, READ) == CONTENT.hex()
    assert "ACCESS_DENIED" in str(client(s3, READ))
    assert client(s3, READ) == CONTENT.hex()


def test_a_killed_client_leaves_an_upload_that_the_server_lists(s3: S3Server) -> None:
    s3.proxy.rules(Rule("hang", *REQUESTS["part"]))
    process = subprocess.Popen([sys.executable, "-c", CLIENT, WRITE], env=os.environ | s3.environment())
    s3.proxy.wait_for(lambda request: request.fault == "hang")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert (s3.uploads(), s3.keys()) == (["a"], [])


def test_the_servers_end_with_the_process_that_started_them(s3_server: S3Server) -> None:  # noqa: ARG001 - or skips
    code = """
import os
from object_stores import serving_s3
with serving_s3() as server:
    print(server.port, server.proxy.port, flush=True)
    os.kill(os.getpid(), 9)
"""
    paths = os.pathsep.join([str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        check=False,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": paths},
    )
    ports = [int(port) for port in done.stdout.split()]
    assert len(ports) == 2
    end = time.monotonic() + 20
    while any(map(listens, ports)):
        assert time.monotonic() < end, "a server outlived the test that started it"
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_other_stores_keep_objects_and_the_proxy_breaks_their_requests_too(other_store: Store) -> None:
    many = bytes(5_000_000)
    other_store.put("folder/a", CONTENT)
    other_store.put("many", many)
    assert other_store.keys() == ["folder/a", "many"]
    assert other_store.keys("folder/") == ["folder/a"]
    assert (other_store.get("folder/a"), other_store.get("many")) == (CONTENT, many)
    client = subprocess.run(
        [sys.executable, "-c", OTHER_CLIENT, other_store.scheme],
        env=os.environ | other_store.environment(),
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert client.stdout == CONTENT[100:1100]
    assert other_store.proxy.log()[-1].range in {"bytes=100-1099", ""}  # Azure has a header of its own
    other_store.reset()
    assert other_store.keys() == []
