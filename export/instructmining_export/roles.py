"""Exports a checkpoint to a role of a bundle: reference values, then the graph, then the parity gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export import families, originals, role_texts, templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.plans import SCORE, GraphPlan, Planner
from instructmining_export.role_graphs import GraphWriter, Report, ServedRole
from instructmining_export.sentences import SentenceModel
from instructmining_export.tokenizing import load_tokenizer
from instructmining_export.transformers_versions import graph_settings
from instructmining_export.via.choices import Via

UNIEVAL_MAX_TOKENS = 1024  # as in UniEval's own code


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for the export of every role."""

    precision: PrecisionName = "fp32"
    max_length: int | None = None  # tokens of the longest text; None for the model's own limit, at most 2,048
    report: Report = lambda _: None  # called with a message before each step
    via: Via = "auto"  # what makes the graphs

    def planner(self, checkpoint: Checkpoint, config: PretrainedConfig, max_length: int) -> Planner:
        """Return a planner of the checkpoint's graphs for texts of at most so many tokens."""
        return Planner(checkpoint, config, self.via, self.precision, max_length)

    def writer(self, bundle: BundleWriter) -> GraphWriter:
        """Return a writer of graphs into the bundle."""
        return GraphWriter(bundle, self.precision, self.report)


@dataclass(frozen=True, slots=True)
class RewardHead:
    """A linear reward head on a language model's last token, with its source for the manifest."""

    head: LinearHead
    source: dict[str, str]


def add_perplexity(
    bundle: BundleWriter,
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    template: dict[str, Any] | None = None,
    reward: RewardHead | None = None,
) -> None:
    """Add the role perplexity; with a head also the role reward, on the same graph and in the same pass.

    Args:
        bundle: gets the role.
        checkpoint: a causal language model.
        settings: of the export.
        template: in the manifest's form; None for the model's chat template, or plain text where it has none.
        reward: a linear head on the last token.

    Raises:
        ExportError: the family or one of its settings is not supported, the template cannot be proved, or the graph
            is not equal to its checkpoint.
    """
    config = originals.read_config(checkpoint)
    max_length = families.limit_tokens(config, asked=settings.max_length)
    head = reward.head if reward is not None else None
    plan = settings.planner(checkpoint, config, max_length).likelihoods(head)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    kind = "given"
    if template is None:
        kind = "the model's chat template" if tokenizer.chat_template else "plain text"
        bos = templates.begin_of_text(tokenizer.backend_tokenizer)
        template = templates.from_chat_template(tokenizer) if tokenizer.chat_template else templates.plain(bos)
    text = role_texts.conversations(bundle, "perplexity", tokenizer, template, max_length)
    settings.report(f"perplexity: computing reference values with transformers on {len(text.tokens)} texts")
    # References come first: this frees torch's copy of the weights before the graph is written and run.
    nll, rewards = originals.likelihoods(checkpoint, text.tokens, head)
    roles = [ServedRole("perplexity", nll, checkpoint.source, {"text": kind})]
    if reward is not None:
        roles.append(ServedRole("reward", rewards, reward.source, {"text": kind}))
    settings.writer(bundle).add(checkpoint, plan, text, roles)


def add_reward(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role reward, from a sequence classifier with one label or the oasst GPT-NeoX reward model.

    Raises:
        ExportError: as for :func:`add_perplexity`; or the model does not have exactly one label.
    """
    config = originals.read_config(checkpoint)
    is_oasst = config.model_type == originals.REWARD_GPT_NEOX
    if not is_oasst:
        _check_classifier(checkpoint, config)
    if is_oasst and settings.via not in {"auto", "own"}:
        raise ExportError(f"--via {settings.via}: transformers has no class for this reward model; use --via own")
    max_length = families.limit_tokens(config, asked=settings.max_length)
    planner = settings.planner(checkpoint, config, max_length)
    if not planner.reads_last_token():
        _add_pair_reward(bundle, checkpoint, settings, planner)
        return
    plan = planner.last_token_reward(*(("out_proj.weight", "out_proj.bias") if is_oasst else (SCORE, None)))
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    if not is_oasst and not tokenizer.chat_template:
        raise ExportError(
            f"{checkpoint.folder}: a decoder as a reward model needs a chat template, its tokenizer has none"
        )
    template = templates.open_assistant() if is_oasst else templates.from_chat_template(tokenizer)
    text = role_texts.conversations(bundle, "reward", tokenizer, template, max_length)
    model = "the original model" if is_oasst else "transformers"
    settings.report(f"reward: computing reference values with {model} on {len(text.tokens)} texts")
    references = originals.rewards(checkpoint, text.tokens, separator=None)
    kind = "OpenAssistant's format" if is_oasst else "the model's chat template"
    role = ServedRole("reward", references, checkpoint.source, {"text": kind})
    settings.writer(bundle).add(checkpoint, plan, text, [role])


def _check_classifier(checkpoint: Checkpoint, config: PretrainedConfig) -> None:
    architecture = (config.architectures or ["of no stated architecture"])[0]
    if not architecture.endswith("ForSequenceClassification"):
        raise ExportError(
            f"{checkpoint.folder}: a model {architecture}; the role reward wants one …ForSequenceClassification, or "
            "GPTNeoXRewardModel"
        )
    if config.num_labels != 1:
        raise ExportError(f"{checkpoint.folder}: a classifier of {config.num_labels} labels; a reward model has one")


def _add_pair_reward(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings, planner: Planner) -> None:
    tokenizer = load_tokenizer(checkpoint, words=planner.config.vocab_size)
    separator = tokenizer.sep_token_id
    plan = planner.pair_reward(separator)
    template = templates.pair(tokenizer.backend_tokenizer)
    text = role_texts.conversations(bundle, "reward", tokenizer, template, planner.max_length)
    settings.report(f"reward: computing reference values with transformers on {len(text.tokens)} texts")
    references = originals.rewards(checkpoint, text.tokens, separator=separator)
    kind = "the tokenizer's pair of prompt and response"
    role = ServedRole("reward", references, checkpoint.source, {"text": kind})
    settings.writer(bundle).add(checkpoint, plan, text, [role])


def add_embedding(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role embedding: unit vectors, pooled as the model's sentence-transformers files say.

    Raises:
        ExportError: as for :func:`add_perplexity`; or the files name a module that the graph does not support.
    """
    model = SentenceModel.read(checkpoint.folder)
    inner = Checkpoint(model.folder, checkpoint.source)
    config = originals.read_config(inner)
    if not model.stated and config.model_type in families.SENTENCE_DECODERS:
        raise ExportError(
            f"{checkpoint.folder}: no sentence-transformers files; a decoder in the role embedding needs modules.json "
            "and the pooling that it names"
        )
    usual = model.max_length or families.DEFAULT_MAX_LENGTH
    max_length = families.limit_tokens(config, asked=settings.max_length, usual=usual)
    plan = settings.planner(inner, config, max_length).embedding(model.pooling, model.dense)
    tokenizer = load_tokenizer(inner, words=config.vocab_size)
    text = role_texts.documents(
        bundle, tokenizer, templates.document(tokenizer.backend_tokenizer, model.prompt), max_length
    )
    settings.report(f"embedding: computing reference values with transformers on {len(text.tokens)} texts")
    references = originals.embeddings(inner, text.tokens, pooling=model.pooling, dense=model.dense)

    details: dict[str, object] = {
        "pooling": model.pooling,
        "pooling_from": "the model's files"
        if model.stated
        else "assumed: the model has no sentence-transformers files",
        "unit_length_from": "the model's files" if model.normalized else "added: knn_6 is defined on unit vectors",
    }
    role = ServedRole("embedding", references, checkpoint.source, details)
    settings.writer(bundle).add(inner, plan, text, [role])


def add_unieval(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role unieval: a T5 that answers three questions about a response with Yes or No.

    Raises:
        ExportError: as for :func:`add_perplexity`.
    """
    if settings.via not in {"auto", "own"}:
        raise ExportError(f"--via {settings.via}: the role unieval has a graph of our own only; use --via own")
    config = originals.read_config(checkpoint)
    model_class = families.choose(families.SEQUENCE_TO_SEQUENCE, config, wanted_for="unieval")
    max_length = families.limit_tokens(config, asked=settings.max_length, usual=UNIEVAL_MAX_TOKENS)
    model = model_class.from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    yes, no = (tokenizer(answer).input_ids[0] for answer in ("Yes", "No"))
    if yes == no:
        raise ExportError(f"{checkpoint.folder}: its tokenizer gives 'Yes' and 'No' the same first token")
    text = role_texts.questions(bundle, tokenizer, max_length)
    settings.report(f"unieval: computing reference values with transformers on {len(text.tokens)} texts")
    references = originals.answers(checkpoint, text.tokens, yes=yes, no=no)

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        return t5.build(model, weights, yes=yes, no=no, precision=precision, device=device)

    role = ServedRole("unieval", references, checkpoint.source, {"yes": yes, "no": no})
    settings.writer(bundle).add(checkpoint, GraphPlan.own(build), text, [role])
