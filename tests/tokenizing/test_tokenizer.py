from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from instructmining.bundle.template import Pieces, Segment, Special, Template
from instructmining.errors import BundleError, RowError
from instructmining.tokenizing import tokenizer as tokens_module
from instructmining.tokenizing.templates import conversation, document
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import MIN_PROMPT_TOKENS, Tokens, alone
from instructmining.types import Example, Turn

START, END = "<|im_start|>", "<|im_end|>"
SENTENCES = [
    "user\nName a colour of the rainbow.",
    "assistant\nGreen is a colour of the rainbow, and so is blue.",
    "The cat sat on the mat; the dog ate the bone.\n",
]


def opening(role: str) -> Pieces:
    return (("special", START), ("literal", f"{role}\n"))


CHATML = Template(
    {f"start>{role}": opening(role) for role in ("user", "assistant")}
    | {
        f"{before}>{after}": (("special", END), ("literal", "\n"), *opening(after))
        for before in ("user", "assistant")
        for after in ("user", "assistant")
    }
    | {f"{role}>end": (("special", END),) for role in ("user", "assistant")}
)
DOCUMENT = Template({"start>document": (("special", START),), "document>end": (("special", END),)})


@dataclass(frozen=True, slots=True)
class Trained:
    """The encoder under test and the tokenizer it was read from, to decode with."""

    encoder: TextEncoder
    tokenizer: Tokenizer
    path: Path

    def text(self, ids: np.ndarray) -> str:
        return str(self.tokenizer.decode(ids.tolist(), skip_special_tokens=False))

    def rendered(self, example: Example, max_length: int = 10_000) -> Tokens:
        (tokens,) = self.encoder.rendered([conversation(example, CHATML)], max_length=max_length)
        return tokens


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A byte-level BPE of 320 entries whose file also asks for truncation and padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=[START, END], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    tokenizer.save(str(path))
    return Trained(TextEncoder(path), tokenizer, path)


# Loading


def test_a_file_that_is_no_tokenizer_is_a_bundle_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
        TextEncoder(path)


def test_a_missing_tokenizer_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.json: not a tokenizer"):
        TextEncoder(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("altered", "message"),
    [
        ({"model": {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0}}}, "fails on a text: WordLevel error"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "not a tokenizer: Precompiled"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}}}, "not a tokenizer: "),
    ],
)
def test_a_tokenizer_that_fails_or_panics_is_a_bundle_error(
    bpe: Trained, tmp_path: Path, altered: dict[str, object], message: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(orjson.dumps(orjson.loads(bpe.path.read_bytes()) | altered))
    with pytest.raises(BundleError, match=message):
        TextEncoder(path).plain(["a text"])


def test_a_special_token_has_its_id_and_an_unknown_one_is_a_bundle_error(bpe: Trained) -> None:
    assert (bpe.encoder.special(START), bpe.encoder.special(END)) == (0, 1)
    with pytest.raises(BundleError, match=r"no token '<\|user\|>', which the template names"):
        bpe.encoder.special("<|user|>")


# Plain texts


def test_plain_ids_are_those_of_the_text_without_the_files_truncation_and_padding(bpe: Trained) -> None:
    texts = ["The cat", "", "x" * 30]
    ids = bpe.encoder.plain(texts)
    assert [array.dtype for array in ids] == [np.int32] * 3
    assert [bpe.text(array) for array in ids] == texts
    assert len(ids[2]) > 8
    assert len(ids[1]) == 0


def test_plain_of_no_texts_is_empty(bpe: Trained) -> None:
    assert bpe.encoder.plain([]) == []


@settings(max_examples=50, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab <|im_end|>\né😀"), max_size=40))
def test_no_text_becomes_a_special_token(bpe: Trained, text: str) -> None:
    (ids,) = bpe.encoder.plain([text + END + START])
    assert not np.isin(ids, [0, 1]).any()
    assert bpe.text(ids) == text + END + START


# Rendered conversations


def test_a_rendered_text_is_the_template_to_the_letter(bpe: Trained) -> None:
    tokens = bpe.rendered(Example.of("Name a colour.", "Green."))
    assert bpe.text(tokens.ids) == f"{START}user\nName a colour.{END}\n{START}assistant\nGreen.{END}"
    assert (tokens.ids == 0).sum() == (tokens.ids == 1).sum() == 2
    assert not tokens.truncated


def test_special_tokens_written_in_a_row_add_none(bpe: Trained) -> None:
    tokens = bpe.rendered(Example.of(f"{END}\n{START}assistant\n", f"a{END}"))
    assert (tokens.ids == 0).sum() == (tokens.ids == 1).sum() == 2
    assert bpe.text(tokens.ids[tokens.scored]) == f"a{END}"


def test_the_scored_tokens_are_the_responses_and_nothing_else(bpe: Trained) -> None:
    example = Example((Turn("user", "a"), Turn("assistant", "Green."), Turn("user", "b"), Turn("assistant", "Blue!")))
    tokens = bpe.rendered(example)
    assert bpe.text(tokens.ids[tokens.scored]) == "Green.Blue!"
    assert 0 not in tokens.ids[tokens.scored]
    assert 1 not in tokens.ids[tokens.scored]
    text = f"{START}user\na{END}\n{START}assistant\n"
    assert bpe.text(tokens.ids[: tokens.scored[0]]) == text


def test_the_first_token_of_a_text_has_nothing_before_it_and_is_not_scored(bpe: Trained) -> None:
    (tokens,) = bpe.encoder.rendered([[Segment("abc", ((0, 3),)), Special(END)]], max_length=100)
    assert tokens.scored.tolist() == [1, 2]
    assert bpe.text(tokens.ids[tokens.scored]) == "bc"


def test_a_token_that_reaches_into_a_response_belongs_to_it(bpe: Trained) -> None:
    ids = bpe.encoder.plain(["the cat"])[0]
    assert bpe.text(ids[:1]) == "the"
    (tokens,) = bpe.encoder.rendered([[Special(START), Segment("the cat", ((1, 7),))]], max_length=100)
    assert bpe.text(tokens.ids[tokens.scored]) == "the cat"


def test_a_token_that_ends_where_a_response_begins_does_not_belong_to_it(bpe: Trained) -> None:
    (tokens,) = bpe.encoder.rendered([[Special(START), Segment("the cat", ((3, 7),))]], max_length=100)
    assert bpe.text(tokens.ids[tokens.scored]) == " cat"


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab .7\n\t\u00a0<|im_end|>é'😀"), min_size=1, max_size=40))
def test_a_run_has_the_tokens_of_its_whole_text_and_those_behind_the_templates_words_are_scored(
    bpe: Trained, text: str
) -> None:
    head = "assistant\n"
    tokenizer = Tokenizer.from_file(str(bpe.path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    whole = tokenizer.encode(head + text, add_special_tokens=False)
    wanted = [n for n, (_, end) in enumerate(whole.offsets, start=1) if end > len(head)]
    run = Segment(head + text, ((len(head), len(head + text)),))
    (tokens,) = bpe.encoder.rendered([[Special(START), run]], max_length=10_000)
    assert tokens.ids.tolist() == [0, *whole.ids]
    assert tokens.scored.tolist() == wanted


def test_a_text_that_is_known_is_not_tokenized_again(bpe: Trained) -> None:
    known = {"Green.": np.array([5, 6], dtype=np.int32).tobytes()}
    assert bpe.encoder.plain(["Green."], known)[0].tolist() == [5, 6]
    parts = [Special(START), Segment("assistant\nGreen.", ((10, 16),)), Special(END)]
    (tokens,) = bpe.encoder.rendered([parts], max_length=100, known=known)
    assert tokens.ids[tokens.scored].tolist() == [5, 6]


def test_the_texts_of_a_call_are_known_to_the_next(bpe: Trained) -> None:
    known: dict[str, bytes] = {}
    bpe.encoder.plain(["The cat"], known)
    assert bpe.text(np.frombuffer(known["The cat"], dtype=np.int32)) == "The cat"


def test_a_document_has_no_scored_token(bpe: Trained) -> None:
    (tokens,) = bpe.encoder.rendered([document(Example.of("a", "b"), DOCUMENT)], max_length=100)
    assert len(tokens.scored) == 0
    assert bpe.text(tokens.ids) == f"{START}a\nb{END}"


def test_many_rendered_texts_are_each_as_if_alone(bpe: Trained) -> None:
    examples = [Example.of(f"Say {n}.", "x" * n) for n in range(1, 12)]
    together = bpe.encoder.rendered([conversation(example, CHATML) for example in examples], max_length=300)
    for example, tokens in zip(examples, together, strict=True):
        single = bpe.rendered(example)
        assert tokens.ids.tolist() == single.ids.tolist()
        assert tokens.scored.tolist() == single.scored.tolist()


RESPONSE = st.text(alphabet=st.sampled_from("abthe .,;\né😀漢\u0301"), min_size=1, max_size=30).filter(
    lambda text: not text[0].isspace()
)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.tuples(st.text(max_size=10), RESPONSE), min_size=1, max_size=3))
def test_the_scored_tokens_of_any_conversation_decode_to_its_responses(
    bpe: Trained, texts: list[tuple[str, str]]
) -> None:
    turns = [turn for prompt, response in texts for turn in (Turn("user", prompt), Turn("assistant", response))]
    tokens = bpe.rendered(Example(tuple(turns)))
    assert bpe.text(tokens.ids[tokens.scored]) == "".join(response for _, response in texts)
    assert (np.diff(tokens.scored) > 0).all()
    assert tokens.scored.dtype == tokens.ids.dtype == np.int64


# Truncation: single letters that no merge joins, so that a text of n letters is n tokens


def letters(size: int, first: int = 0) -> str:
    """A text of as many tokens as letters, so varied that a piece of it shows where it was."""
    return "".join(chr(0x100 + (first + number) % 64) for number in range(size))


def half_tokens(bpe: Trained, size: int) -> str:
    """A text of ``size`` tokens: these letters are two bytes, and two tokens, each."""
    text = letters(size // 2)
    assert len(bpe.encoder.plain([text])[0]) == size
    return text


def parts_of(prompt: str, response: str, after: str = "") -> list[Special | Segment]:
    """A prompt, a response and what follows it, each in a run of its own, closed by a special token."""
    tail = [Special(END), Segment(after), Special(END)] if after else [Special(END)]
    return [Segment(prompt), Special(START), Segment(response, ((0, len(response)),)), *tail]


def test_a_text_that_just_fits_is_not_cut(bpe: Trained) -> None:
    parts = parts_of(half_tokens(bpe, 400), half_tokens(bpe, 98))
    assert [tokens.truncated for tokens in bpe.encoder.rendered([parts], max_length=500)] == [False]
    assert [tokens.truncated for tokens in bpe.encoder.rendered([parts], max_length=499)] == [True]


def test_a_long_prompt_loses_its_beginning_and_the_response_stays_whole(bpe: Trained) -> None:
    prompt, response = half_tokens(bpe, 1000), half_tokens(bpe, 100)
    (tokens,) = bpe.encoder.rendered([parts_of(prompt, response)], max_length=500)
    assert tokens.truncated
    assert len(tokens.ids) == 500
    assert tokens.ids[-1] == 1
    assert bpe.text(tokens.ids[tokens.scored]) == response
    before = bpe.encoder.plain([prompt])[0]
    # 500 less the closing token and 100 of the response: 398 of the prompt and the special token behind it
    assert tokens.ids[:399].tolist() == [*before[-398:], 0]
    assert tokens.scored.tolist() == list(range(399, 499))


def test_a_long_response_leaves_the_last_256_tokens_before_it_and_loses_its_end(bpe: Trained) -> None:
    prompt, response = half_tokens(bpe, 1000), half_tokens(bpe, 1000)
    (tokens,) = bpe.encoder.rendered([parts_of(prompt, response)], max_length=500)
    before, scored = bpe.encoder.plain([prompt, response])
    assert MIN_PROMPT_TOKENS == 256
    assert tokens.truncated
    assert tokens.ids.tolist() == [*before[-255:], 0, *scored[:243], 1]
    assert tokens.scored.tolist() == list(range(256, 499))


def test_a_short_prompt_before_a_long_response_stays_whole(bpe: Trained) -> None:
    prompt, response = half_tokens(bpe, 20), half_tokens(bpe, 1000)
    (tokens,) = bpe.encoder.rendered([parts_of(prompt, response)], max_length=500)
    before, scored = bpe.encoder.plain([prompt, response])
    assert tokens.ids.tolist() == [*before, 0, *scored[: 500 - 22], 1]


def test_the_response_that_is_kept_is_the_last_one(bpe: Trained) -> None:
    first, last = half_tokens(bpe, 600), "Green."
    example = Example((Turn("user", "a"), Turn("assistant", first), Turn("user", "b"), Turn("assistant", last)))
    tokens = bpe.rendered(example, max_length=400)
    assert len(tokens.ids) == 400
    assert bpe.text(tokens.ids).endswith(f"{END}\n{START}user\nb{END}\n{START}assistant\n{last}{END}")
    scored = bpe.text(tokens.ids[tokens.scored])
    assert scored.endswith(last)
    assert len(scored) > len(last)  # what is left of the first response is scored too


def test_a_document_is_cut_on_the_right_and_keeps_its_closing_token(bpe: Trained) -> None:
    example = Example.of(half_tokens(bpe, 300), half_tokens(bpe, 300))
    (tokens,) = bpe.encoder.rendered([document(example, DOCUMENT)], max_length=64)
    whole = bpe.encoder.plain([example.turns[0].text])[0]
    assert tokens.truncated
    assert tokens.ids.tolist() == [0, *whole[:62], 1]


@pytest.mark.parametrize("after", [40, 300, 2000])
def test_a_long_turn_behind_the_last_response_does_not_break_the_limit(bpe: Trained, after: int) -> None:
    parts = parts_of(half_tokens(bpe, 1000), half_tokens(bpe, 100), half_tokens(bpe, after))
    (tokens,) = bpe.encoder.rendered([parts], max_length=500)
    assert tokens.truncated
    assert len(tokens.ids) == 500


@pytest.mark.parametrize("size", [100, 1000])
def test_the_special_token_that_begins_a_text_stays_when_the_prompt_is_cut(bpe: Trained, size: int) -> None:
    prompt, response = half_tokens(bpe, 1000), half_tokens(bpe, size)
    parts = [Special(END), Special(START), *parts_of(prompt, response)]
    (tokens,) = bpe.encoder.rendered([parts], max_length=500)
    before, scored = bpe.encoder.plain([prompt, response])
    kept = max(255, 500 - 3 - size)
    assert tokens.ids.tolist() == [1, *before[-kept:], 0, *scored[: 500 - 3 - kept], 1]
    assert tokens.scored.tolist() == list(range(kept + 2, 499))


def test_what_the_template_ends_in_stays_when_the_text_is_cut(bpe: Trained) -> None:
    parts = [
        *(Segment(half_tokens(bpe, 100)), Special(START), Segment(half_tokens(bpe, 100), ((0, 50),))),
        *(Special(END), Segment("\n", closing=True)),
    ]
    (tokens,) = bpe.encoder.rendered([parts], max_length=64)
    assert len(tokens.ids) == 64
    assert bpe.text(tokens.ids[-2:]) == f"{END}\n"
    assert tokens.scored.tolist() == list(range(tokens.scored[0], 62))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=5), max_length=st.integers(16, 400))
def test_no_text_is_longer_than_the_limit_and_only_a_longer_one_is_cut(
    bpe: Trained, sizes: list[int], max_length: int
) -> None:
    turns = tuple(Turn("assistant" if n % 2 else "user", letters(size)) for n, size in enumerate(sizes))
    whole = bpe.rendered(Example(turns))
    tokens = bpe.rendered(Example(turns), max_length=max_length)
    assert tokens.truncated == (len(whole.ids) > max_length)
    assert len(tokens.ids) == min(len(whole.ids), max_length)
    assert tokens.ids[-1] == 1
    assert (tokens.scored >= 1).all()
    assert (tokens.scored < len(tokens.ids)).all()


# A word's start, which SentencePiece marks at the beginning of a text


@pytest.fixture(scope="module", params=["alone", "in a sequence"])
def marking(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    """A word is a token, and another one where it has the mark of a word's start."""
    words = ["[UNK]", "<s>", "▁ab", "ab", "▁b", "a"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["<s>"])
    mark = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    digits = pre_tokenizers.Digits()
    tokenizer.pre_tokenizer = mark if request.param == "alone" else pre_tokenizers.Sequence([digits, mark])
    path = tmp_path_factory.mktemp("marking") / "tokenizer.json"
    tokenizer.save(str(path))
    return TextEncoder(path)


def test_only_a_run_that_begins_a_text_has_the_mark_of_a_words_start(marking: TextEncoder) -> None:
    runs = [
        [Special("<s>"), Segment("ab", begins=True), Special("<s>"), Segment("ab")],
        [Segment(" b", ((1, 2),)), Segment("a")],
    ]
    tokens = marking.rendered(runs, max_length=100)
    assert [text.ids.tolist() for text in tokens] == [[1, 2, 1, 3], [4, 5]]
    assert marking.plain(["ab"])[0].tolist() == [2]


# Texts alone


def test_a_text_alone_is_scored_from_its_second_token_on() -> None:
    tokens = alone(np.array([7, 8, 9], dtype=np.int32), max_length=3)
    assert (tokens.ids.tolist(), tokens.scored.tolist(), tokens.truncated) == ([7, 8, 9], [1, 2], False)


def test_a_text_alone_is_cut_on_the_right() -> None:
    tokens = alone(np.array([7, 8, 9], dtype=np.int32), max_length=2)
    assert (tokens.ids.tolist(), tokens.scored.tolist(), tokens.truncated) == ([7, 8], [1], True)


def test_behind_the_token_that_begins_a_text_scoring_begins_at_the_same_place() -> None:
    tokens = alone(np.array([7, 8, 9], dtype=np.int32), max_length=4, bos=1)
    assert (tokens.ids.tolist(), tokens.scored.tolist(), tokens.truncated) == ([1, 7, 8, 9], [2, 3], False)
    assert tokens.ids.dtype == np.int64


def test_the_token_that_begins_a_text_counts_for_the_limit() -> None:
    tokens = alone(np.array([7, 8, 9], dtype=np.int32), max_length=3, bos=1)
    assert (tokens.ids.tolist(), tokens.scored.tolist(), tokens.truncated) == ([1, 7, 8], [2], True)


@pytest.mark.parametrize("ids", [[], [7]])
def test_a_short_text_behind_that_token_has_nothing_to_score(ids: list[int]) -> None:
    tokens = alone(np.array(ids, dtype=np.int32), max_length=5, bos=1)
    assert tokens.ids.tolist() == [1, *ids]
    assert tokens.scored.tolist() == []


@pytest.mark.parametrize("ids", [[], [7]])
def test_a_text_of_one_token_or_none_has_nothing_to_score(ids: list[int]) -> None:
    tokens = alone(np.array(ids, dtype=np.int32), max_length=5)
    assert tokens.ids.tolist() == ids
    assert tokens.scored.tolist() == []
    assert tokens.scored.dtype == np.int64


# Long texts


@pytest.mark.parametrize("seed", range(4))
def test_a_long_text_in_parts_has_the_tokens_of_the_whole(
    bpe: Trained, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    letters = ["cat", "the", "é", "\n", "  ", "12", "'s", "!", " ", "\t", "雪", "a"]
    text = " ".join("".join(rng.choice(letters, 3)) for _ in range(400))
    (whole,) = bpe.encoder.plain([text])
    monkeypatch.setattr(tokens_module, "_PART", 64)
    (in_parts,) = TextEncoder(bpe.path).plain([text])
    assert in_parts.tolist() == whole.tolist()


def test_a_piece_that_is_too_long_for_the_tokenizer_is_refused(bpe: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MOST_PIECE", 100)
    monkeypatch.setattr(tokens_module, "_PART", 20)
    bpe.encoder.check_length(["cat " * 100])
    bpe.encoder.check_length(["c" * 90])
    with pytest.raises(RowError, match="200 characters without a space are more than the 100 that the tokenizer"):
        bpe.encoder.check_length(["a", "\n" * 200])


def literal(text: str) -> Pieces:
    return (("literal", text),)


LITERAL = Template(
    {
        "start>user": literal("### Question:\n"),
        "user>assistant": literal("\n\n### Answer:\n"),
        "assistant>user": literal("\n\n### Question:\n"),
        "assistant>end": literal(""),
    }
)
WORDS = st.lists(st.sampled_from(["cat", " mat", "\n", " ", "é", "7", ".", "###", " \n ", "rainbow"]), max_size=60)


@given(WORDS, WORDS, st.integers(1, 3))
@settings(deadline=None)
def test_a_template_without_special_tokens_gives_the_tokens_of_the_whole_text(
    bpe: Trained, question: list[str], answer: list[str], turns: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "_LONGEST_HEAD", 8)
        patch.setattr(tokens_module, "_PART", 16)
        texts = ["".join(question) or "q", "a" + "".join(answer)]
        example = Example(tuple(Turn(("user", "assistant")[at % 2], texts[at % 2]) for at in range(2 * turns)), None)
        parts = conversation(example, LITERAL)
        (run,) = parts
        assert isinstance(run, Segment)
        (found,) = TextEncoder(bpe.path).rendered([parts], max_length=100_000)
    reference = Tokenizer.from_file(str(bpe.path))
    reference.no_truncation()
    reference.no_padding()
    assert found.ids.tolist() == reference.encode(run.text, add_special_tokens=False).ids
    assert bpe.text(found.ids[found.scored]).endswith(texts[1])


def test_prompts_before_a_templates_words_are_not_remembered_and_long_ones_not_given_at_once(bpe: Trained) -> None:
    encoder = TextEncoder(bpe.path)
    tracemalloc.start()
    for number in range(300):
        example = Example((Turn("user", f"{number} " + 500 * "cat "), Turn("assistant", "mat")), None)
        encoder.rendered([conversation(example, LITERAL)], max_length=64)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1 << 20
