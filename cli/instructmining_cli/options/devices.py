"""Options for the device that graphs run on, and for how they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from instructmining_cli.options.checks import a_count, a_size, known_device

if TYPE_CHECKING:
    from instructmining.inference.sessions import Acceleration

DeviceName: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=known_device,
        help="auto, cpu, cuda, cuda:N or cuda:0,1. auto uses CUDA only if a session runs there.",
    ),
]
BatchesAtOnce: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=a_count,
        help="Batches in parallel on a CPU; by default one per thread, at most 8. 1 is the fastest for a single row.",
    ),
]
MaxBatchTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=a_count,
        help="Padded tokens of a batch; by default measured once on a long input and cached by bundle and device.",
    ),
]
CudaGraphs: TypeAlias = Annotated[
    bool, typer.Option("--cuda-graphs", help="Replay the kernels of batches whose shapes repeat; CUDA, one device.")
]
GpuMemory: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--gpu-memory",
        metavar="GIB",
        min=0.1,
        callback=a_size,
        help="Most memory that one graph may use on a CUDA device.",
    ),
]


def acceleration(*, cuda_graphs: bool, gpu_memory: float | None) -> Acceleration:
    """Return the options as the engine takes them."""
    from instructmining.inference.sessions import Acceleration

    memory_bytes = None if gpu_memory is None else int(gpu_memory * 2**30)
    return Acceleration(cuda_graphs=cuda_graphs, memory_bytes=memory_bytes)
