from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from paths import EXAMPLES


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def distances(found: list[dict[str, object]], column: str) -> list[float]:
    return [float(str(row[column])) for row in found]


def test_the_run_file_says_how_it_was_run(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    arguments = (
        "--bundle",
        small_bundle,
        "--device",
        "cpu",
        "--max-batch-tokens",
        77,
        "--indicators",
        "perplexity,knn_6",
    )
    assert run("score", EXAMPLES / "alpaca.json", "-o", out, *arguments) == 0
    said = json.loads(Path(f"{out}.run.json").read_bytes())
    assert said["settings"]["max_batch_tokens"] == {"perplexity": 77, "embedding": 77}
    assert said["settings"]["window_rows"] == 512
    assert said["settings"]["knn"]["search"] == "exact"
    assert said["settings"]["knn"]["approximation"] is None
    assert said["settings"]["budget_from"] == "given"
    assert said["settings"]["indicators"] == "perplexity,knn_6"
    assert said["batches"] > 2
    assert said["batches_split_for_memory"] == 0
    assert said["nodes"] == {}  # of graphs on a GPU
    assert 0 <= said["padding_share"] < 1
    (share,) = said["device_busy_share"].values()
    assert 0 < share <= 1


def test_neighbours_are_what_the_options_say_and_the_run_file_says_so(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    texts = ["Green.", "Green!", "Blue and red.", "A train leaves at noon.", "The ferry sails at three."]
    rows = write_rows(
        *({"instruction": f"Say {text}", "output": text, "source": "ab"[at % 2]} for at, text in enumerate(texts))
    )

    def score(*options: str | Path) -> tuple[list[dict[str, object]], dict[str, object]]:
        out = tmp_path / "out.jsonl"
        arguments = ("score", rows, "-o", out, "--bundle", small_bundle, "--indicators", "knn_1", "--overwrite")
        assert run(*arguments, *options) == 0
        settings = json.loads(Path(f"{out}.run.json").read_bytes())["settings"]
        return lines(out), settings["knn"]

    whole, _ = score()
    cosine, said = score("--knn-metric", "cosine")
    assert said["metric"] == "cosine"
    for one, other in zip(distances(whole, "knn_1"), distances(cosine, "knn_1"), strict=True):
        assert other == pytest.approx(one**2 / 2, abs=1e-7)
    parts, said = score("--pool", "source")
    assert said["pool"] == "rows that are equal in 'source'"
    assert all(part >= one for part, one in zip(distances(parts, "knn_1"), distances(whole, "knn_1"), strict=True))
    assert distances(parts, "knn_1") != distances(whole, "knn_1")
    response, said = score("--knn-text", "response")
    assert "assistant's turns" in str(said["text"])
    assert distances(response, "knn_1") != distances(whole, "knn_1")
    against, said = score("--knn-against", rows)
    assert said["pool"] == "the 5 rows of another file"
    assert distances(against, "knn_1") == [0.0] * 5
    others = tmp_path / "others"
    others.mkdir()
    table = "".join(f"Say {text};{text}\n" for text in texts)
    (others / "a.csv").write_text(f"instruction;output\n{table}", encoding="utf-8")
    assert score("--knn-against", others, "--delimiter", ";")[0] == against


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra [knn] is not installed")
def test_an_approximate_search_is_recorded_with_its_recall(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    arguments = ("--bundle", small_bundle, "--device", "cpu", "--knn", "approx", "--indicators", "knn_6")
    assert run("score", EXAMPLES / "alpaca.json", "-o", out, *arguments) == 0
    said = json.loads(Path(f"{out}.run.json").read_bytes())
    assert said["settings"]["knn"]["search"] == "approx"
    assert said["settings"]["knn"]["approximation"]["recall"] == 1.0  # eight rows
    assert said["settings"]["knn"]["approximation"]["library"].startswith("faiss")
