"""Checkpoints of the true architectures with random weights, in the Hugging Face layout, made in a moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import save_file
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
_PLAIN_HEADS = {name: value for name, value in _DECODER.items() if name != "head_dim"}
# Family → its transformers class without the ending, and its config.
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _DECODER),
    "mistral": ("Mistral", _DECODER | {"sliding_window": 40}),
    "qwen2": ("Qwen2", _DECODER),
    "qwen3": ("Qwen3", _DECODER),
    "gemma": ("Gemma", _DECODER | {"tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2",
        _DECODER
        | {
            "sliding_window": 40,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 4.0,
        },
    ),
    "gemma3_text": (
        "Gemma3Text",
        _DECODER
        | {
            "sliding_window": 40,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "granite": (
        "Granite",
        _PLAIN_HEADS
        | {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.125,
            "logits_scaling": 4.0,
        },
    ),
    "olmo2": ("Olmo2", _PLAIN_HEADS),
    "smollm3": ("SmolLM3", _DECODER | {"no_rope_layers": [1, 0]}),
    "phi3": ("Phi3", _PLAIN_HEADS | {"original_max_position_embeddings": 512}),
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
# Decoders that give sentence vectors.
SENTENCE_DECODERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "qwen3": DECODERS["qwen3"],
    "mistral": DECODERS["mistral"],
    "gemma3_text": (
        "Gemma3Text",
        DECODERS["gemma3_text"][1] | {"use_bidirectional_attention": True, "sliding_window": 32},
    ),
}
# Families for which transformers 4 has no model with a reward head.
WITHOUT_CLASSIFIERS = frozenset({"granite", "olmo2"})
# Families that no builder of ours knows: they go through another exporter.
_OTHER_DECODER: dict[str, Any] = _COMMON | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("OPT", _OTHER_DECODER | {"ffn_dim": 48, "max_position_embeddings": 512, "word_embed_proj_dim": 32}),
    "bloom": ("Bloom", _COMMON | {"hidden_size": 32, "n_layer": 2, "n_head": 2}),
    "falcon": ("Falcon", _OTHER_DECODER | {"max_position_embeddings": 512}),
}
# Their logits are not the product alone, as Gemma 2's are not: a bias, a scale.
CHANGED_LOGITS: dict[str, tuple[str, dict[str, Any]]] = {
    "phi": ("Phi", _OTHER_DECODER | {"intermediate_size": 48, "max_position_embeddings": 512}),
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
    kind = "LMHeadModel" if family == "gpt2" else "ForCausalLM"
    model = _make(name, "Config", kind, config | changes)
    return save_model(model, folder, chat_template=CHATML if chat else None)


def image_model(folder: Path) -> Path:
    """A Gemma 3 that sees images too."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 28, "patch_size": 14}
    config = {"text_config": dict(DECODERS["gemma3_text"][1]), "vision_config": vision, "mm_tokens_per_image": 4}
    model = _make("Gemma3", "Config", "ForConditionalGeneration", config)
    return save_model(model, folder, chat_template=CHATML)


def decoder_classifier(family: str, folder: Path, **changes: object) -> Path:
    """A decoder with a reward head, as transformers' ForSequenceClassification."""
    name, config = (DECODERS | OTHER_DECODERS | CHANGED_LOGITS)[family]
    model = _make(name, "Config", "ForSequenceClassification", config | {"num_labels": 1} | changes)
    return save_model(model, folder, chat_template=CHATML)


def encoder_model(
    family: str, folder: Path, *, pooling: str = "mean", normalize: bool = True, dense: Sequence[tuple[int, str]] = ()
) -> Path:
    """A sentence encoder with the files of sentence-transformers beside it.

    Args:
        family: of encoders or decoders.
        folder: new.
        pooling: "mean", "cls" or "last".
        normalize: whether the last module makes unit vectors.
        dense: output size and activation of each layer after the pooling.
    """
    is_decoder = family in SENTENCE_DECODERS
    name, config = (SENTENCE_DECODERS if is_decoder else (ENCODERS | OTHER_ENCODERS))[family]
    model = _make(name, "Config", "Model", config)
    save_model(model, folder, "t5" if is_decoder else "encoder")
    sizes = [model.config.hidden_size, *(size for size, _ in dense)]
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    for number, (_, activation) in enumerate(dense):
        kinds.append((f"{2 + number}_Dense", "Dense"))
        _save_dense(folder / kinds[-1][0], sizes[number], sizes[number + 1], activation)
    kinds += [(f"{2 + len(dense)}_Normalize", "Normalize")] if normalize else []
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


def _save_dense(folder: Path, inputs: int, outputs: int, activation: str) -> None:
    """Write a layer of sentence-transformers; without a bias where it has no activation, as published ones are."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(inputs + outputs)
    tensors = {"linear.weight": torch.randn(outputs, inputs, generator=generator) * inputs**-0.5}
    if activation != "Identity":
        tensors["linear.bias"] = torch.randn(outputs, generator=generator) * 0.3
    save_file(tensors, folder / "model.safetensors")
    name = "linear.Identity" if activation == "Identity" else f"activation.{activation}"
    config = {
        "in_features": inputs,
        "out_features": outputs,
        "bias": "linear.bias" in tensors,
        "activation_function": f"torch.nn.modules.{name}",
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


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
    # "Text" is in the name of Gemma 3's config, but not in that of its language model.
    kind = name + model if hasattr(hf, name + model) else name.removesuffix("Text") + model
    build: Callable[..., PreTrainedModel] = getattr(hf, kind)
    return build(configured)
