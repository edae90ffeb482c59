from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from instructmining.bundle import Bundle, Role
from instructmining.errors import BundleError, RowError
from instructmining_serving.raw_texts import RawTokenizer


@pytest.fixture
def role(small_bundle: Path) -> Role:
    return Bundle.open(small_bundle).roles["embedding"]


def test_the_tokens_of_a_text_join_to_it_where_words_begin_with_a_mark(role: Role, tmp_path: Path) -> None:
    words = ["<s>", "▁", "a", "▁a", "b", "▁b", "▁green", "s"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    raw = RawTokenizer(
        replace(role, tokenizer=tmp_path / "tokenizer.json", bos="<s>", template=replace(role.template, gaps={}))
    )
    ids = raw.prompt("green b as")
    assert ids[0] == raw.words - len(words) == 0
    assert [raw.string(int(token)) for token in ids[1:]] == [" green", " b", " a", "s"]


def test_special_tokens_in_a_text_are_special_and_those_of_the_role_go_around_it(role: Role) -> None:
    raw = RawTokenizer(role)
    assert raw.prompt("[SEP]").tolist() == [4]
    assert raw.document("[SEP]a").tolist() == [3, 4, *raw.prompt("a").tolist(), 4]
    assert raw.text([3, 4]) == "[CLS][SEP]"


def test_a_text_that_would_take_too_much_memory_is_not_tokenized(role: Role) -> None:
    with pytest.raises(RowError, match="has 1,000,001 characters, more than the 1,000,000 that are tokenized"):
        RawTokenizer(role).prompt("a" * 1_000_001)


def test_a_tokenizer_that_does_not_fit_the_role_is_an_error_of_the_bundle(role: Role, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no token '<none>', which the role names; export the bundle again"):
        RawTokenizer(replace(role, bos="<none>"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"not a tokenizer: .*; export the bundle again"):
        RawTokenizer(replace(role, tokenizer=tmp_path / "tokenizer.json"))
