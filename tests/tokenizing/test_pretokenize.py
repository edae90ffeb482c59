from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import PreTokenizer

from instructmining.tokenizing.pretokenize import Cutter, cutter, joins

CORPUS = [
    "The cat sat on the mat; the dog ate the bone.\n\nIt's 12 o'clock, and they'll say: \"No!\"\n",
    "  def f(x):\n    return x  # two  spaces\n\n\n- a list\n- of things: 1) café 2) naïve",
]
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split_by(pattern: str) -> PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


BYTES: dict[str, Callable[[], PreTokenizer]] = {
    "GPT-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "GPT-2 behind digits": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "Llama 3": lambda: split_by(GPT4),
    "Qwen": lambda: split_by(GPT4.replace("{1,3}", "")),
}


def byte_level(pre_tokenizer: PreTokenizer) -> Tokenizer:
    """A BPE in which spaces and newlines are parts of many tokens, so that a wrong cut shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    spaces = [" " * 2, " " * 3, "\n\n", "\n\n\n", " \n", "\n ", ".\n", ":\n\n", "\t\t", " 12"] * 20
    tokenizer.train_from_iterator([*CORPUS * 3, *spaces], trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def word_pieces() -> Tokenizer:
    vocabulary = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz0123456789.,!'", *(f"##{letter}" for letter in "abcdeinost2")]
    tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.fixture(scope="module", params=[*BYTES, "BERT"])
def known(request: pytest.FixtureRequest) -> tuple[Tokenizer, Cutter]:
    tokenizer = word_pieces() if request.param == "BERT" else byte_level(BYTES[request.param]())
    cut = cutter(tokenizer)
    assert cut is not None
    return tokenizer, cut


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from([" ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\v", "\x00", "\x1c"]),
        st.sampled_from(["\xa0", "\u2003", "\u2028", "\u3000", "\u200b", "\ufeff", "\u0301", "\u0345"]),
        st.sampled_from(
            ["the", "Cat", "'s", "'ll", "12", "7", "٣", "½", ".", "...", "!?", "-", "é", "漢字", "😀", "_"]
        ),
        st.sampled_from(["<|end|>", "e\u0301", "İ", "ß"]),
        st.characters(codec="utf-8"),
    ),
    max_size=14,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example(text="a  5 b\n\n6\n\n\n7 ")
@example(text="one.\n\n two!\n \n three:\n\nfour  \n")
@example(text="- a\n  - b\n    - c\t d\xa0 e\n")
def test_the_pieces_tokens_are_those_of_the_text(known: tuple[Tokenizer, Cutter], text: str) -> None:
    tokenizer, cut = known
    assert [number for piece in cut(text) for number in ids(tokenizer, piece)] == ids(tokenizer, text)


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from(["user\n", "assistant:\n\n", "\n\n", "\n", "a  \n", "### Response:\n"]), text=TEXTS)
def test_where_the_templates_words_join_a_text_both_are_tokenized_apart(
    known: tuple[Tokenizer, Cutter], head: str, text: str
) -> None:
    tokenizer, _ = known
    if joins(head, text):
        before, letter = ids(tokenizer, head + "x"), ids(tokenizer, "x")
        assert before[len(before) - len(letter) :] == letter
        assert before[: len(before) - len(letter)] + ids(tokenizer, text) == ids(tokenizer, head + text)


def test_a_text_is_cut_at_its_words(known: tuple[Tokenizer, Cutter]) -> None:
    assert len(known[1]("The cat sat on the mat.")) == 6
    assert len(known[1]("def f(x):\n\n\n    return  x ")) >= 3


def test_nothing_joins_behind_a_word_or_before_whitespace() -> None:
    assert joins("user\n", "Name it.")
    assert not any(joins("user\n", text) for text in ("", " a", "\na", "\u00a0a", "\u200ba"))
    assert not joins("user: ", "a")
    assert not joins("\n\n", "5")


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        None,
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Whitespace(),
        split_by(r"\S+|\s+"),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(GPT4), "removed"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    ],
    ids=[
        "none",
        "a space put before",
        "no words",
        "SentencePiece",
        "whitespace",
        "an unknown expression",
        "an expression for what is dropped",
    ],
)
def test_a_tokenizer_whose_words_are_not_known_is_given_whole_texts(pre_tokenizer: PreTokenizer | None) -> None:
    tokenizer = Tokenizer(models.BPE())
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    assert cutter(tokenizer) is None


def test_a_normalizer_that_is_not_known_leaves_texts_whole() -> None:
    tokenizer = byte_level(BYTES["GPT-2"]())
    tokenizer.normalizer = normalizers.Replace(" a", "b")
    assert cutter(tokenizer) is None


def test_dropout_leaves_texts_whole() -> None:
    tokenizer = Tokenizer(models.BPE(dropout=0.1))
    tokenizer.pre_tokenizer = BYTES["GPT-2"]()
    assert cutter(tokenizer) is None


def test_a_text_with_an_added_token_that_is_not_special_stays_whole() -> None:
    tokenizer = byte_level(BYTES["GPT-2"]())
    tokenizer.add_tokens(["the cat"])
    cut = cutter(tokenizer)
    assert cut is not None
    assert cut("see the cat run") == ["see the cat run"]
    assert len(cut("see the dog run")) == 4


def test_an_added_token_that_takes_the_spaces_beside_it_leaves_all_texts_whole() -> None:
    tokenizer = byte_level(BYTES["GPT-2"]())
    tokenizer.add_tokens([AddedToken("<mark>", lstrip=True)])
    assert cutter(tokenizer) is None
