from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from instructmining import Bundle, sessions
from instructmining.batches import batches
from instructmining.errors import BundleError, DeviceError
from instructmining.records import Batch, Tokens
from instructmining.sessions import (
    Device,
    GraphSession,
    TopKSession,
    choose_device,
    choose_device_for,
    cpu_threads,
    cuda_problem,
)

CPU = Device("cpu", threads=1)


def letters(*lengths: int, scored: bool = True) -> list[Tokens]:
    """Texts of random tokens, all but the first of each scored."""
    rng = np.random.default_rng(3)
    return [
        Tokens(rng.integers(5, 300, size=length), np.arange(1, length if scored else 1, dtype=np.int64))
        for length in lengths
    ]


def one_batch(texts: list[Tokens]) -> Batch:
    (batch,) = batches(texts, budget_tokens=100_000)
    return batch


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where CUDA does not work, whatever runs the tests."""
    monkeypatch.setattr(sessions, "cuda_problem", lambda _=0: "cannot load libcuda.so.1; install the NVIDIA driver")


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    """The probe of CUDA runs anew, and what it found here is forgotten."""
    cuda_problem.cache_clear()
    yield
    cuda_problem.cache_clear()


# The choice of a device


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("asked", ["cpu", "auto"])
def test_without_cuda_cpu_and_auto_are_the_cpu_with_all_its_threads(asked: str) -> None:
    device = choose_device(asked)
    assert device == Device("cpu", threads=cpu_threads())
    assert str(device) == f"cpu ({cpu_threads()} threads)"


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "cuda:1"])
def test_cuda_asked_for_where_it_does_not_work_is_an_error_that_names_what_is_missing(asked: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"device '{asked}' does not work here: cannot load libcuda\.so\.1; install the NVIDIA"
    ):
        choose_device(asked)


@pytest.mark.parametrize("asked", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "cpu:0", "auto:1", "cuda:0 "])
def test_a_device_that_does_not_exist_is_an_error_that_lists_those_that_do(asked: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{asked}'; wanted auto, cpu, cuda or cuda:N"):
        choose_device(asked)


@pytest.mark.parametrize(("asked", "index"), [("auto", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:12", 12)])
def test_where_cuda_works_it_is_taken_and_the_device_that_was_asked_for_is_proved(
    monkeypatch: pytest.MonkeyPatch, asked: str, index: int
) -> None:
    proved: list[int] = []
    monkeypatch.setattr(sessions, "cuda_problem", lambda index=0: proved.append(index))
    device = choose_device(asked)
    assert (device.kind, device.index) == ("cuda", index)
    assert str(device) == f"cuda:{index}"
    assert proved == [index]


def test_cpu_asked_for_never_looks_at_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(index: int = 0) -> NoReturn:
        raise AssertionError(index)

    monkeypatch.setattr(sessions, "cuda_problem", looked)
    assert choose_device("cpu").kind == "cpu"


# What keeps CUDA from working


@pytest.mark.usefixtures("fresh_probe")
def test_int8_graphs_run_on_the_cpu_and_nowhere_else(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructmining.sessions.cuda_problem", lambda _index=0: None)  # as if CUDA worked
    roles = Bundle.open(small_bundle).roles
    full, half, integers = (replace(roles["perplexity"], precision=name) for name in ("fp32", "fp16", "int8"))
    assert choose_device_for([full], "auto").kind == "cuda"
    assert choose_device_for([half], "cuda:1").kind == "cuda"
    for asked in ("auto", "cpu"):
        assert choose_device_for([full, integers], asked).kind == "cpu"
    with pytest.raises(DeviceError, match="role 'perplexity' is int8, which runs on the CPU only; give --device cpu"):
        choose_device_for([full, integers], "cuda")


def test_an_onnxruntime_without_cuda_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert "is built without CUDA; install onnxruntime-gpu in place of onnxruntime" in str(cuda_problem())


@pytest.fixture
def cuda_build(fresh_probe: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - for its order
    """An onnxruntime that is built for CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)


POSIX = pytest.mark.skipif(os.name != "posix", reason="libraries are looked for by name on POSIX alone")


def lacking(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    def load(library: str) -> None:
        if library in missing:
            raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setattr(sessions.ctypes, "CDLL", load)


@POSIX
@pytest.mark.usefixtures("cuda_build")
def test_a_missing_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "libcuda.so.1")
    assert cuda_problem() == "cannot load libcuda.so.1; install the NVIDIA driver"


@POSIX
@pytest.mark.usefixtures("cuda_build")
def test_missing_libraries_are_all_named_with_the_extra_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "libcudnn.so.9", "libcublasLt.so.13")
    problem = cuda_problem()
    assert problem == "cannot load libcublasLt.so.13, libcudnn.so.9; pip install 'instructmining[cuda]'"


class FakeSession:
    """A session as onnxruntime gives it: where it opened may not be where it was asked for."""

    def __init__(self, providers: list[str], failure: str = "") -> None:
        self._providers = providers
        self._failure = failure

    def get_providers(self) -> list[str]:
        return self._providers

    def run(self, outputs: object, feeds: object) -> list[object]:  # noqa: ARG002 - onnxruntime's signature
        if self._failure:
            raise RuntimeError(self._failure)
        return []


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_opened_on_the_cpu_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: FakeSession(["CPUExecutionProvider"]))
    assert "opened the session on the CPU instead" in str(cuda_problem())


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    opened = FakeSession(["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDA failure 35: driver too old")
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: opened)
    assert cuda_problem() == "CUDA failure 35: driver too old"


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_runs_on_cuda_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch)
    indices: list[int] = []

    def opened(_: str, *, providers: list[tuple[str, dict[str, int]]], **__: object) -> FakeSession:
        indices.append(providers[0][1]["device_id"])
        return FakeSession([providers[0][0], "CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", opened)
    assert cuda_problem(1) is None
    assert indices == [1]


@pytest.mark.usefixtures("cuda_build")
def test_what_onnxruntime_prints_while_it_loads_stays_off_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch, "libcudnn.so.9")
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcudnn"), raising=False)  # noqa: T201
    assert cuda_problem() is not None
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Failed to load libcudnn" in captured.err


@pytest.mark.usefixtures("cuda_build")
def test_a_probe_that_cannot_be_opened_is_a_problem_and_keeps_standard_output_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch)

    def fails(self: ort.InferenceSession, *_: object) -> NoReturn:  # noqa: ARG001 - a method
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fails)
    assert cuda_problem() == "CUDA failure 100: no CUDA-capable device is detected"
    assert capsys.readouterr().out == ""


# Threads


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
        ("nonsense", 8),
    ],
)
def test_the_threads_are_the_cpus_within_the_containers_quota(
    monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert cpu_threads() == threads


def test_without_a_quota_the_threads_are_the_cpus_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_threads() == 3


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
    assert decoder.outputs == {"nll", "reward"}
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


@pytest.mark.gpu
def test_cuda_gives_the_values_of_the_cpu(small_bundle: Path) -> None:
    cuda = choose_device("cuda")
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
