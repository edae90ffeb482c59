"""A service in its own process that is ended, killed, or hangs."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path

import httpx2
import pytest
from serving_process import Served, serving

from instructmining_serving.client import ServiceError

ROWS = [{"instruction": "Name a colour.", "output": "Green is a colour. " * 30}] * 100
ROW = {"instruction": "Name a colour.", "output": "Green is a colour."}
pytestmark = pytest.mark.faults

COLUMNS = ("--indicators", "perplexity")

# The graph hangs on three texts at once, which the warm-up does not compute.
HANGS = """
import threading
from instructmining.inference.executor import Executor
finished = Executor._finished
def hanging(self, job, device):
    if len(job.batch.members) == 3:
        threading.Event().wait()
    return finished(self, job, device)
Executor._finished = hanging
"""
HANGS_AT_ONCE = HANGS.replace("== 3", "> 0")


def in_flight(served: Served) -> int:
    """Requests being answered, without the one that asks."""
    text = httpx2.get(f"{served.url}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("instructmining_requests_in_flight ")]
    return int(float(line.split()[1])) - 1


def test_sigterm_under_load_answers_all_that_was_taken_and_refuses_the_rest(small_bundle: Path) -> None:
    with serving(small_bundle, *COLUMNS) as served:
        served.wait_until_ready()
        found: list[int] = []
        refused: list[Exception] = []

        def score() -> None:
            with served.client() as client:
                found.append(len(client.score(ROWS)))

        def ask_on() -> None:
            while served.process.poll() is None:
                try:
                    answer = httpx2.post(f"{served.url}/v1/score", json={"examples": [ROW]}, timeout=30)
                    assert answer.status_code == 200, answer.text
                except httpx2.TransportError as error:
                    refused.append(error)
                    return

        taken = [threading.Thread(target=score) for _ in range(12)]
        others = [threading.Thread(target=ask_on) for _ in range(2)]
        for thread in taken:
            thread.start()
        while in_flight(served) < len(taken) and not found:
            pass
        for thread in others:
            thread.start()
        served.process.send_signal(signal.SIGTERM)
        for thread in (*taken, *others):
            thread.join(60)
        assert served.process.wait(60) == 0
    assert found == [100] * len(taken)
    assert len(refused) == len(others)
    assert served.said[0].startswith("warming up perplexity")
    assert "Traceback" not in served.said[0]


def test_sigkill_leaves_nothing_that_hinders_the_next_start(small_bundle: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"instruction": "Name a colour.", "output": "Green."}\n' * 10, encoding="utf-8")
    options = ("--indicators", "perplexity,knn_6", "--knn-against", str(pool))
    before = {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")}
    with serving(small_bundle, *options, environment=[("TMPDIR", str(scratch))]) as served:
        served.wait_until_ready()
        threading.Timer(0.05, served.process.kill).start()
        with served.client() as client, pytest.raises(ServiceError):
            client.score(ROWS * 20)
        assert served.process.wait(10) == -signal.SIGKILL
        assert [path.name for path in scratch.iterdir()] in ([], [".ses"])  # onnxruntime's own
        assert {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")} == before
        with serving(small_bundle, *options, port=served.port) as again:
            again.wait_until_ready()
            with again.client() as client:
                assert len(client.score([ROW])) == 1


def test_a_graph_that_hangs_ends_requests_at_their_time_out_and_the_process_at_sigterm(small_bundle: Path) -> None:
    with serving(small_bundle, *COLUMNS, "--timeout", "1", before=HANGS) as served:
        served.wait_until_ready()
        different = [ROW | {"output": f"Green {number}"} for number in range(3)]
        with served.client() as client:
            assert len(client.score(different[:2])) == 2
            with pytest.raises(ServiceError, match="504"):
                client.score(different)
        end = time.monotonic() + 30
        while (ready := httpx2.get(f"{served.url}/health/ready")).status_code == 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert ready.status_code == 503
        assert re.search(r"a batch takes \d+\.", ready.json()["error"]["message"])
        assert "longer than 1 s" in ready.json()["error"]["message"]
        assert httpx2.get(f"{served.url}/health/live").status_code == 200
        assert httpx2.post(f"{served.url}/v1/score", json={"examples": [ROW]}).status_code == 503
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(10) == 1
    assert "error: cpu" in served.said[0]
    assert "a batch takes" in served.said[0]


def test_a_warm_up_that_hangs_is_seen_by_probes_and_ends_at_sigterm(small_bundle: Path) -> None:
    with serving(small_bundle, *COLUMNS, "--timeout", "1", before=HANGS_AT_ONCE) as served:
        end = time.monotonic() + 60
        answer = None
        while answer is None and time.monotonic() < end:
            try:
                answer = httpx2.get(f"{served.url}/health/ready")
            except httpx2.ConnectError:
                time.sleep(0.05)
        assert answer is not None
        assert (answer.status_code, answer.json()["error"]["message"]) == (503, "warming up")
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == 1
    assert "longer than 1 s" in served.said[0]


def test_a_flood_of_large_bodies_takes_bounded_memory(small_bundle: Path) -> None:
    """Eight bodies of the largest size may be in memory; sixty clients send one each, which grows threefold there."""
    body = b'{"examples": [{"instruction": "Name a colour.", "output": "' + b"Green. " * (4 << 17) + b'"}]}'
    with serving(small_bundle, *COLUMNS, "--max-bytes", str(4 << 20)) as served:
        served.wait_until_ready()
        before = resident_bytes(served)
        statuses: list[int] = []

        def post() -> None:
            statuses.append(httpx2.post(f"{served.url}/v1/score", content=body, timeout=60).status_code)

        clients = [threading.Thread(target=post) for _ in range(60)]
        for thread in clients:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in clients):
            most = max(most, resident_bytes(served))
            time.sleep(0.02)
        with served.client(tries=5) as client:
            assert len(client.score([ROW])) == 1
    assert set(statuses) <= {200, 429}
    assert 429 in statuses
    assert most - before < 300 << 20


def resident_bytes(served: Served) -> int:
    """Memory of the process."""
    pages = Path(f"/proc/{served.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096
