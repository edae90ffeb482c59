"""Scoring from a store into a store: the files of a run on this machine, whatever fails meanwhile."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import pytest
import zstandard
from faulting_proxy import Kind, Rule
from object_stores import ACCESS_KEY, REQUESTS, SECRET_KEY, S3Server
from other_stores import ACCOUNT_KEY, Store
from store_client import SETTINGS, Client, Scored

pytestmark = pytest.mark.peer
IN, OUT, BUNDLE, PARTS = "s3://bucket/in/", "s3://bucket/out/scored.jsonl", "s3://bucket/bundle", "s3://bucket/parts"
SCORE = ("score", IN, "-o", OUT, "--bundle", BUNDLE, *SETTINGS)
SHARD = ("score", IN, "-o", PARTS, "--bundle", BUNDLE, *SETTINGS, "--shard", "1/2")
PART = "parts/part-00001-of-00002.jsonl"
FINISHED = {0, 3}  # 0 where an earlier run had rejected the rows


def check_finished(s3: S3Server, scored: Scored, out: str = "out/scored.jsonl") -> None:
    found = s3.objects(out)
    assert found[out] == scored.rows
    assert found[f"{out}.rejects.jsonl"] == scored.rejects("s3://bucket")
    assert json.loads(found[f"{out}.run.json"])["counts"]["rows_out"] == scored.rows.count(b"\n")


def check_not_done(s3: S3Server, out: str = "out/scored.jsonl") -> None:
    """Check that no run file says that a run has finished; an empty one says that it has begun."""
    found = s3.objects(out)
    assert not found.get(f"{out}.run.json")
    assert set(found) <= {f"{out}{end}" for end in ("", ".rejects.jsonl", ".run.json")}


def test_files_in_a_store_are_those_of_a_run_on_this_machine(client: Client, s3: S3Server, scored: Scored) -> None:
    ended = client.run(*SCORE)
    assert ended.code == 3, ended.said
    check_finished(s3, scored)
    assert s3.uploads() == []
    log = s3.proxy.log()
    assert all(request.range for request in log if request.method == "GET" and request.target.startswith("/bucket/in/"))
    written = [
        request.target.partition("?")[0] for request in log if request.method == "POST" and "Id=" in request.target
    ]
    assert written[-1] == "/bucket/out/scored.jsonl.run.json"
    again = client.run(*SCORE)
    assert again.code == 1
    assert again.errors == [f"error: {OUT}: exists; give --overwrite to replace it, or --resume to finish it"]
    s3.proxy.forget()
    assert client.run(*SCORE, "--resume").code == 0
    assert not [request for request in s3.proxy.log() if request.method in {"PUT", "POST", "DELETE"}]


def test_shards_in_a_store_merge_into_what_one_machine_writes(client: Client, s3: S3Server, scored: Scored) -> None:
    settings = ("--bundle", BUNDLE, *SETTINGS, "--indicators", "perplexity,knn_2")
    local = Client(scored.folder, client.cache, client.environment)
    assert local.run("score", "in", "-o", client.folder / "one.jsonl", *settings).code == 3
    for shard in ("3/3", "1/3", "2/3", "2/3"):
        ended = client.run("score", IN, "-o", PARTS, *settings, "--shard", shard)
        assert ended.code in FINISHED, ended.said
    assert client.run("merge", PARTS, "-o", "s3://bucket/merged.jsonl").code == 3
    assert s3.get("merged.jsonl") == (client.folder / "one.jsonl").read_bytes()
    chosen = ("--by", "perplexity", "--top", "5")
    assert client.run("select", "s3://bucket/merged.jsonl", "-o", "s3://bucket/chosen.jsonl", *chosen).code == 0
    assert client.run("select", "one.jsonl", "-o", "chosen.jsonl", *chosen).code == 0
    assert s3.get("chosen.jsonl") == (client.folder / "chosen.jsonl").read_bytes()


@pytest.mark.parametrize(
    "kind", ["error500", "slow_down_503", "cut_before", "cut_upload", "cut_after", "half_body", "delay"]
)
def test_faults_that_pass_change_nothing(client: Client, s3: S3Server, scored: Scored, kind: Kind) -> None:
    rules = [Rule(kind, method, target, times=2) for method, target in REQUESTS.values()]
    s3.proxy.rules(*rules, Rule("error_in_200", *REQUESTS["complete"], times=1))
    ended = client.run(*SCORE)
    assert ended.code == 3, ended.said
    assert sum(request.fault == kind for request in s3.proxy.log()) >= 2 * (len(rules) - 1)
    check_finished(s3, scored)


@pytest.mark.parametrize(
    ("kind", "request_kind"),
    [
        *(("denied_403", request) for request in ("list", "head", "get", "begin", "part", "complete")),
        ("error500", "get"),
        ("half_body", "get"),
        ("cut_before", "head"),
        pytest.param("error500", "complete", marks=pytest.mark.slow),
    ],
)
def test_a_fault_that_stays_is_one_plain_error_and_then_the_run_is_finished(
    client: Client, s3: S3Server, scored: Scored, kind: Kind, request_kind: str
) -> None:
    s3.proxy.rules(Rule(kind, *REQUESTS[request_kind]))
    ended = client.run(*SCORE)
    assert (ended.code, len(ended.errors)) == (1, 1), ended.said
    assert ended.said.splitlines()[-1] == ended.errors[0]
    assert "s3://bucket/" in ended.errors[0]
    check_not_done(s3)
    s3.proxy.rules()
    assert client.run(*SCORE, "--resume").code in FINISHED
    check_finished(s3, scored)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "int"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", r"/in/a\.jsonl$"),
        ("PUT", r"scored\.jsonl\.rejects\.jsonl\?"),
        ("POST", r"scored\.jsonl\?uploadId="),
        ("PUT", r"scored\.jsonl\.run\.json\?"),
    ],
    ids=["reading", "rejects", "rows", "mark"],
)
def test_a_run_that_is_ended_while_it_uses_the_store_is_finished_later(
    client: Client, s3: S3Server, scored: Scored, method: str, target: str, number: signal.Signals
) -> None:
    s3.proxy.rules(Rule("hang", method, target))
    process = client.start(*SCORE)
    s3.proxy.wait_for(lambda request: request.fault == "hang")
    ended = client.end(process, number, 60)
    assert ended.code == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    check_not_done(s3)
    s3.proxy.rules()
    assert client.run(*SCORE, "--resume").code in FINISHED
    check_finished(s3, scored)


def test_a_shard_that_is_killed_while_it_is_brought_is_finished_by_another_machine(
    client: Client, s3: S3Server, tmp_path: Path
) -> None:
    s3.proxy.rules(Rule("hang", "POST", r"00002\.jsonl\?uploadId="))
    process = client.start(*SHARD)
    s3.proxy.wait_for(lambda request: request.fault == "hang")
    client.end(process, signal.SIGKILL)
    check_not_done(s3, PART)
    s3.proxy.rules()
    other = Client(client.folder, tmp_path / "another", client.environment, client.secrets)
    ended = other.run(*SHARD)
    assert ended.code == 3, ended.said
    assert other.run(*SHARD[:-1], "2/2").code == 3
    assert other.run("merge", PARTS, "-o", "merged.jsonl").code == 3


@pytest.mark.parametrize("torn", [PART, f"{PART}.rejects.jsonl", f"{PART}.run.json"])
def test_a_torn_object_counts_as_not_done(client: Client, s3: S3Server, scored: Scored, torn: str) -> None:
    for shard in ("1/2", "2/2"):
        assert client.run(*SHARD[:-1], shard).code == 3
    whole = s3.get(torn)
    s3.put(torn, whole[: len(whole) // 2])
    ended = client.run("merge", PARTS, "-o", "merged.jsonl")
    assert (ended.code, len(ended.errors)) == (1, 1), ended.said
    assert client.run(*SHARD).code == 3
    assert client.run("merge", PARTS, "-o", "merged.jsonl").code == 3
    assert (client.folder / "merged.jsonl").read_bytes() == scored.rows


def test_an_input_that_is_replaced_during_the_run_is_an_error(client: Client, s3: S3Server) -> None:
    s3.proxy.rules(Rule("delay", "GET", "/bundle/manifest.json", seconds=4))
    process = client.start(*SCORE)
    s3.proxy.wait_for(lambda request: request.fault == "delay")
    s3.put("in/a.jsonl", s3.get("in/a.jsonl").replace(b"the", b"THE"))
    ended = client.end(process)
    assert (ended.code, len(ended.errors)) == (1, 1), ended.said
    assert "s3://bucket/in/a.jsonl" in ended.errors[0]
    check_not_done(s3)


def test_two_machines_may_write_the_same_shard(client: Client, tmp_path: Path) -> None:
    other = Client(client.folder, tmp_path / "another", client.environment, client.secrets)
    processes = [client.start(*SHARD), other.start(*SHARD)]
    assert {client.end(process).code for process in processes} <= FINISHED
    assert client.run(*SHARD[:-1], "2/2").code == 3
    assert client.run("merge", PARTS, "-o", "merged.jsonl").code == 3


@pytest.mark.parametrize("place", ["input", "out", "bundle"])
@pytest.mark.parametrize("form", ["presigned", "query", "keys"])
def test_secrets_in_addresses_are_refused_and_not_said(client: Client, s3: S3Server, place: str, form: str) -> None:
    key = {"input": "in/a.jsonl", "out": "out/x.jsonl", "bundle": "bundle"}[place]
    secret = {
        "presigned": s3.presigned(key),
        "query": f"s3://bucket/{key}?X-Amz-Signature=0123456789abcdef",
        "keys": f"s3://{ACCESS_KEY}:{SECRET_KEY}@bucket/{key}",
    }[form]
    given = {"input": IN, "out": OUT, "bundle": BUNDLE, place: secret}
    client = Client(
        client.folder, client.cache, client.environment, (*client.secrets, "0123456789abcdef", "Signature=", "Expires=")
    )
    ended = client.run("score", given["input"], "-o", given["out"], "--bundle", given["bundle"], *SETTINGS)
    assert ended.code in {1, 2}
    assert s3.keys("out/") == []
    assert not [path for path in client.folder.rglob("*") if "Signature" in str(path) or SECRET_KEY[:6] in str(path)]


@pytest.mark.parametrize("place", ["s3://bucket/none.jsonl", "s3://nobucket/in/", "s3://bucket/none/*.jsonl"])
def test_what_is_not_there_is_one_plain_error(client: Client, place: str) -> None:
    ended = client.run("score", place, "-o", OUT, "--bundle", BUNDLE, *SETTINGS)
    assert (ended.code, len(ended.errors)) == (1, 1), ended.said
    assert place.rstrip("/") in ended.errors[0]


def test_keys_may_have_any_character(client: Client, s3: S3Server, scored: Scored) -> None:
    s3.put("odd/a b+c%20#ä.jsonl", (scored.folder / "in" / "a.jsonl").read_bytes())
    out = "s3://bucket/odd out/ö+%41#1.jsonl"
    ended = client.run("score", "s3://bucket/odd/", "-o", out, "--bundle", BUNDLE, *SETTINGS)
    assert ended.code == 3, ended.said
    assert "odd out/ö+%41#1.jsonl.run.json" in s3.objects()
    assert scored.rows.startswith(s3.get("odd out/ö+%41#1.jsonl"))


def test_other_stores_give_the_same_files(other_store: Store, scored: Scored, tmp_path: Path) -> None:
    for path in (scored.folder / "in").iterdir():
        other_store.put(f"in/{path.name}", path.read_bytes())
    for path in scored.bundle.rglob("*"):
        if path.is_file():
            other_store.put(f"bundle/{path.relative_to(scored.bundle)}", path.read_bytes())
    other_store.proxy.rules(
        Rule("error500", "GET", r"/in(%2F|/)a", times=2),
        Rule("slow_down_503", "PUT", times=2),
        Rule("cut_after", "PUT", times=1),
    )
    client = Client(tmp_path, tmp_path / "cache", other_store.environment(), (ACCOUNT_KEY,))
    store = f"{other_store.scheme}://bucket"
    ended = client.run("score", f"{store}/in", "-o", f"{store}/out.jsonl", "--bundle", f"{store}/bundle", *SETTINGS)
    assert ended.code == 3, ended.said
    assert other_store.get("out.jsonl") == scored.rows
    assert other_store.get("out.jsonl.rejects.jsonl") == scored.rejects(store)
    assert "out.jsonl.run.json" in set(other_store.keys())


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_compressed_rows_are_compressed_once(client: Client, s3: S3Server, scored: Scored, suffix: str) -> None:
    ended = client.run("score", IN, "-o", f"s3://bucket/out{suffix}", "--bundle", BUNDLE, *SETTINGS)
    assert ended.code == 3, ended.said
    found = s3.get(f"out{suffix}")
    if suffix.endswith(".gz"):
        assert gzip.decompress(found) == scored.rows
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(found) == scored.rows
