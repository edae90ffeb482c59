"""What transformers 4 and 5 write of one model is read as one model, by the version that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from tokenizers import Tokenizer

from instructmining.tokenizing.truncation import Tokens
from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.tokenizing import load_tokenizer, save_tokenizer
from instructmining_export.transformers_versions import graph_settings

Settings = dict[str, Any]
ROTARY = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_pct", "rotary_emb_base")
ROTARY += ("rope_local_base_freq",)
BY_LAYER = ("global_rope_theta", "local_rope_theta", "layer_types")
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [4.0] * 8}
# Case → family, what version 4 writes of its positions, and what version 5 does.
POSITIONS: dict[str, tuple[str, Settings, Settings]] = {
    "theta": (
        "llama",
        {"rope_theta": 500.0, "rope_scaling": None},
        {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
    ),
    "llama3": (
        "llama",
        {"rope_theta": 5000.0, "rope_scaling": LLAMA3},
        {"rope_parameters": LLAMA3 | {"rope_theta": 5000.0}},
    ),
    "yarn": (
        "llama",
        {"rope_theta": 10000.0, "rope_scaling": YARN},
        {"rope_parameters": YARN | {"rope_theta": 10000.0}},
    ),
    "longrope": (
        "phi3",
        {"rope_theta": 10000.0, "rope_scaling": LONG | {"type": "longrope"}},
        {
            "rope_parameters": {
                **LONG,
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 1.0,
                "original_max_position_embeddings": 512,
            }
        },
    ),
    "part of a head": (
        "gpt_neox",
        {"rotary_emb_base": 500, "rotary_pct": 0.5},
        {"rope_parameters": {"partial_rotary_factor": 0.5, "rope_theta": 500, "rope_type": "default"}},
    ),
    "by kind of layer": (
        "gemma3_text",
        {"rope_theta": 900.0, "rope_local_base_freq": 50.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {
            "rope_parameters": {
                "full_attention": {"rope_theta": 900.0, "rope_type": "linear", "factor": 8.0},
                "sliding_attention": {"rope_theta": 50.0, "rope_type": "default"},
            }
        },
    ),
    "by layer": (
        "modernbert",
        {"global_rope_theta": 900.0, "local_rope_theta": 50.0},
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_theta": 900.0, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 50.0, "rope_type": "default"},
            },
        },
    ),
}


def edit(folder: Path, file: str, *removed: str, **changes: object) -> None:
    content = json.loads((folder / file).read_bytes())
    kept = {name: value for name, value in content.items() if name not in removed}
    (folder / file).write_text(json.dumps(kept | changes), encoding="utf-8")


def texts(scored: int = 30) -> list[Tokens]:
    """Rows of random tokens, of which the last few are scored."""
    rng = np.random.default_rng(4)
    return [Tokens(rng.integers(10, 380, size), np.arange(size - scored, size)) for size in (200, 90)]


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_are_those_of_the_config_whichever_version_wrote_it(tmp_path: Path, case: str) -> None:
    family, version_4, version_5 = POSITIONS[case]
    encoder = family in small_models.ENCODERS
    folder = (small_models.encoder_model if encoder else small_models.causal_model)(family, tmp_path / "model")
    backbones, values = [], []
    for written in (version_4, version_5):
        edit(folder, "config.json", *ROTARY, *BY_LAYER, **written)
        checkpoint = Checkpoint(folder)
        table: Any = families.ENCODERS if encoder else families.CAUSAL
        config = originals.read_config(checkpoint)
        backbones.append(table[family].from_config(graph_settings(config), max_length=256))
        if encoder:
            found = originals.embeddings(checkpoint, texts(0), pooling="mean")
        else:
            found, _ = originals.likelihoods(checkpoint, texts())
        values.append(np.concatenate(found.values))
    assert backbones[0] == backbones[1]
    np.testing.assert_array_equal(values[0], values[1])


def test_positions_of_a_text_part_are_those_of_the_config_whichever_version_wrote_it(tmp_path: Path) -> None:
    folder = small_models.image_model(tmp_path / "model")
    text = json.loads((folder / "config.json").read_bytes())["text_config"]
    kept = {name: value for name, value in text.items() if name not in ROTARY}
    backbones, values = [], []
    for written in POSITIONS["by kind of layer"][1:]:
        edit(folder, "config.json", text_config=kept | written)
        settings = graph_settings(originals.read_config(Checkpoint(folder)))
        backbones.append(families.CAUSAL["gemma3_text"].from_config(settings, max_length=256))
        values.append(np.concatenate(originals.likelihoods(Checkpoint(folder), texts())[0].values))
    assert backbones[0] == backbones[1]
    np.testing.assert_array_equal(values[0], values[1])


def test_a_window_that_looks_both_ways_is_half_of_the_files_on_either_side(tmp_path: Path) -> None:
    folder = small_models.encoder_model("gemma3_text", tmp_path / "model")
    edit(folder, "config.json", sliding_window=512)
    config = graph_settings(originals.read_config(Checkpoint(folder)))
    backbone: Any = families.SENTENCE_ENCODERS["gemma3_text"].from_config(config, max_length=1024)
    assert [layer.window for layer in backbone.decoder.layers] == [257, -1]  # with the token itself


def test_a_t5_with_an_output_layer_of_its_own_keeps_it_whichever_version_wrote_it(tmp_path: Path) -> None:
    folder = small_models.unieval_model(tmp_path / "model")
    backbones, values = [], []
    for written in ({"tie_word_embeddings": False}, {"tie_word_embeddings": True, "scale_decoder_outputs": False}):
        edit(folder, "config.json", "scale_decoder_outputs", **written)
        settings = graph_settings(originals.read_config(Checkpoint(folder)))
        backbones.append(families.SEQUENCE_TO_SEQUENCE["t5"].from_config(settings, max_length=256))
        values.append(np.concatenate(originals.answers(Checkpoint(folder), texts(0), yes=40, no=50).values))
    assert not backbones[0].tied
    assert backbones[0] == backbones[1]
    np.testing.assert_array_equal(values[0], values[1])


def test_a_tokenizer_is_the_same_whichever_version_wrote_its_settings(tmp_path: Path) -> None:
    folder = small_models.causal_model("llama", tmp_path / "model")
    saved = []
    for number, written in enumerate(
        (
            {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": ["<|im_start|>"]},
            {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|im_start|>"]},
        )
    ):
        edit(folder, "tokenizer_config.json", "additional_special_tokens", "extra_special_tokens", **written)
        tokenizer = load_tokenizer(Checkpoint(folder), words=small_models.WORDS)
        assert tokenizer.chat_template == small_models.CHATML
        assert (tokenizer.sep_token, tokenizer.sep_token_id) == ("[SEP]", small_models.SPECIALS.index("[SEP]"))
        save_tokenizer(tokenizer, tmp_path / f"{number}.json")
        saved.append(json.loads((tmp_path / f"{number}.json").read_bytes()))
    assert saved[0] == saved[1]
    assert saved[0]["post_processor"] is None


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma", "gpt2"])
def test_texts_are_tokenized_as_the_tokenizers_file_says_and_not_as_its_class_does(tmp_path: Path, family: str) -> None:
    folder = small_models.causal_model(family, tmp_path / "model")
    text = "Count: 1234 <|im_start|>of  naïve cafés\n\n don't"
    wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    tokenizer = load_tokenizer(Checkpoint(folder), words=small_models.WORDS)
    save_tokenizer(tokenizer, tmp_path / "saved.json")
    assert tokenizer(text, add_special_tokens=False).input_ids == wanted
    assert Tokenizer.from_file(str(tmp_path / "saved.json")).encode(text, add_special_tokens=False).ids == wanted
