"""Checkpoints of the true architectures with random weights, in the Hugging Face layout, made in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers_configs import untie

CORPUS = [
    "user\nName a colour.",
    "assistant\nGreen is a colour, and so are blue and red.",
    "The train leaves at noon; the ferry sails at three.",
    "Bread rises because yeast gives off gas in the dough.",
    "question: Is this a natural response in the dialogue? Yes No",
    "Count from one to ten: one two three four five six seven eight nine ten.",
]
SPECIALS = ["<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "[CLS]", "[SEP]", "<s>", "</s>"]
SPECIALS += ["<|prompter|>", "<|assistant|>"]
WORDS = 400
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
_COMMON: dict[str, Any] = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
_DECODER: dict[str, Any] = _COMMON | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
}
_ENCODER: dict[str, Any] = _COMMON | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 300,
}
_PHI3 = {name: value for name, value in _DECODER.items() if name != "head_dim"}
# Family → its transformers class without the ending, and its config.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _DECODER),
    "mistral": ("Mistral", _DECODER | {"sliding_window": 40}),
    "qwen2": ("Qwen2", _DECODER),
    "qwen3": ("Qwen3", _DECODER),
    "gemma": ("Gemma", _DECODER | {"tie_word_embeddings": True}),
    "phi3": ("Phi3", _PHI3 | {"original_max_position_embeddings": 512}),
    "gpt2": ("GPT2", _COMMON | {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512}),
    "gpt_neox": ("GPTNeoX", _DECODER | {"hidden_size": 64, "intermediate_size": 96}),
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _ENCODER),
    "roberta": ("Roberta", _ENCODER | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", _ENCODER | {"type_vocab_size": 1}),
    "mpnet": ("MPNet", _ENCODER),
    "modernbert": (
        "ModernBert",
        _ENCODER
        | {
            "hidden_size": 128,
            "num_attention_heads": 4,
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 4,
            "sep_token_id": 5,
        },
    ),
    "deberta-v2": (
        "DebertaV2",
        _ENCODER
        | {
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "max_relative_positions": -1,
            "type_vocab_size": 0,
        },
    ),
}
# Families that no builder of ours knows: they go through another exporter.
_OTHER_DECODER: dict[str, Any] = _COMMON | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("OPT", _OTHER_DECODER | {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32}),
    "bloom": ("Bloom", _COMMON | {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "falcon": ("Falcon", _OTHER_DECODER | {"max_position_embeddings": 512}),
}
# Their logits are not the product alone: a bias, a soft cap, a scale.
CHANGED_LOGITS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi": ("Phi", _OTHER_DECODER | {"intermediate_size": 48, "max_position_embeddings": 512}),
    "gemma2": ("Gemma2", _DECODER | {"sliding_window": 40}),
    "cohere": ("Cohere", {name: value for name, value in _DECODER.items() if name not in {"head_dim", "rms_norm_eps"}}),
}
_SMALL_EMBEDDINGS = _ENCODER | {"embedding_size": 16}
OTHER_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("Albert", _SMALL_EMBEDDINGS),
    "distilbert": (
        "DistilBert",
        _COMMON | {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 300},
    ),
    "electra": ("Electra", _SMALL_EMBEDDINGS),
}
T5 = _COMMON | {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 2,
    "eos_token_id": 7,
    "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def tokenizer(kind: str = "plain") -> Tokenizer:
    """A byte-level BPE over every byte, so that any text has tokens.

    Args:
        kind: what it adds to a text by itself: nothing ("plain"), BERT's [CLS] and [SEP] ("encoder"), or T5's closing
            </s> ("t5").
    """
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=390, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False),
    )
    number = {token: made.token_to_id(token) for token in SPECIALS}
    if kind == "encoder":
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", number["[CLS]"]), ("[SEP]", number["[SEP]"])],
        )
    elif kind == "t5":
        made.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", number["</s>"])]
        )
    return made


def save_model(model: PreTrainedModel, folder: Path, kind: str = "plain", *, chat_template: str | None = None) -> Path:
    """Write the model with random biases and norms as well, where an error would not show at 0 and 1."""
    # Of the usual deviation of 0.02, so that layers do something; T5 begins larger.
    factor = 1 if model.config.model_type == "t5" else 5
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
        elif "embed" not in name and "wte" not in name and "shared" not in name:
            parameter.data *= factor
    model.save_pretrained(folder)
    special = {"pad_token": "<pad>", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(kind), chat_template=chat_template, **special).save_pretrained(
        folder
    )
    return folder


def causal_model(family: str, folder: Path, *, chat: bool = True, **changes: object) -> Path:
    """A language model."""
    name, config = (DECODERS | OTHER_DECODERS | CHANGED_LOGITS)[family]
    model = _make(name, "Config", "ForCausalLM" if family != "gpt2" else "LMHeadModel", config | changes)
    return save_model(model, folder, chat_template=CHATML if chat else None)


def decoder_classifier(family: str, folder: Path, **changes: object) -> Path:
    """A decoder with a reward head, as transformers' ForSequenceClassification."""
    name, config = (DECODERS | OTHER_DECODERS | CHANGED_LOGITS)[family]
    model = _make(name, "Config", "ForSequenceClassification", config | {"num_labels": 1} | changes)
    return save_model(model, folder, chat_template=CHATML)


def encoder_model(family: str, folder: Path, *, pooling: str = "mean", normalize: bool = True) -> Path:
    """A sentence encoder with the files of sentence-transformers beside it."""
    name, config = (ENCODERS | OTHER_ENCODERS)[family]
    model = _make(name, "Config", "Model", config)
    save_model(model, folder, "encoder")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 128, "do_lower_case": false}', "utf-8")
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    modes[
        {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}[pooling]
    ] = True
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": model.config.hidden_size, **modes}), "utf-8"
    )
    return folder


def encoder_classifier(family: str, folder: Path, **changes: object) -> Path:
    """An encoder with a classifier of one label over pairs."""
    name, config = (ENCODERS | OTHER_ENCODERS)[family]
    model = _make(name, "Config", "ForSequenceClassification", config | {"num_labels": 1} | changes)
    return save_model(model, folder, "encoder")


def oasst_reward_model(folder: Path) -> Path:
    """``GPTNeoXRewardModel``: not a class of transformers, and pickled weights only, as the published one."""
    _, config = DECODERS["gpt_neox"]
    model = _make("GPTNeoX", "Config", "Model", config)
    save_model(model, folder)
    state = {f"gpt_neox.{name}": tensor for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    state["out_proj.weight"] = torch.randn(1, 64, generator=generator)
    state["out_proj.bias"] = torch.randn(1, generator=generator)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    written = json.loads((folder / "config.json").read_bytes())
    written |= {"model_type": "gpt_neox_reward_model", "architectures": ["GPTNeoXRewardModel"], "pooling": "last"}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


def unieval_model(folder: Path, **changes: object) -> Path:
    """A T5 v1.1."""
    model = _make("T5", "Config", "ForConditionalGeneration", T5 | changes)
    untie(model)
    return save_model(model, folder, "t5")


def _make(name: str, config: str, model: str, settings: Mapping[str, object]) -> PreTrainedModel:
    torch.manual_seed(5)
    configured = getattr(hf, name + config)(**settings)
    build: Callable[..., PreTrainedModel] = getattr(hf, name + model)
    return build(configured)
