"""A bundle with all roles of the demo, of random weights: everything works, nothing means anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from instructmining.bundle import RoleName
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter, RoleEntry
from instructmining_export.graphs import bidirectional, causal
from instructmining_export.graphs.decoder import GatedDecoder
from instructmining_export.graphs.encoder import PostNormEncoder
from instructmining_export.graphs.graph_builder import Weights
from instructmining_export.graphs.tensors import save

CORPUS = [
    "user\nName a colour.",
    "assistant\nGreen is a colour, and so are blue and red.",
    "The train leaves at noon; the ferry sails at three.",
    "Bread rises because yeast gives off gas in the dough.",
    "Count from one to ten: one two three four five six seven eight nine ten.",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[CLS]", "[SEP]"]
MAX_LENGTH = 512

SMALL_DECODER = GatedDecoder.from_config(
    {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 400,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
    max_length=MAX_LENGTH,
)
SMALL_ENCODER = PostNormEncoder.from_config(
    {
        "model_type": "bert",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 400,
        "max_position_embeddings": 256,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    },
    max_length=64,
)


def small_tokenizer() -> Tokenizer:
    """A byte-level BPE over every byte, so that any text has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def random_weights(seed: int) -> Weights:
    """A reader that makes up each tensor by its name; the shapes are those of the small models."""
    sizes = {
        "embed_tokens": (400, 32),
        "q_proj": (32, 32),
        "k_proj": (16, 32),
        "v_proj": (16, 32),
        "o_proj": (32, 32),
        "gate_proj": (48, 32),
        "up_proj": (48, 32),
        "down_proj": (32, 48),
        "word_embeddings": (400, 32),
        "position_embeddings": (256, 32),
        "token_type_embeddings": (2, 32),
        "intermediate.dense.weight": (64, 32),
        "intermediate.dense.bias": (64,),
        "attention.output.dense.weight": (32, 32),
        "output.dense.weight": (32, 64),
        "query.weight": (32, 32),
        "key.weight": (32, 32),
        "value.weight": (32, 32),
    }

    def read(name: str) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, *name.encode()])
        shape = next((size for part, size in sizes.items() if part in name), (32,))
        values = rng.normal(scale=0.3, size=shape)
        if shape == (32,) and "norm" in name.lower() and name.endswith("weight"):
            values = np.ones(shape)
        return values.astype(np.float32)

    return read


def write_small_bundle(path: Path) -> None:
    """Write it into a folder that is not there yet."""
    rng = np.random.default_rng(7)
    head = causal.LinearHead(rng.normal(size=(1, 32)).astype(np.float32), np.zeros(1, dtype=np.float32))
    roles: dict[RoleName, tuple[str, dict[str, object], int]] = {
        "perplexity": ("perplexity", templates.chatml(), MAX_LENGTH),
        "reward": ("perplexity", templates.chatml(), MAX_LENGTH),
        "embedding": ("embedding", templates.sentence("[CLS]", "[SEP]"), 64),
    }
    with BundleWriter(path, frozenset(roles)) as bundle:
        small_tokenizer().save(str(bundle.file("perplexity/tokenizer.json")))
        small_tokenizer().save(str(bundle.file("embedding/tokenizer.json")))
        decoder = causal.build(SMALL_DECODER, random_weights(1), vocabulary=True, reward=head)
        save(decoder.model(), bundle.file("perplexity/model.onnx"))
        encoder = bidirectional.build_embedding(SMALL_ENCODER, random_weights(2), pooling="mean")
        save(encoder.model(), bundle.file("embedding/model.onnx"))
        for role, (folder, template, limit) in roles.items():
            references = f"{role}/references.json"
            bundle.file(references).write_text('{"output": "nll", "rows": []}')
            bundle.roles[role] = RoleEntry(
                graph=f"{folder}/model.onnx",
                tokenizer=f"{folder}/tokenizer.json",
                template=template,
                max_length=limit,
                source={"id": f"tests/{role}", "revision": "0", "licence": "Apache-2.0"},
                parity={},
                references=references,
            )
        bundle.finish(name="small", default_rule="paper-v1", length_tokenizer="perplexity")
