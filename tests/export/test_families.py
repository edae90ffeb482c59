from __future__ import annotations

import pytest
from transformers import AutoConfig

from instructmining.errors import ExportError
from instructmining_export.families import limit_tokens


@pytest.mark.parametrize(
    ("family", "settings", "limit"),
    [
        ("electra", {"max_position_embeddings": 512}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("data2vec-text", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("mpnet", {"max_position_embeddings": 514}, 512),
        ("bloom", {}, 2048),  # its attention has a bias by distance
        ("xlnet", {}, 2048),  # its positions are relative
    ],
)
def test_a_text_is_as_long_as_the_models_positions_allow(family: str, settings: dict[str, object], limit: int) -> None:
    assert limit_tokens(AutoConfig.for_model(family, **settings), asked=None) == limit


def test_a_longer_limit_is_refused_where_there_are_no_more_positions() -> None:
    config = AutoConfig.for_model("opt", max_position_embeddings=512)
    assert limit_tokens(config, asked=512) == 512
    with pytest.raises(ExportError, match="--max-length 513: the model has 512 positions; give 512 or less"):
        limit_tokens(config, asked=513)
