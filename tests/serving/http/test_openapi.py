from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from served import client_of, listening
from starlette.testclient import TestClient

from instructmining.rules import Rule
from instructmining_serving.http.access import OPEN
from instructmining_serving.http.app import HttpOptions

RULE = Rule("test", 1.0, {"perplexity": 1e-6})
BODIES = {"400", "408", "413", "415", "429", "503", "504"}


def operations(said: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, each) for path, methods in said["paths"].items() for method, each in methods.items()]


def test_every_route_names_its_errors_and_the_token_it_needs(small_bundle: Path, client: TestClient) -> None:
    for guarded in client_of(small_bundle, http=HttpOptions(token="secret"), indicators="mtld"):
        said = guarded.get("/openapi.json", headers={"authorization": "Bearer secret"}).json()
        assert said["components"] == {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}}
        assert said["security"] == [{"bearer": []}]
        for path, method, operation in operations(said):
            answers = operation["responses"]
            assert answers.keys() >= BODIES or method == "get", path
            assert operation["security"] == ([] if path in OPEN else [{"bearer": []}]), path
            assert ("401" in answers) == (path not in OPEN), path
            assert all("application/json" in answers[status]["content"] for status in answers if status != "200")
    open_to_all = client.get("/openapi.json").json()
    assert "security" not in open_to_all
    assert "components" not in open_to_all or not open_to_all["components"].get("securitySchemes")
    assert all("401" not in operation["responses"] for _, _, operation in operations(open_to_all))


def test_a_wrong_method_is_answered_with_the_right_ones(client: TestClient) -> None:
    for method, path, allowed in (("GET", "/v2/rerank", "POST"), ("POST", "/v2/health/live", "GET")):
        answer = client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert client.get("/v2/repository/index").json() == {"error": "there is no such route; /docs has all"}


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, "secret"])
def test_no_request_that_the_description_allows_or_forbids_is_a_server_error(
    small_bundle: Path, tmp_path: Path, token: str | None
) -> None:
    pytest.importorskip("schemathesis")
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"prompt": "a", "response": "b"}\n' * 10, encoding="utf-8")
    http = HttpOptions(token=token, tokenizer_info=True)
    columns: dict[str, Any] = {"rule": RULE, "indicators": "perplexity,reward,knn_6", "knn_against": str(pool)}
    with listening(small_bundle, http=http, **columns) as served:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        said = httpx2.get(f"{served.url}/openapi.json", headers=headers).json()
        # Every text is lines that are answered, so there is nothing that a schema could call wrong.
        del said["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/x-ndjson"]
        description = tmp_path / "openapi.json"
        description.write_text(json.dumps(said), encoding="utf-8")
        found = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", str(description), "--url", served.url]
            + ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]  # a schema cannot say what a row is
            + ["--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--max-examples", "15"]
            + ["--seed", "1", "--request-timeout", "30", "--continue-on-failure", "--no-color"]
            + [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert found.returncode == 0, found.stdout[-20_000:]
