from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import altered_bundle
import pytest
from altered_bundle import Manifest

from instructmining import Bundle, Rule
from instructmining.errors import BundleError, RuleError
from instructmining.indicators.plan import Plan, indicator_names, plan

QUESTIONS = ("naturalness", "coherence", "understandability")


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return Bundle.open(small_bundle)


@pytest.fixture
def altered(small_bundle: Path, tmp_path: Path) -> Callable[[Callable[[Manifest], object]], Bundle]:
    """The small bundle with its manifest changed."""

    def open_altered(change: Callable[[Manifest], object]) -> Bundle:
        return Bundle.open(altered_bundle.edit(altered_bundle.copy(small_bundle, tmp_path), change))

    return open_altered


def add_unieval(manifest: Manifest) -> None:
    manifest["roles"]["unieval"] = manifest["roles"]["embedding"]


def streams(work: Plan) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    """Of each stream: the folder of its graph, its text, the outputs wanted and the roles served."""
    return [(s.role.graph.parent.name, s.text, s.outputs, s.roles) for s in work.streams]


def test_perplexity_and_reward_of_one_graph_and_template_are_one_stream(bundle: Bundle) -> None:
    work = plan(bundle, None, ["perplexity", "reward"])
    assert streams(work) == [("perplexity", "conversation", ("reward", "nll"), ("reward", "perplexity"))]


@pytest.mark.parametrize(
    "difference",
    [
        {"max_length": 256},
        {"tokenizer": "embedding/tokenizer.json"},
        {"template": {"gaps": {"start>user": [], "user>assistant": [], "assistant>end": []}}},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_roles_of_one_graph_that_see_another_text_are_streams_of_their_own(
    altered: Callable[[Callable[[Manifest], object]], Bundle], difference: dict[str, object]
) -> None:
    work = plan(altered(lambda m: m["roles"]["reward"].update(difference)), None, ["perplexity", "reward"])
    assert streams(work) == [
        ("perplexity", "conversation", ("reward",), ("reward",)),
        ("perplexity", "conversation", ("nll",), ("perplexity",)),
    ]


def test_ifd_takes_the_conversations_of_perplexity_and_the_responses_alone(bundle: Bundle) -> None:
    work = plan(bundle, None, ["perplexity", "ifd"])
    assert streams(work) == [
        ("perplexity", "conversation", ("nll",), ("perplexity",)),
        ("perplexity", "responses", ("nll",), ("perplexity",)),
    ]
    assert work.needs == {"conversation_nll", "response_nll"}


def test_each_text_goes_once_through_each_graph_where_everything_is_asked_for(bundle: Bundle) -> None:
    work = plan(bundle, Rule.load("paper-v1"), ["ifd", "perplexity", "mtld", "input_length"])
    assert sorted(streams(work)) == [
        ("embedding", "document", ("embedding",), ("embedding",)),
        ("perplexity", "conversation", ("reward", "nll"), ("reward", "perplexity")),
        ("perplexity", "responses", ("nll",), ("perplexity",)),
    ]


def test_each_question_is_a_stream_of_its_own_through_one_graph(
    altered: Callable[[Callable[[Manifest], object]], Bundle],
) -> None:
    work = plan(altered(add_unieval), Rule.load("paper-v3"), ["coherence"])
    assert streams(work) == [
        ("perplexity", "conversation", ("reward",), ("reward",)),
        *(("embedding", question, ("yes",), ("unieval",)) for question in QUESTIONS),
    ]
    assert [indicator.column for indicator in work.indicators] == ["reward", *QUESTIONS]


def test_a_question_that_is_not_asked_for_is_no_stream(
    altered: Callable[[Callable[[Manifest], object]], Bundle],
) -> None:
    work = plan(altered(add_unieval), None, ["understandability"])
    assert streams(work) == [("embedding", "understandability", ("yes",), ("unieval",))]


def test_texts_and_counts_need_no_graph(bundle: Bundle) -> None:
    work = plan(bundle, None, ["mtld", "output_length", "input_length"])
    assert work.streams == ()
    assert work.needs == {"prompt_tokens", "response_tokens"}


def test_indicators_stand_in_the_order_of_the_columns_and_once_each(bundle: Bundle) -> None:
    work = plan(bundle, Rule.load("paper-v1"), ["ifd", "reward", "input_length", "ifd"])
    assert [indicator.column for indicator in work.indicators] == [
        "input_length",
        "output_length",
        "reward",
        "knn_6",
        "ifd",
    ]


def test_nothing_asked_for_is_nothing_to_do(bundle: Bundle) -> None:
    assert plan(bundle, None, []) == Plan((), (), frozenset())


def test_all_is_every_column_that_the_bundles_roles_give_in_column_order(
    bundle: Bundle, altered: Callable[[Callable[[Manifest], object]], Bundle]
) -> None:
    row_columns = ["input_length", "output_length", "reward", "perplexity", "mtld", "knn_6"]
    assert indicator_names("all", bundle) == [*row_columns, "ifd"]
    everything = altered(add_unieval)
    without_neighbours = [column for column in row_columns if column != "knn_6"]
    assert indicator_names("all", bundle, neighbours=False) == [*without_neighbours, "ifd"]
    assert indicator_names("knn_6", bundle, neighbours=False) == ["knn_6"]
    assert indicator_names(" all ", everything) == [*row_columns, *QUESTIONS, "ifd"]
    assert [
        indicator.column for indicator in plan(everything, None, indicator_names("all", everything)).indicators
    ] == [
        *row_columns,
        *QUESTIONS,
        "ifd",
    ]


def test_columns_that_are_named_are_taken_whatever_the_bundle_has(bundle: Bundle) -> None:
    assert indicator_names("coherence, mtld,", bundle) == ["coherence", "mtld"]
    assert indicator_names(("coherence", "mtld"), bundle) == ["coherence", "mtld"]


def test_paper_v3_without_unieval_names_the_role_and_says_how_to_get_it(bundle: Bundle) -> None:
    with pytest.raises(BundleError) as found:
        plan(bundle, Rule.load("paper-v3"), [])
    message = str(found.value)
    assert "has no role 'unieval', which 'naturalness' (rule 'paper-v3') needs" in message
    assert "--unieval MODEL" in message


@pytest.mark.parametrize(
    ("role", "column"),
    [
        ("embedding", "knn_6"),
        ("reward", "reward"),
        ("perplexity", "ifd"),
        ("perplexity", "perplexity"),
        ("unieval", "naturalness"),
    ],
)
def test_a_role_that_the_bundle_lacks_is_named_with_the_column_that_needs_it(
    altered: Callable[[Callable[[Manifest], object]], Bundle], role: str, column: str
) -> None:
    def change(manifest: Manifest) -> None:
        manifest["roles"].pop(role, None)
        manifest["length_tokenizer"] = next(iter(manifest["roles"]))

    lacking = altered(change)
    with pytest.raises(BundleError, match=rf"has no role '{role}', which '{column}' needs"):
        plan(lacking, None, [column])
    assert [indicator.column for indicator in plan(lacking, None, ["mtld"]).indicators] == ["mtld"]
    assert column not in indicator_names("all", lacking)


def test_an_indicator_asked_for_beside_a_rule_is_not_said_to_be_the_rules(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"which 'coherence' needs"):
        plan(bundle, Rule.load("paper-v1"), ["coherence"])


def test_unknown_columns_are_all_named_with_those_that_are_known(bundle: Bundle) -> None:
    with pytest.raises(RuleError, match=r"indicators: no indicator 'fluency', 'wit'. There are: .*ifd"):
        plan(bundle, None, ["wit", "mtld", "fluency"])


def test_a_rule_with_an_unknown_term_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(RuleError, match="rule 'mine': no indicator 'fluency'"):
        plan(bundle, Rule("mine", 0.0, {"fluency": 1.0}), [])
