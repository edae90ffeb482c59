from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import client_of
from starlette.testclient import TestClient

ROW = {"instruction": "Name a colour.", "output": "Green is a secret."}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def spans() -> Iterator[Any]:
    """Keeps the spans that end."""
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    kept = in_memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    pytest.importorskip("opentelemetry.trace").set_tracer_provider(provider)
    yield kept
    kept.shutdown()


@pytest.fixture(scope="module")
def traced(small_bundle: Path) -> Iterator[TestClient]:
    yield from client_of(small_bundle, indicators="perplexity,reward")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/score", {"examples": [ROW]}),
        ("/classify", {"input": "Green is a secret."}),
    ],
)
def test_a_request_is_a_span_of_its_clients_trace_with_its_parts(
    traced: TestClient,
    spans: Any,  # noqa: ANN401
    route: str,
    body: dict[str, object],
) -> None:
    spans.clear()
    answer = traced.post(route, json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.status_code == 200
    found = {span.name: span for span in spans.get_finished_spans()}
    assert set(found) == {"score", "tokenize", "queue", "infer"}
    server = found["score"]
    assert (server.kind.name, f"{server.parent.span_id:016x}") == ("SERVER", PARENT)
    assert dict(server.attributes) == {
        "http.request.method": "POST",
        "http.route": route,
        "http.response.status_code": 200,
    }
    for span in found.values():
        assert f"{span.context.trace_id:032x}" == TRACE
        assert span is server or span.parent.span_id == server.context.span_id
        assert span.start_time <= span.end_time
    assert found["queue"].attributes["instructmining.tokens"] > 0
    assert abs(found["queue"].end_time - found["infer"].start_time) < 1e6  # ns


def test_no_text_of_a_user_is_in_a_span(traced: TestClient, spans: Any) -> None:  # noqa: ANN401
    spans.clear()
    traced.post("/v1/score", json={"examples": [ROW, {"secret": "secret"}]})
    traced.post("/secret", json={})
    traced.post("/v1/completions", json={"prompt": ["secret"], "max_tokens": "secret"})
    lines = f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n".encode()
    traced.post("/v1/score", content=lines, headers={"content-type": "application/x-ndjson"})
    found = spans.get_finished_spans()
    assert [span.attributes["http.response.status_code"] for span in found if span.name == "score"][-1] == 200
    assert "secret" not in "".join(span.to_json() for span in found)


def test_probes_and_metrics_have_no_span(traced: TestClient, spans: Any) -> None:  # noqa: ANN401
    spans.clear()
    for path in ("/health", "/health/live", "/metrics"):
        traced.get(path)
    assert spans.get_finished_spans() == ()


def test_without_opentelemetry_there_are_no_spans_and_no_error() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from instructmining_serving.traces import past_span, request_span, span
with request_span("score", {}) as end, span("tokenize", rows=1):
    past_span("queue", 0.0, 1.0)
    end({}, 200)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
