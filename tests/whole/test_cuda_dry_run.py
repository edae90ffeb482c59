"""The CUDA path without a GPU: what onnxruntime's CUDA provider decides over stand-ins of CUDA's libraries.

Placement, copies, kernels, memory and capture are its own decisions; values and times mean nothing. The pretended GPU
is an H200. Missing tools fail these tests; only a platform without the provider skips them.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping

import pytest
from paths import ROOT
from pretended_cuda.dry_run import Found, dry_run
from pretended_cuda.subjects import MAX_LENGTH, PRECISIONS, SUBJECTS, write_graph
from pretended_cuda.table import table, table_of_page, write_table

from benchmarks.gpu.rows import seeded_texts

pytestmark = [
    pytest.mark.cuda_dry,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="onnxruntime's CUDA provider for Linux"
    ),
]

PAGE = ROOT / "docs" / "performance.md"
GRAPHS = [(family, precision) for family in SUBJECTS for precision in PRECISIONS]
FLASH, EFFICIENT = "FLASH_ATTENTION", "EFFICIENT_ATTENTION"
# By family: the attention kernels of its two layers in fp16 (flash has none for a bias, nor any in fp32), and the most
# launches a layer in fp16 and in fp32. T5 has two layers of an encoder and two of a decoder.
KERNELS = dict.fromkeys(SUBJECTS, [FLASH] * 2) | {
    "Gemma 3 embedding, windows": [EFFICIENT, FLASH],
    "MPNet": [EFFICIENT] * 2,
    "ModernBERT, windows": [FLASH, EFFICIENT],
    "DeBERTa reward": [EFFICIENT] * 2,
    "T5 (UniEval)": [EFFICIENT] * 4,
}
MOST_LAUNCHES = {
    "Llama (SmolLM2)": (18, 15),
    "Mistral, window": (18, 16),
    "Qwen2": (19, 16),
    "Qwen3": (25, 17),
    "Gemma": (18, 15),
    "Gemma 2, windows, bounds": (20, 18),
    "Gemma 3, windows": (23, 20),
    "Granite": (18, 15),
    "OLMo 2": (23, 17),
    "SmolLM3": (18, 15),
    "Phi-3": (18, 13),
    "Phi-4-mini": (18, 15),
    "Qwen3 embedding": (21, 17),
    "Gemma 3 embedding, windows": (26, 22),
    "GPT-2": (17, 10),
    "GPT-NeoX reward (Pythia)": (19, 14),
    "BERT (MiniLM)": (15, 12),
    "RoBERTa reward": (15, 12),
    "MPNet": (17, 13),
    "ModernBERT, windows": (20, 16),
    "DeBERTa reward": (30, 24),
    "T5 (UniEval)": (20, 15),
}
# A large vocabulary shows where the logits' memory goes.
WORDS = 49_152
LARGE = "Llama (SmolLM2)"
MIXED = (LARGE, "BERT (MiniLM)", "DeBERTa reward", "T5 (UniEval)")
ROWS = 4096  # a window of the default batching on CUDA
MAX_BATCH_TOKENS = 16_384
ARENA = 2.5  # times what the largest batch needs; the arena grows by powers of two
# Of the logits' bytes in float32: three slices of an eighth, which are logits, the same in float32, and their softmax.
LOGITS = 3 / 8 * 1.05


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, ...], dict[str, object]]:
    folder = tmp_path_factory.mktemp("graphs")
    made: dict[tuple[str, ...], dict[str, object]] = {}
    seeded = seeded_texts(ROWS, words=2000, max_length=MAX_LENGTH)
    texts = [(int(text.scored[0]), len(text.ids)) for text in seeded]
    for number, (family, subject) in enumerate(SUBJECTS.items()):
        for precision in PRECISIONS:
            graphs = [
                str(write_graph(subject, folder / f"{number}-{layers}", layers=layers, precision=precision))
                for layers in (2, 3)
            ]
            made["look", family, precision] = {"kind": "look", "graph": graphs[0], "deeper": graphs[1]}
    mixed = {"kind": "arena", "texts": texts, "max_batch_tokens": MAX_BATCH_TOKENS}
    for family in MIXED:
        made["arena", family] = mixed | {"graph": made["look", family, "fp16"]["graph"]}
    for precision in PRECISIONS:
        graph = write_graph(SUBJECTS[LARGE], folder / "large", layers=2, precision=precision, words=WORDS)
        made["logits", precision] = {"kind": "logits", "graph": str(graph)}
    made["arena", LARGE] = mixed | {"graph": made["logits", "fp16"]["graph"]}
    cpu = write_graph(SUBJECTS[LARGE], folder / "cpu", layers=2, precision="fp32", device="cpu")
    return made | {("place", "of a CPU"): {"kind": "place", "graph": str(cpu)}}


@pytest.fixture(scope="session")
def found(
    tasks: Mapping[tuple[str, ...], dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[str, ...], Found]:
    results = dry_run(tasks.values(), tmp_path_factory.mktemp("dry-run"))
    return dict(zip(tasks, results, strict=True))


@pytest.fixture
def graph(found: Mapping[tuple[str, ...], Found], family: str, precision: str) -> Found:
    looked: Found = found["look", family, precision]
    assert "error" not in looked
    return looked


each_graph = pytest.mark.parametrize(("family", "precision"), GRAPHS)


@each_graph
def test_only_the_arithmetic_of_sizes_is_on_the_cpu_and_nothing_is_copied_within_a_graph(graph: Found) -> None:
    assert [node for node in graph["on_cpu"] if node[1] != "small integers"] == []
    assert graph["memcpy"] == []


def test_attention_that_cuda_does_not_have_would_be_found_on_the_cpu(found: Mapping[tuple[str, ...], Found]) -> None:
    placed = found["place", "of a CPU"]
    assert ["GroupQueryAttention", "unknown"] in placed["on_cpu"]
    assert len(placed["memcpy"]) >= 4


@each_graph
def test_every_layer_has_a_fused_attention_kernel_in_long_and_in_short_rows(
    graph: Found, family: str, precision: str
) -> None:
    wanted = KERNELS[family] if precision == "fp16" else [EFFICIENT] * len(KERNELS[family])
    assert graph["attention"] == wanted
    assert graph["attention_in_short_rows"] == wanted


@each_graph
def test_a_layer_launches_few_kernels(graph: Found, family: str, precision: str) -> None:
    assert sum(graph["layer"].values()) <= MOST_LAUNCHES[family][PRECISIONS.index(precision)], graph["layer"]


@each_graph
def test_a_shape_seen_twice_is_captured_and_then_replayed_and_no_copy_is_captured(graph: Found) -> None:
    assert graph["capture"] == {"captured": [1, 1], "replayed": [["GRAPHLAUNCH"]] * 4, "copies": []}


@pytest.mark.parametrize("family", MIXED)
def test_a_mix_of_batches_takes_little_more_memory_than_its_largest_batch(
    found: Mapping[tuple[str, ...], Found], family: str
) -> None:
    measured = found["arena", family]
    assert "error" not in measured
    assert measured["batches"] >= 40
    assert measured["mixed"] <= ARENA * measured["alone"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_logits_of_a_large_vocabulary_take_an_eighth_of_their_memory(
    found: Mapping[tuple[str, ...], Found], precision: str
) -> None:
    (few, least), (many, most) = found["logits", precision]["bytes"]
    assert most - least <= LOGITS * (many - few) * WORDS * 4


def test_the_table_of_the_page_on_performance_is_what_is_found(found: Mapping[tuple[str, ...], Found]) -> None:
    wanted = table({(family, precision): found["look", family, precision] for family, precision in GRAPHS})
    if os.environ.get("CUDA_DRY_WRITE") == "1":
        write_table(PAGE, wanted)
    assert table_of_page(PAGE) == wanted, "CUDA_DRY_WRITE=1 make cuda-dry writes it"
