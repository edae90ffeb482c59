"""The memory that an export takes, step by step, beside the checkpoint's size in float32.

``python benchmarks/export/memory.py --layers 22 --hidden 2048 --inner 5632 --heads 32 --key-value-heads 4`` is a model
of 1.1 billion parameters; the default has 0.3. A Llama of random weights is written shard by shard, exported in a
process of its own, and that process is looked at every few milliseconds. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

INTERVAL_S = 0.005
MB = 1e6
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class Step:
    """What the exporter said it does, and what the process held meanwhile; bytes."""

    name: str
    begin_s: float
    seconds: float = 0.0
    held: int = 0  # private when it began: what steps before left behind
    peak: int = 0  # resident
    private: int = 0  # of the peak; the rest are pages of files, which the system can take back


def main() -> None:
    asked = _arguments()
    with tempfile.TemporaryDirectory(dir=asked.folder) as temporary:
        folder = Path(temporary) / "checkpoint"
        parameters = write_llama(folder, asked)
        command = [sys.executable, __file__, "--child", str(folder), str(Path(temporary) / "bundle")]
        settings = [asked.precision, str(asked.max_length)]
        child = subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True)
        steps, told_peak = _watch(child)
        if child.wait():
            raise SystemExit(f"the export ended with code {child.returncode}")
    _print(asked, parameters, steps, told_peak)


def write_llama(folder: Path, asked: argparse.Namespace) -> int:
    """A checkpoint in shards, one a layer, so that no more than a layer is in memory; returns its parameters."""
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": asked.hidden,
        "intermediate_size": asked.inner,
        "num_hidden_layers": asked.layers,
        "num_attention_heads": asked.heads,
        "num_key_value_heads": asked.key_value_heads,
        "vocab_size": asked.words,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": asked.type,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _tokenizer().save(str(folder / "tokenizer.json"))
    generator = torch.Generator().manual_seed(5)
    where, parameters = {}, 0
    for number, shapes in enumerate(_shards(asked)):
        file = f"model-{number:05}.safetensors"
        tensors = {name: _random(shape, generator).to(TYPES[asked.type]) for name, shape in shapes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, file))
        parameters += sum(tensor.numel() for tensor in tensors.values())
    index = {"metadata": {"total_size": parameters * TYPES[asked.type].itemsize}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return parameters


def _shards(asked: argparse.Namespace) -> Iterator[dict[str, tuple[int, ...]]]:
    hidden, inner = asked.hidden, asked.inner
    narrow = hidden // asked.heads * asked.key_value_heads
    yield {"model.embed_tokens.weight": (asked.words, hidden)}
    for layer in range(asked.layers):
        shapes: dict[str, tuple[int, ...]] = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        yield {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    yield {"model.norm.weight": (hidden,)}
    yield {"lm_head.weight": (asked.words, hidden)}


def _random(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    return 1 + 0.1 * values if len(shape) == 1 else values.mul_(0.02)


def _tokenizer() -> Tokenizer:
    """Every byte a token, so that any text has tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _watch(child: subprocess.Popen[str]) -> tuple[list[Step], int]:
    """Steps of the child as it says them, with the memory seen in each, and the peak that the kernel kept, in bytes."""
    assert child.stdout is not None  # it was asked for
    steps = [Step("starting", time.monotonic())]
    lines = child.stdout
    told: list[int] = []

    def listen() -> None:
        for line in lines:
            event = json.loads(line)
            now = time.monotonic()
            steps[-1].seconds = now - steps[-1].begin_s
            if "peak" in event:
                told.append(event["peak"])
            else:
                steps.append(Step(event["step"], now, held=_memory(child.pid)[1]))

    listener = threading.Thread(target=listen)
    listener.start()
    while child.poll() is None:
        resident, private = _memory(child.pid)
        step = steps[-1]
        if resident > step.peak:
            step.peak, step.private = resident, private
        time.sleep(INTERVAL_S)
    listener.join()
    return steps, max(told, default=0)


def _memory(pid: int) -> tuple[int, int]:
    """Resident and private bytes of a process; zeros when it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    return _field(text, "VmRSS"), _field(text, "RssAnon")


def _field(status: str, name: str) -> int:
    values = [line.split()[1] for line in status.splitlines() if line.startswith(name + ":")]
    return int(values[0]) * 1024 if values else 0


def _print(asked: argparse.Namespace, parameters: int, steps: list[Step], told_peak: int) -> None:
    fp32 = 4 * parameters
    print(
        f"Llama of {asked.layers} layers, hidden {asked.hidden}, {asked.words} words, stored in {asked.type}, "
        f"exported in {asked.precision} with --max-length {asked.max_length}; "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.2f}\n"
    )
    base = max(step.private for step in steps[:2])  # before the export began
    print("| step | seconds | private at begin, MB | peak RSS | of it private | over libraries, of fp32 size |")
    print("|---|--:|--:|--:|--:|--:|")
    for step in steps:
        name = step.name if len(step.name) <= 60 else step.name[:57] + "…"
        over = (step.private - base) / fp32
        print(
            f"| {name} | {step.seconds:.1f} | {step.held / MB:.0f} | {step.peak / MB:.0f} | {step.private / MB:.0f} "
            f"| {over:.2f} |"
        )
    libraries = max(step.peak for step in steps[:2])
    peak = max(told_peak, *(step.peak for step in steps))
    total = sum(step.seconds for step in steps)
    print("\n| parameters, M | fp32 size, MB | precision | peak RSS, MB | ratio | over the libraries' | seconds |")
    print("|--:|--:|---|--:|--:|--:|--:|")
    print(
        f"| {parameters / 1e6:.0f} | {fp32 / MB:.0f} | {asked.precision} | {peak / MB:.0f} | {peak / fp32:.2f} "
        f"| {(peak - libraries) / fp32:.2f} | {total:.0f} |"
    )


def _child(folder: str, bundle: str, precision: str, max_length: str) -> None:
    """The export itself; says its steps on standard output."""
    import transformers  # noqa: PLC0415

    from instructmining_export.exporting import export_bundle  # noqa: PLC0415 - only the child's memory is measured
    from instructmining_export.roles import Settings  # noqa: PLC0415

    def report(step: str) -> None:
        print(json.dumps({"step": step}), flush=True)

    transformers.utils.logging.disable_progress_bar()
    report("libraries are loaded")
    export_bundle(bundle, {"perplexity": folder}, settings=Settings(precision, int(max_length), report))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(json.dumps({"peak": _field(status, "VmHWM")}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {
        "layers": 16,
        "hidden": 1024,
        "inner": 4096,
        "heads": 16,
        "key-value-heads": 16,
        "words": 32000,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--type", choices=list(TYPES), default="bfloat16", help="of the stored weights")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32")
    parser.add_argument("--max-length", type=int, default=64, help="the exporter's own; fewer make the gate faster")
    parser.add_argument("--folder", type=Path, help="for the files; by default the system's temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
    else:
        main()
