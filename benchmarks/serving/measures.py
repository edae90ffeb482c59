"""What is measured: the service's own time, scoring, and embeddings beside infinity-emb."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.peers.material import Material, pythons, reason_missing
from benchmarks.peers.rounds import say
from benchmarks.serving.bare import BareSession
from benchmarks.serving.servers import Server, ServerError, infinity, own_server
from benchmarks.serving.wrk import Load, load
from instructmining import Example, Scorer, read_examples
from instructmining_serving.client import Client, Result

ROWS = 128  # of the shorter quarter of Alpaca, at even steps of length
TOKENS = 200  # of a text to embed: no server truncates it
_WARM_UP_S = 3
_WITHIN = 1e-4  # largest difference of an embedding's element from the peer's
_WARM_UP_CALLS = 8
_CALLS = 64  # single requests that the service's own time is measured by
_REQUESTS_OF_EACH = 20  # client, at least
_LEAST_BARE_S = 5.0
_COMPARED = ("perplexity", "reward", "ifd", "mtld", "input_length", "output_length")
_EVERY = 4  # of the rows is compared
_ALL_S = 600.0  # for all rows in one request


@dataclass(frozen=True)
class Run:
    """What all measures share."""

    folder: Path
    wrk: str
    clients: tuple[int, ...]
    seconds: int  # of each load
    rounds: int

    @cached_property
    def material(self) -> Material:
        """Real rows and weights."""
        return Material(self.folder / "material", ROWS, 0, short=True)

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The real rows."""
        return [json.loads(line) for line in self.material.real_rows.read_text(encoding="utf-8").splitlines()]

    @property
    def examples(self) -> list[Example]:
        """The same as the engine reads them."""
        return list(read_examples(self.material.real_rows))

    def bodies(self, name: str, bodies: list[Mapping[str, Any]]) -> Path:
        """Write a file with a request's body a line."""
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
        return path


def equality(run: Run) -> dict[str, Any]:
    """The largest difference from ``score`` of real rows sent one by one, all at once, and as lines."""
    with Scorer.open(run.material.bundle, indicators=list(_COMPARED), device="cpu") as scorer:
        scored = [row.columns for row in scorer.score(run.examples[::_EVERY])]
    wanted = np.array([[row[name] for name in _COMPARED] for row in scored], dtype=np.float64)
    rows = run.rows[::_EVERY]
    found: dict[str, Any] = {"rows": len(scored), "columns": list(_COMPARED)}
    server = own_server(run.material.bundle, "--indicators", ",".join(_COMPARED), "--timeout", str(_ALL_S))
    with closing(server), server.running() as url, Client(url, timeout=_ALL_S) as client:
        sent = {
            "one by one": (result for row in rows for result in client.score([row])),
            "at once": client.score(rows),
            "as lines": client.score_lines(rows),
        }
        for name, results in sent.items():
            values = [
                [result.columns[column] for column in _COMPARED] for result in results if isinstance(result, Result)
            ]
            difference = np.abs(np.array(values, dtype=np.float64) - wanted) / np.maximum(1, np.abs(wanted))
            assert np.array_equal(np.isnan(difference), np.isnan(wanted))
            found[f"largest difference, {name}"] = float(np.nanmax(difference))
        say(f"  {found}")
    return found


def overhead(run: Run) -> dict[str, Any]:
    """Requests of one row by one client beside the bare session on the same tokens, call by call.

    With models that return zeros the difference is the service's own time; with the real one it drowns in noise.
    """
    bundles = {"models that return zeros": run.material.zeros, "perplexity": run.material.bundle}
    return {name: _overhead(run, bundle) for name, bundle in bundles.items()}


def _overhead(run: Run, bundle: Path) -> dict[str, Any]:
    bare = BareSession(bundle, "perplexity", run.examples)
    bodies = [json.dumps({"examples": [row]}).encode() for row in run.rows]
    own, least = [], []
    with closing(own_server(bundle, "--indicators", "perplexity")) as server, server.running() as url:
        for call in range(-_WARM_UP_CALLS, _CALLS):
            place = call % len(bodies)
            seconds = _posted(url, "/v1/score", bodies[place])
            bare_seconds, _ = bare.run(place)
            if call >= 0:
                own.append(seconds)
                least.append(bare_seconds)
    found = {
        "calls": len(own),
        "service p50 ms": 1e3 * median(own),
        "bare session p50 ms": 1e3 * median(least),
        "difference p50 ms": 1e3 * median(mine - other for mine, other in zip(own, least, strict=True)),
    }
    say(f"  {found}")
    return found


def score(run: Run) -> dict[str, Any]:
    """``/v1/score`` with one row a request, beside the bare session one by one and ``score`` on all rows."""
    found: dict[str, Any] = {}
    for indicator in ("perplexity",):
        bodies = run.bodies(indicator, [{"examples": [row]} for row in run.rows])
        bare = BareSession(run.material.bundle, indicator, run.examples)
        entry: dict[str, Any] = {"one by one": [], "score": [], "service": []}
        with closing(own_server(run.material.bundle, "--indicators", indicator)) as server:
            _warm(run, server, "/v1/score", bodies)
            for _ in range(run.rounds):
                entry["one by one"].append(bare.per_second(max(_LEAST_BARE_S, run.seconds / 2)))
                entry["score"].append(_scored_per_second(run.material.bundle, indicator, run.examples))
                entry["service"].append(_loads(run, server, "/v1/score", bodies))
        found[indicator] = entry
    return found


def embeddings(run: Run) -> dict[str, Any]:
    """OpenAI's route with one text a request, beside infinity-emb on the same weights."""
    tokenizer = Tokenizer.from_file(str(run.material.encoder / "tokenizer.json"))
    tokenizer.no_truncation()
    encoded = tokenizer.encode_batch([row["output"] for row in run.rows])
    texts = [row["output"] for row, one in zip(run.rows, encoded, strict=True) if len(one.ids) <= TOKENS]
    bodies = run.bodies("embeddings", [{"model": "model", "input": text, "encoding_format": "float"} for text in texts])
    found: dict[str, Any] = {"service": []}
    python = pythons(own_only=False).get("infinity")
    with ExitStack() as stack:
        own = stack.enter_context(closing(own_server(run.material.bundle, "--roles", "embedding")))
        sides = {"service": (own, "/v1/embeddings")}
        try:
            if python is None:
                raise ServerError(reason_missing("infinity"))
            peer = stack.enter_context(closing(infinity(python, run.material.onnx_encoder(python))))
            found |= {"largest difference": _difference(own, peer, texts[:8]), "infinity": []}
            sides["infinity"] = (peer, "/embeddings")
        except ServerError as error:
            found["infinity missing"] = str(error)
            say(f"  infinity: {error}")
        for server, path in sides.values():
            _warm(run, server, path, bodies)
        for _ in range(run.rounds):
            for name, (server, path) in sides.items():
                found[name].append(_loads(run, server, path, bodies))
    return found


def _loads(run: Run, server: Server, path: str, bodies: Path) -> list[dict[str, Any]]:
    """Loads of all numbers of clients, each long enough for every client's requests to be answered many times.

    Where short texts pass long ones, a shorter load would count the short ones and leave the long ones out.
    """
    found: list[dict[str, Any]] = []
    for clients in run.clients:
        wanted = 0 if not found else _REQUESTS_OF_EACH * clients / found[-1]["per_second"]
        with server.running() as url:
            measured = load(run.wrk, url + path, bodies, clients=clients, seconds=max(run.seconds, round(wanted)))
            _posted(url, path, bodies.read_bytes().splitlines()[0])  # behind what a server goes on with for nobody
        found.append(asdict(measured) | {"per_second": measured.per_second})
        say(f"  {path}, {clients} clients: {_line(measured)}")
    return found


def _line(found: Load) -> str:
    spread = f"p50 {found.p50_ms:.1f}, p95 {found.p95_ms:.1f}, p99 {found.p99_ms:.1f} ms"
    return f"{found.per_second:.1f}/s, {spread}, {found.refused} refused, {found.failed} failed"


def _warm(run: Run, server: Server, path: str, bodies: Path) -> None:
    with server.running() as url:
        load(run.wrk, url + path, bodies, clients=8, seconds=_WARM_UP_S)


def _scored_per_second(bundle: Path, indicator: str, examples: list[Example]) -> float:
    """Rows in a second in batches of all of them: what the processor does with this model."""
    with Scorer.open(bundle, indicators=[indicator], device="cpu") as scorer:
        list(scorer.score(examples[:16]))
        begin = time.perf_counter()
        list(scorer.score(examples))
        return len(examples) / (time.perf_counter() - begin)


def _posted(url: str, path: str, body: bytes) -> float:
    """Seconds of one request, its connection not counted."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.connect()
    try:
        begin = time.perf_counter()
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        seconds = time.perf_counter() - begin
        assert answer.status == 200, answer.status
        return seconds
    finally:
        connection.close()


def _difference(own: Server, peer: Server, texts: list[str]) -> float:
    """The largest difference of any element of the texts' vectors; both have length 1."""
    with own.running() as url:
        ours = _vectors(url + "/v1/embeddings", texts)
    with peer.running() as url:
        theirs = _vectors(url + "/embeddings", texts)
    largest = float(np.abs(ours - theirs).max())
    if largest > _WITHIN:
        raise ServerError(f"its vectors differ from ours by up to {largest:.2g}: not the same work")
    return largest


def _vectors(url: str, texts: list[str]) -> NDArray[np.float64]:
    body = json.dumps({"model": "model", "input": texts, "encoding_format": "float"}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return np.array([each["embedding"] for each in json.load(answer)["data"]])
