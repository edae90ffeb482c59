from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from small_bundle import SMALL_DECODER, SMALL_ENCODER, random_weights
from small_models import T5 as SMALL_T5
from transformers import T5Config

from instructmining.bundle import PrecisionName
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import GraphBuilder
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.t5 import T5
from instructmining_export.transformers_versions import graph_settings

HEAD = LinearHead(np.ones((1, 32), dtype=np.float32), np.zeros(1, dtype=np.float32))


def no_weights(name: str) -> NDArray[np.float32]:
    """Weights are read when a graph is saved; the answers' difference is read before."""
    assert name == "lm_head.weight"
    return np.ones((400, 32), dtype=np.float32)


@pytest.mark.parametrize("precision", get_args(PrecisionName))
def test_a_decoders_products_are_counted_by_token_scored_position_and_row(precision: PrecisionName) -> None:
    tape = causal.build(SMALL_DECODER, random_weights(1), vocabulary=True, reward=HEAD, precision=Precision(precision))
    # Two layers: query, key and value; output; gate, up and down.
    layer = 32 * (32 + 16 + 16) + 32 * 32 + 3 * 32 * 48
    assert tape.multiply_adds == {"token": 2 * layer, "scored": 32 * 400, "row": 32}


def test_a_decoder_without_heads_counts_no_scored_position_and_no_row() -> None:
    tape = causal.build(SMALL_DECODER, random_weights(1), vocabulary=False, reward=None)
    assert (tape.multiply_adds["scored"], tape.multiply_adds["row"]) == (0, 0)


def test_an_encoders_products_are_counted_by_token_and_its_classifiers_by_row() -> None:
    layer = 4 * 32 * 32 + 2 * 32 * 64
    embedding = bidirectional.build_embedding(SMALL_ENCODER, random_weights(2), pooling="mean")
    assert embedding.multiply_adds == {"token": 2 * layer, "scored": 0, "row": 0}
    reward = bidirectional.build_reward(SMALL_ENCODER, random_weights(2), separator=4)
    assert reward.multiply_adds == {"token": 2 * layer, "scored": 0, "row": 32 * 32 + 32}


@pytest.mark.parametrize("gated", [True, False])
def test_t5_counts_its_encoder_by_token_and_one_decoder_step_by_row(gated: bool) -> None:
    kind = "gated-gelu" if gated else "relu"
    config = T5Config(**SMALL_T5 | {"feed_forward_proj": kind})
    tape = t5.build(T5.from_config(graph_settings(config), max_length=64), no_weights, yes=3, no=5)
    attended = 2 * 16
    square, fed = 32 * attended, (3 if gated else 2) * 32 * 48
    encoder_layer = 4 * square + fed
    # Query, key matrix in the query, value matrix after the mean, output. What comes before the first look at the
    # encoder (value and output of the first layer, its query) is the same for all rows and computed once.
    first_layer = 2 * square + fed
    second_layer = 2 * square + 4 * square + fed
    answer = 32
    assert tape.multiply_adds == {
        "token": 2 * encoder_layer,
        "scored": 0,
        "row": first_layer + second_layer + answer,
    }


def test_products_of_weights_alone_are_not_counted_and_the_unit_before_comes_back() -> None:
    tape = GraphBuilder("counted", no_weights)
    with tape.each("row"):
        tape.count(3)
        with tape.each(None):
            tape.count(100)
        tape.count(4)
    tape.count(5)
    assert tape.multiply_adds == {"token": 5, "scored": 0, "row": 7}
