from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from placed_nodes import assigned

from instructmining import Bundle
from instructmining.errors import BundleError, DeviceError, DeviceMemoryError
from instructmining.inference import devices
from instructmining.inference import io_binding as binding
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import Device, choose_devices, cuda_problem
from instructmining.inference.placement import Placement
from instructmining.inference.sessions import Acceleration, GraphSession, ProductSession, TopKSession
from instructmining.tokenizing.truncation import Tokens

CPU = Device("cpu", threads=1)


def letters(*lengths: int, scored: bool = True, seed: int = 3) -> list[Tokens]:
    """Texts of random tokens, all but the first of each scored."""
    rng = np.random.default_rng(seed)
    return [
        Tokens(rng.integers(5, 300, size=length), np.arange(1, length if scored else 1, dtype=np.int64))
        for length in lengths
    ]


def one_batch(texts: list[Tokens]) -> Batch:
    (batch,) = batches(texts, max_batch_tokens=100_000)
    return batch


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where CUDA does not work, whatever runs the tests."""
    monkeypatch.setattr(devices, "cuda_problem", lambda _=0: "cannot load libcuda.so.1; install the NVIDIA driver")


# Sessions


@pytest.mark.usefixtures("no_cuda")
def test_a_session_that_opens_elsewhere_than_asked_is_an_error(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda graph, options, **_: original(graph, options, providers=["CPUExecutionProvider"]),
    )
    graph = small_bundle / "perplexity/model.onnx"
    message = r"model\.onnx: opened on CPUExecutionProvider, asked for CUDAExecutionProvider"
    with pytest.raises(DeviceError, match=message):
        GraphSession(graph, Device("cuda"))
    with pytest.raises(DeviceError, match="opened on CPUExecutionProvider, asked for CUDAExecutionProvider"):
        TopKSession(Device("cuda"))


def test_a_device_that_fails_in_the_middle_of_a_run_is_an_error_and_never_another_device(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FailingOnce:
        """onnxruntime's inner session; its provider fails on the first batch."""

        def __init__(self, inner: object) -> None:
            self._inner = inner
            self._failed = False

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def run(self, *arguments: object) -> object:
            if self._failed:
                return self._inner.run(*arguments)  # type: ignore[attr-defined]
            self._failed = True
            raise EPFail("CUDA failure 700: an illegal memory access was encountered")

    original = ort.InferenceSession

    def opened(*arguments: object, **options: object) -> ort.InferenceSession:
        session = original(*arguments, **options)
        session._sess = FailingOnce(session._sess)
        return session

    monkeypatch.setattr(ort, "InferenceSession", opened)
    graph = GraphSession(small_bundle / "perplexity/model.onnx", CPU)
    with pytest.raises(DeviceError, match="CUDA failure 700"):
        graph.run(one_batch(letters(12, 7)), ("nll",))
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("default")
def test_a_session_asked_for_cuda_never_runs_on_the_cpu(small_bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if cuda_problem() is None:
        pytest.skip("CUDA works here")
    with pytest.raises(DeviceError, match="opened on CPUExecutionProvider"):
        GraphSession(small_bundle / "perplexity/model.onnx", Device("cuda"))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_graph_that_cannot_be_loaded_is_a_bundle_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    graph = tmp_path / "model.onnx"
    if content is not None:
        graph.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        GraphSession(graph, CPU)


def test_a_graph_without_its_weights_is_a_bundle_error(small_bundle: Path, tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes((small_bundle / "perplexity/model.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        GraphSession(graph, CPU)


def test_a_batch_that_the_graph_does_not_take_is_a_device_error_with_its_shape(small_bundle: Path) -> None:
    graph = GraphSession(small_bundle / "perplexity/model.onnx", CPU)
    ids = np.full(9, 10_000, dtype=np.int64)  # beyond the words of the model
    batch = one_batch([Tokens(ids, np.arange(1, 9, dtype=np.int64))])
    with pytest.raises(DeviceError, match=r"model\.onnx: failed on a batch of shape \(1, 9\)"):
        graph.run(batch, ("nll",))


def test_outputs_have_one_value_a_scored_token_one_a_row_and_one_vector_a_row(small_bundle: Path) -> None:
    batch = one_batch(letters(12, 7, 3))
    bundle = Bundle.open(small_bundle)
    decoder = GraphSession(bundle.roles["perplexity"].graph, CPU)
    assert decoder.outputs == {"nll", "reward", "best_token", "best_log_probability"}
    values = decoder.run(batch, ("nll", "reward"))
    assert list(values) == ["nll", "reward"]
    assert (values["nll"].shape, values["reward"].shape) == ((11 + 6 + 2,), (3,))
    encoder = GraphSession(bundle.roles["embedding"].graph, CPU)
    assert encoder.outputs == {"embedding"}
    embedding = encoder.run(batch, ("embedding",))["embedding"]
    assert embedding.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    assert {array.dtype for array in (*values.values(), embedding)} == {np.dtype(np.float32)}


def test_no_scored_position_gives_no_nll_and_the_same_reward(small_bundle: Path) -> None:
    graph = GraphSession(small_bundle / "perplexity/model.onnx", CPU)
    batch, unscored = one_batch(letters(12, 7, 3)), one_batch(letters(12, 7, 3, scored=False))
    values = graph.run(unscored, ("nll", "reward"))
    assert values["nll"].shape == (0,)
    np.testing.assert_allclose(values["reward"], graph.run(batch, ("nll", "reward"))["reward"], atol=1e-6)


def test_the_vocabulary_is_given_no_position_where_nll_is_not_asked_for(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[NDArray[np.int64]] = []
    original = ort.InferenceSession.run

    def run(self: ort.InferenceSession, outputs: list[str], feeds: dict[str, NDArray[np.int64]]) -> object:
        given.append(feeds["scored"])
        return original(self, outputs, feeds)

    monkeypatch.setattr(ort.InferenceSession, "run", run)
    graph = GraphSession(small_bundle / "perplexity/model.onnx", CPU)
    assert list(graph.run(one_batch(letters(12, 7)), ("reward",))) == ["reward"]
    assert [scored.shape for scored in given] == [(0, 2)]


# In a process of its own: other tests' threads and heaps are in the figures of this one.
RELEASING = """
import os, sys
from pathlib import Path
import numpy as np
from instructmining.inference.batching import batches
from instructmining.inference.devices import Device
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens

def batch(width, rows):
    texts = [Tokens(np.ones(width, dtype=np.int64), np.arange(1, width, dtype=np.int64))] * rows
    (made,) = batches(texts, max_batch_tokens=width * rows)
    return made

def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

session = GraphSession(Path(sys.argv[1]), Device("cpu", threads=1))
values = session.run(batch(20, 2), ["nll"])["nll"]
before = resident()
session.run(batch(500, 64), ["nll"])
most = resident()
session.release()
after = resident()
print(before, most, after, session.run(batch(20, 2), ["nll"])["nll"].tolist() == values.tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_the_memory_of_a_large_batch_can_be_returned_and_later_values_are_the_same(small_bundle: Path) -> None:
    command = [sys.executable, "-c", RELEASING, str(small_bundle / "perplexity/model.onnx")]
    *figures, same = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    before, most, after = map(int, figures)
    assert most - before > 50 << 20
    assert after - before < (most - before) // 4
    assert same == "True"


def test_a_row_in_a_padded_batch_has_the_values_that_it_has_alone(small_bundle: Path) -> None:
    graph = GraphSession(small_bundle / "perplexity/model.onnx", CPU)
    texts = letters(60, 41, 17, 2)
    batch = one_batch(texts)
    together = graph.run(batch, ("nll", "reward"))
    for row, member in enumerate(batch.members):
        alone = graph.run(one_batch([texts[member]]), ("nll", "reward"))
        np.testing.assert_allclose(together["nll"][batch.scored[:, 0] == row], alone["nll"], atol=1e-4)
        assert together["reward"][row] == pytest.approx(alone["reward"][0], abs=1e-5)


def test_top_k_finds_the_largest_products_of_each_query() -> None:
    points = np.eye(4, dtype=np.float32)
    queries = np.array([[0.1, 0.9, 0.2, 0.0], [0.0, 0.3, 0.2, 0.8]], dtype=np.float32)
    values, indices = TopKSession(CPU)(queries, points, 2)
    assert indices.tolist() == [[1, 2], [3, 1]]
    np.testing.assert_allclose(values, [[0.9, 0.2], [0.8, 0.3]], atol=1e-7)
    assert (values.dtype, indices.dtype) == (np.dtype(np.float32), np.dtype(np.int64))


def test_vectors_that_do_not_fit_are_a_device_error_with_their_shapes() -> None:
    with pytest.raises(DeviceError, match=r"\(2, 4\).*\(3, 5\)"):
        TopKSession(CPU)(np.ones((2, 4), dtype=np.float32), np.ones((3, 5), dtype=np.float32), 1)
    with pytest.raises(DeviceError, match=r"products of \(2, 4\) among \(3, 5\): failed"):
        ProductSession()(np.ones((2, 4), dtype=np.float32), np.ones((3, 5), dtype=np.float32))


# Running out of memory

OUT_OF_MEMORY = [
    "Non-zero status code returned while running MatMul node. Status Message: bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 9",
    "bfc_arena.cc:350 Available memory of 1048576 is smaller than requested bytes of 26353664",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDA failure 2: out of memory ; GPU=0",
    "CUDNN failure 2003: CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
    "bad allocation",
]


class FailingSession:
    """A session that opens, and fails when it runs."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[object]:
        return []

    def get_inputs(self) -> list[object]:
        return []

    get_outputs = get_input_memory_infos = get_inputs

    def run(self, *_: object) -> list[object]:
        raise self._error


@pytest.mark.parametrize("error", [*map(EPFail, OUT_OF_MEMORY), *map(RuntimeError, OUT_OF_MEMORY), MemoryError()])
def test_too_little_memory_for_a_batch_is_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FailingSession(error))
    with pytest.raises(DeviceMemoryError, match=r"model\.onnx: failed on a batch of shape \(2, 12\): cpu .1 threads"):
        GraphSession(Path("model.onnx"), CPU).run(one_batch(letters(12, 7)), ("nll",))
    with pytest.raises(DeviceMemoryError, match=r"neighbours of \(2, 4\) among \(2, 4\)"):
        TopKSession(CPU)(np.ones((2, 4), dtype=np.float32), np.ones((2, 4), dtype=np.float32), 1)


@pytest.mark.parametrize(
    "message", ["CUDA failure 700: an illegal memory access was encountered", "index out of data bounds"]
)
def test_any_other_failure_is_not_taken_for_too_little_memory(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FailingSession(EPFail(message)))
    with pytest.raises(DeviceError) as raised:
        GraphSession(Path("model.onnx"), CPU).run(one_batch(letters(12, 7)), ("nll",))
    assert not isinstance(raised.value, DeviceMemoryError)


def test_weights_that_do_not_fit_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EPFail(OUT_OF_MEMORY[0])

    monkeypatch.setattr(ort, "InferenceSession", fails)
    with pytest.raises(
        DeviceMemoryError, match=r"weights do not fit into the memory of cuda:1: .* smaller --precision"
    ):
        GraphSession(Path("model.onnx"), Device("cuda", 1))


# How sessions are opened


@dataclass
class Opened:
    """What onnxruntime was asked to open."""

    providers: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    options: Any = None
    placed: list[tuple[str, str]] = field(default_factory=list)  # provider and operator of each node


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """onnxruntime opens everything where it was asked for."""
    seen = Opened()

    class Session(FailingSession):
        def __init__(
            self, _: str, options: object, *, providers: list[tuple[str, dict[str, object]]], **__: object
        ) -> None:
            super().__init__(RuntimeError())
            seen.providers, seen.options = providers, options

        def get_providers(self) -> list[str]:
            return [name for name, _ in seen.providers]

        def get_provider_graph_assignment_info(self) -> list[object]:
            return assigned(*seen.placed)

        def io_binding(self) -> None:
            return None

    monkeypatch.setattr(ort, "InferenceSession", Session)
    return seen


GRAPH = Path("model.onnx")


def test_idle_threads_of_a_cpu_session_do_not_spin_and_integer_products_are_exact(opened: Opened) -> None:
    GraphSession(GRAPH, Device("cpu", threads=3), Acceleration(cuda_graphs=True))
    assert opened.providers == [("CPUExecutionProvider", {})]
    assert opened.options.intra_op_num_threads == 3
    assert opened.options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert opened.options.get_session_config_entry("session.x64quantprecision") == "1"


def test_a_cuda_session_grows_by_powers_of_two_within_its_limit_and_without_tf32(opened: Opened) -> None:
    GraphSession(GRAPH, Device("cuda", 2), Acceleration(memory_bytes=1 << 30))
    assert opened.options.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert opened.providers == [
        (
            "CUDAExecutionProvider",
            {"device_id": 2, "arena_extend_strategy": "kNextPowerOfTwo", "use_tf32": 0, "gpu_mem_limit": 1 << 30},
        )
    ]


def test_weights_count_in_the_limit_of_a_graphs_memory(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "model.onnx.data").write_bytes(bytes(1000))
    GraphSession(tmp_path / "model.onnx", GPU, Acceleration(memory_bytes=1500))
    assert opened.providers[0][1]["gpu_mem_limit"] == 500
    with pytest.raises(
        DeviceMemoryError, match=r"model\.onnx: its weights take the whole limit of 0.0 GiB; raise --gpu"
    ):
        GraphSession(tmp_path / "model.onnx", GPU, Acceleration(memory_bytes=1000))


def test_a_cuda_session_proves_where_its_nodes_run(opened: Opened) -> None:
    opened.placed = [("CUDAExecutionProvider", "MatMul"), ("CPUExecutionProvider", "Cast")]
    session = GraphSession(GRAPH, GPU)
    assert opened.options.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
    assert session.placement == Placement(1, {"Cast": 1})
    opened.placed = [("CPUExecutionProvider", "GroupQueryAttention")]
    with pytest.raises(DeviceError, match=r"model\.onnx: opened on cuda:1, but 1 GroupQueryAttention would run on"):
        GraphSession(GRAPH, GPU)
    with pytest.raises(DeviceError, match=r"neighbours\.onnx: opened on cuda:1, but 1 GroupQueryAttention"):
        TopKSession(GPU)
    assert GraphSession(GRAPH, CPU).placement is None  # there is nowhere else to run


def test_products_of_float32_are_rounded_to_tf32_only_where_asked_for(opened: Opened) -> None:
    GraphSession(GRAPH, Device("cuda"), Acceleration(tf32=True))
    assert opened.providers[0][1]["use_tf32"] == 1


def test_cuda_graphs_are_off_until_they_are_asked_for(opened: Opened) -> None:
    GraphSession(GRAPH, Device("cuda"))
    assert "enable_cuda_graph" not in opened.providers[0][1]
    GraphSession(GRAPH, Device("cuda"), Acceleration(cuda_graphs=True))
    assert opened.providers[0][1]["enable_cuda_graph"] == 1


def test_a_graph_that_cannot_be_captured_is_said_when_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EPFail("This session cannot use the graph capture feature as requested by the user")

    monkeypatch.setattr(ort, "InferenceSession", fails)
    with pytest.raises(DeviceError, match=r"cannot be opened for CUDA graphs: .* leave CUDA graphs out"):
        GraphSession(GRAPH, Device("cuda"), Acceleration(cuda_graphs=True))
    with pytest.raises(BundleError, match="onnxruntime cannot load it"):
        GraphSession(GRAPH, Device("cuda"))


# CUDA, played by the CPU: the same graph, bound in the same way, on the host's memory


@dataclass
class Played:
    """What the binding asked of onnxruntime."""

    run_options: list[dict[str, str]] = field(default_factory=list)
    made: int = 0  # tensors on the device
    on_host: tuple[str, ...] = ()  # inputs that the graph reads on the CPU
    fail: str = ""  # the next run fails so


@pytest.fixture
def plain(small_bundle: Path) -> GraphSession:
    """The graph on the CPU, opened before anything is played."""
    return GraphSession(small_bundle / "perplexity/model.onnx", CPU)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch, plain: GraphSession) -> Played:  # noqa: ARG001 - for its order
    """The device is the host; what is recorded as a CUDA graph runs as ever, at the same addresses."""
    seen = Played()
    copy = ort.OrtValue.ortvalue_from_numpy
    make, opening = ort.OrtValue.ortvalue_from_shape_and_type, ort.InferenceSession

    class Binding(ort.IOBinding):
        def bind_output(self, name: str, device_type: str = "cpu", device_id: int = 0, *_: object) -> None:
            assert (device_type, device_id) == ("cuda", 1)
            super().bind_output(name, "cpu", 0)

    class Session(opening):  # type: ignore[misc, valid-type]
        def __init__(self, graph: str, options: object, **_: object) -> None:
            super().__init__(graph, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self) -> list[object]:
            return []

        def get_input_memory_infos(self) -> list[object]:
            names = [value.name for value in self.get_inputs()]
            return [SimpleNamespace(name="Cpu" if name in seen.on_host else "Cuda") for name in names]

        def io_binding(self) -> Binding:
            return Binding(self)

        def run(self, *_: object) -> None:
            raise AssertionError("a CUDA session runs with its inputs and outputs bound")

        def run_with_iobinding(self, binding: Binding, options: ort.RunOptions) -> None:
            entries = ("gpu_graph_id", "memory.enable_memory_arena_shrinkage")
            seen.run_options.append({name: value for name in entries if (value := _entry(options, name))})
            if seen.fail:
                message, seen.fail = seen.fail, ""
                raise EPFail(message)
            super().run_with_iobinding(binding, ort.RunOptions())

    def on_device(shape: list[int], kind: type, device_type: str, device_id: int) -> ort.OrtValue:
        assert (device_type, device_id) == ("cuda", 1)
        seen.made += 1
        return make(shape, kind, "cpu", 0)

    def copied(array: NDArray[Any], device_type: str = "cpu", device_id: int = 0) -> ort.OrtValue:
        assert (device_type, device_id) in {("cpu", 0), ("cuda", 1)}
        seen.made += device_type == "cuda"
        return copy(array.copy(), "cpu", 0)  # a value of the CPU shares the array's memory

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(
        ort,
        "OrtValue",
        type(
            "OrtValue",
            (),
            {"ortvalue_from_shape_and_type": staticmethod(on_device), "ortvalue_from_numpy": staticmethod(copied)},
        ),
    )
    return seen


def _entry(options: ort.RunOptions, name: str) -> str:
    try:
        return str(options.get_run_config_entry(name))
    except RuntimeError:
        return ""


GPU = Device("cuda", 1)
ASKED = (("nll", "reward"), ("reward",), ("nll",))


def assert_equal_values(session: GraphSession, plain: GraphSession) -> None:
    """Over batches whose shapes change and come again, with other tokens each time."""
    for number, lengths in enumerate([(12, 7, 3), (12, 7, 3), (20, 4), (12, 9, 9), (20, 4), (1, 1), (12, 7, 3)]):
        batch = one_batch(letters(*lengths, seed=number))
        for outputs in ASKED:
            found, wanted = session.run(batch, outputs), plain.run(batch, outputs)
            for name in outputs:
                np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-6, err_msg=f"{lengths} {name}")


def test_bound_inputs_and_outputs_give_the_values_of_a_plain_run_whatever_the_shapes(
    small_bundle: Path, plain: GraphSession, played: Played
) -> None:
    assert_equal_values(GraphSession(small_bundle / "perplexity/model.onnx", GPU), plain)
    assert not any(played.run_options)


def test_inputs_of_the_same_shapes_go_into_the_same_buffers(small_bundle: Path, played: Played) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU)
    session.run(one_batch(letters(12, 7, 3)), ("nll", "reward"))
    assert played.made == 3
    session.run(one_batch(letters(12, 7, 3, seed=8)), ("nll", "reward"))
    assert played.made == 3
    session.run(one_batch(letters(12, 8, 3)), ("nll", "reward"))  # one scored position more
    assert played.made == 4


def test_an_input_that_the_graph_reads_on_the_host_is_not_copied_to_the_device(
    small_bundle: Path, plain: GraphSession, played: Played
) -> None:
    played.on_host = ("position_ids",)
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU)
    session.run(one_batch(letters(12, 7, 3)), ("nll", "reward"))
    assert played.made == 2
    assert_equal_values(session, plain)


def test_buffers_of_shapes_that_do_not_come_again_are_let_go(
    small_bundle: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "_BUFFERS", 4)
    session = GraphSession(small_bundle / "embedding/model.onnx", GPU)
    for length in (5, 6, 5, 7, 5):
        session.run(one_batch(letters(length)), ("embedding",))
    assert played.made == 6
    session.run(one_batch(letters(6)), ("embedding",))  # used least lately: made anew
    assert played.made == 8


def test_memory_is_given_back_after_the_run_that_follows_one_that_had_too_little(
    small_bundle: Path, plain: GraphSession, played: Played
) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU)
    batch = one_batch(letters(12, 7, 3))
    session.run(batch, ("reward",))
    played.fail = OUT_OF_MEMORY[0]
    with pytest.raises(DeviceMemoryError, match="cuda:1 has too little memory"):
        session.run(batch, ("reward",))
    for _ in range(2):
        np.testing.assert_allclose(session.run(batch, ("reward",))["reward"], plain.run(batch, ("reward",))["reward"])
    assert played.run_options == [{}, {}, {"memory.enable_memory_arena_shrinkage": "gpu:1"}, {}]


def test_points_that_come_again_are_on_the_device_for_as_long_as_they_exist(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(4)
    queries, points = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (3, 20))
    blocks, others, search = [points[:10], points[10:]], points[::-1].copy(), TopKSession(GPU)
    monkeypatch.setattr(binding, "_KEPT_BYTES", queries.nbytes + points.nbytes)

    def copies_after(block: NDArray[np.float32]) -> int:
        products, _ = search(queries, block, 2)
        np.testing.assert_allclose(products, -np.sort(-queries @ block.T, axis=1)[:, :2], atol=1e-5)
        return played.made

    assert [copies_after(blocks[number]) for number in (0, 0, 1, 0, 1)] == [2, 2, 3, 3, 3]
    assert [copies_after(others) for _ in range(2)] == [4, 5]  # there is no room for it
    blocks.clear()
    assert [copies_after(others) for _ in range(2)] == [6, 6]


# CUDA graphs

CAPTURING = Acceleration(cuda_graphs=True)


def test_captured_graphs_give_the_values_of_a_plain_run(
    small_bundle: Path, plain: GraphSession, played: Played
) -> None:
    assert_equal_values(GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING), plain)
    assert {options["gpu_graph_id"] for options in played.run_options} > {"-1", "1", "2"}


def test_shapes_are_captured_when_they_come_a_second_time_and_replayed_from_the_same_addresses(
    small_bundle: Path, played: Played
) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING)
    made = []
    for seed, lengths in enumerate([(12, 7), (12, 7), (30, 7), (12, 7), (12, 9), (30, 7), (30, 7)]):
        session.run(one_batch(letters(*lengths, seed=seed)), ("nll",))  # 11 + 6 to 29 + 6 positions: all padded to 64
        made.append(played.made)
    assert [options["gpu_graph_id"] for options in played.run_options] == ["-1", "1", "-1", "1", "1", "2", "2"]
    # Four inputs at first; a captured graph has its own, and its output.
    assert made == [4, 9, 11, 11, 11, 16, 16]


def test_no_more_graphs_are_captured_than_there_is_room_for(
    small_bundle: Path, plain: GraphSession, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binding, "_CAPTURED", 1)
    assert_equal_values(GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING), plain)
    assert {options["gpu_graph_id"] for options in played.run_options} == {"-1", "1"}


def test_an_input_without_elements_is_never_captured(small_bundle: Path, played: Played) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING)
    for _ in range(3):
        session.run(one_batch(letters(12, 7)), ("reward",))  # no scored position
    assert [options["gpu_graph_id"] for options in played.run_options] == ["-1"] * 3


def test_where_graphs_are_captured_no_memory_is_given_back(small_bundle: Path, played: Played) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING)
    played.fail = OUT_OF_MEMORY[0]
    with pytest.raises(DeviceMemoryError):
        session.run(one_batch(letters(12, 7)), ("nll",))
    session.run(one_batch(letters(12, 7)), ("nll",))
    assert played.run_options == [{"gpu_graph_id": "-1"}] * 2


def test_a_run_that_fails_with_cuda_graphs_on_says_so(small_bundle: Path, played: Played) -> None:
    session = GraphSession(small_bundle / "perplexity/model.onnx", GPU, CAPTURING)
    played.fail = "CUDA failure 900: operation not permitted when stream is capturing"
    with pytest.raises(DeviceError, match="stream is capturing; CUDA graphs are on, try without"):
        session.run(one_batch(letters(12, 7)), ("nll",))


@pytest.mark.gpu
def test_cuda_gives_the_values_of_the_cpu(small_bundle: Path) -> None:
    (cuda,) = choose_devices("cuda")
    bundle = Bundle.open(small_bundle)
    batch = one_batch(letters(60, 41, 17, 2))
    for role, outputs in (("perplexity", ("nll", "reward")), ("embedding", ("embedding",))):
        graph = bundle.roles[role].graph
        wanted = GraphSession(graph, CPU).run(batch, outputs)
        found = GraphSession(graph, cuda).run(batch, outputs)
        for name in outputs:
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-3)
    points = wanted["embedding"]
    np.testing.assert_allclose(
        TopKSession(cuda)(points, points, 3)[0], TopKSession(CPU)(points, points, 3)[0], atol=1e-3
    )
