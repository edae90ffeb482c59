"""What each column says, in plain words, and when not to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from instructmining.types import KNN_COLUMNS, MARGIN, PREDICTION, SIDES


@dataclass(frozen=True, slots=True)
class ColumnWords:
    """The words of a column."""

    unit: str
    says: str
    doubt: str


_NEAREST = {name: k for k, name in KNN_COLUMNS.items()}
_LENGTH_DOUBT = "Counted with the tokenizer of the bundle; another model's tokens differ."
_UNIEVAL_DOUBT = (
    "The model was trained on summaries and dialogue: code, lists and other languages score low without being bad."
)
_WORDS = {
    "input_length": ColumnWords("tokens", "Length of everything before the response.", _LENGTH_DOUBT),
    "output_length": ColumnWords("tokens", "Length of the response.", _LENGTH_DOUBT),
    "reward": ColumnWords(
        "score of its model",
        "How much the reward model likes the response; higher is better liked.",
        "Only ranks within one bundle mean something. The demo's reward head is a demonstration.",
    ),
    "perplexity": ColumnWords(
        "per token",
        "How unexpected the response is to the language model; lower is more expected.",
        "A response of a few tokens can have any value, and a single one moves the mean: read the median.",
    ),
    "mtld": ColumnWords(
        "words",
        "How many words pass before they repeat; higher is a richer vocabulary.",
        "Short responses vary at random. Lists, code and tables are not prose.",
    ),
    "naturalness": ColumnWords("0 to 1", "UniEval: whether the response reads naturally.", _UNIEVAL_DOUBT),
    "coherence": ColumnWords("0 to 1", "UniEval: whether the response follows from what was said.", _UNIEVAL_DOUBT),
    "understandability": ColumnWords("0 to 1", "UniEval: whether the response can be understood.", _UNIEVAL_DOUBT),
    "ifd": ColumnWords(
        "ratio",
        "Perplexity of the response after its prompt, over that without it. Near 1 the prompt hardly helps; far below "
        "1 it says almost everything.",
        "Over a few tokens it says little. Above 1 prompt and response often do not belong together.",
    ),
    PREDICTION: ColumnWords(
        "log loss",
        "What the rule predicts for a model fine-tuned on rows like this; lower is better.",
        "It is as good as the rule fits your models. With another reward model than the rule's, its scale and order "
        "are not the paper's.",
    ),
}
_OTHER = ColumnWords("", "A column of the scored file.", "")
_PARTS = {
    f"{SIDES[0]}.": "Of the chosen side. ",
    f"{SIDES[1]}.": "Of the rejected side. ",
    f"{MARGIN}.": "The chosen side's value minus the rejected side's, of this quantity: ",
}


def words_of(column: str) -> ColumnWords:
    """Return the words of a column, of a row or of a side of a preference pair."""
    part, dot, name = column.partition(".")
    before = _PARTS.get(f"{part}.", "") if dot else ""
    words = _of_name(name if before else column)
    return ColumnWords(words.unit, f"{before}{words.says}", words.doubt)


def _of_name(name: str) -> ColumnWords:
    if name in _NEAREST:
        k = _NEAREST[name]
        which = "the nearest other row" if k == 1 else f"the {k}th nearest other row"
        return ColumnWords(
            "distance",
            f"How far {which} of the run lies, 0 to 2; near 0 the row is a repeat, far away it is alone of its kind.",
            "It depends on all rows of the run, and on the first 256 tokens alone: with more rows it falls.",
        )
    return _WORDS.get(name, _OTHER)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
