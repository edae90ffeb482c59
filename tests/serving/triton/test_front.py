from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pretended_triton import PretendedTriton

from instructmining import Scorer
from instructmining.errors import BundleError
from instructmining_serving.triton.front import Front

ROWS = [
    {"instruction": "Name a colour.", "output": "Green is a colour."},
    {"prompt": "Count.", "response": "one two three four five " * 8},
    {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello there."}]},
]
TWO = [{"instruction": f"Count to {n}.", "output": "one two three " * n} for n in (1, 30)]


def encoded(*rows: object) -> list[bytes]:
    return [json.dumps(row).encode() for row in rows]


def test_requests_of_one_call_share_batches_and_get_the_numbers_of_score(
    server: PretendedTriton, scorer: Scorer
) -> None:
    columns = [*scorer.columns, "RESULT"]
    given = [*([row] for row in ROWS), TWO, ROWS]
    responses = server.model.execute([server.request(encoded(*rows), *columns) for rows in given])
    for rows, response in zip(given, responses, strict=True):
        assert not response.has_error()
        found = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        assert set(found) == set(columns)
        for number, row in enumerate(rows):
            (wanted,) = scorer.score([row])
            result = json.loads(found["RESULT"][number, 0])
            assert result["columns"] == pytest.approx(wanted.columns, rel=1e-5, abs=1e-5)
            for column, value in wanted.columns.items():
                assert found[column].shape == (len(rows), 1)
                assert found[column].dtype == np.float64
                assert found[column][number, 0] == pytest.approx(
                    math.nan if value is None else value, rel=1e-5, nan_ok=True
                )
    assert {asked.model for asked in server.asked} == {"instructmining_reward"}
    assert len(server.asked) < 2 * sum(map(len, given))
    assert max(len(asked.inputs["input_ids"]) for asked in server.asked) > 1
    assert all(asked.inputs["input_ids"].size <= 512 for asked in server.asked)


def test_only_outputs_that_were_asked_for_are_given(server: PretendedTriton) -> None:
    (response,) = server.model.execute([server.request(encoded(ROWS[0]), "reward")])
    assert [tensor.name() for tensor in response.output_tensors()] == ["reward"]


def test_a_bad_row_is_the_error_of_its_request_alone(server: PretendedTriton) -> None:
    bad = [
        encoded(ROWS[0], {"instruction": "Go.", "output": ""}),
        [b"{"],
        [b"[1]"],
        encoded({"colour": "green"}),
        [b"\xff"],
        encoded({"instruction": "Go.", "output": 3}),
    ]
    responses = server.model.execute(
        [server.request(rows, "reward") for rows in [encoded(ROWS[0]), *bad, encoded(ROWS[1])]]
    )
    assert [response.has_error() for response in responses] == [False, *[True] * len(bad), False]
    errors = [response.error() for response in responses[1:-1]]
    assert {error.code() for error in errors} == {server.module.TritonError.INVALID_ARG}
    said = [error.message() for error in errors]
    assert said[0] == "row 1: the response is empty"
    assert said[1].startswith("EXAMPLE, element 0: is not JSON")
    assert said[2] == "row 0: found a list, wanted an object"
    assert "no known format" in said[3]
    assert "is not JSON" in said[4]


def test_a_model_that_fails_fails_the_requests_that_need_it(server: PretendedTriton) -> None:
    server.failing.add("instructmining_reward")
    (response,) = server.model.execute([server.request(encoded(ROWS[0]), "reward")])
    assert response.error().code() == server.module.TritonError.INTERNAL
    assert response.error().message().startswith("instructmining_reward: failed on a batch of shape (1, ")
    assert response.error().message().endswith(": no memory")


def test_the_front_opens_no_graph_and_needs_no_web_server(repository: Path) -> None:
    code = (
        "import sys, types, onnxruntime; onnxruntime.InferenceSession = None\n"
        "from pathlib import Path\nfrom instructmining_serving.triton.front import Front\n"
        "Front.of({'model_repository': sys.argv[1], 'model_version': '1'}, types.ModuleType('backend'))\n"
        "print(*sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(repository / "instructmining")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "fastapi", "starlette", "uvicorn"} & set(done.stdout.splitlines())


def test_a_repository_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"columns": []}')
    with pytest.raises(BundleError, match="no settings of this version"):
        Front(tmp_path, object())
