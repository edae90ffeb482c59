"""Exports a checkpoint to a role of a bundle: reference values, then the graph, then the parity gate."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from instructmining.bundle import PrecisionName, RoleName
from instructmining.bundle.template import Part, Template
from instructmining.errors import ExportError, RowError
from instructmining.inference.references import Agreement, References
from instructmining.tokenizing.templates import conversation, document, question
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import Tokens
from instructmining.types import Example
from instructmining_export import families, originals, templates
from instructmining_export.bundles import BundleWriter, RoleEntry
from instructmining_export.calibration import Calibration, calibrate
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save, save_variant
from instructmining_export.parity import ParityError, check, parity_examples
from instructmining_export.sentences import SentenceModel
from instructmining_export.tokenizing import load_tokenizer, save_tokenizer
from instructmining_export.transformers_versions import graph_settings

UNIEVAL_MAX_TOKENS = 1024  # as in UniEval's own code
_FIRST_KEPT = 1 / 16  # share of products kept in float32 after an int8 graph fails its gate; doubles at each failure
_LEAST_TEXTS = 100  # parity rows that a template must be able to hold

Report: TypeAlias = Callable[[str], None]


class Build(Protocol):
    """Builds a role's graph."""

    def __call__(self, weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        """Build it for a kind of device."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for the export of every role."""

    precision: PrecisionName = "fp32"
    max_length: int | None = None  # tokens of the longest text; None for the model's own limit, at most 2,048
    report: Report = lambda _: None  # called with a message before each step


@dataclass(frozen=True, slots=True)
class RewardHead:
    """A linear reward head on a language model's last token, with its source for the manifest."""

    head: LinearHead
    source: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Text:
    """A role's tokenizer, template and length limit, and the parity texts as its tokens."""

    tokenizer: Path
    template: dict[str, Any]
    max_length: int
    bos: str | None
    tokens: list[Tokens]


@dataclass(frozen=True, slots=True)
class _Role:
    """A role that a graph serves, with the reference values it must reproduce."""

    name: RoleName
    references: References
    source: dict[str, str]
    details: dict[str, object] = field(default_factory=dict)  # further entries for the manifest


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
    backbone_class = families.choose(families.CAUSAL, config, wanted_for="perplexity")
    max_length = families.limit_tokens(config, asked=settings.max_length)
    backbone = backbone_class.from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    kind = "given"
    if template is None:
        kind = "the model's chat template" if tokenizer.chat_template else "plain text"
        bos = templates.begin_of_text(tokenizer.backend_tokenizer)
        template = templates.from_chat_template(tokenizer) if tokenizer.chat_template else templates.plain(bos)
    text = _conversations(bundle, "perplexity", tokenizer, template, max_length)
    settings.report(f"perplexity: computing reference values with transformers on {len(text.tokens)} texts")
    head = reward.head if reward is not None else None
    # References come first: this frees torch's copy of the weights before the graph is written and run.
    nll, rewards = originals.likelihoods(checkpoint, text.tokens, head)
    roles = [_Role("perplexity", nll, checkpoint.source, {"text": kind})]
    if reward is not None:
        roles.append(_Role("reward", rewards, reward.source, {"text": kind}))

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        return causal.build(backbone, weights, vocabulary=True, reward=head, precision=precision, device=device)

    _export(bundle, checkpoint, settings, text, roles, build)


def add_reward(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role reward, from a sequence classifier with one label or the oasst GPT-NeoX reward model.

    Raises:
        ExportError: as for :func:`add_perplexity`; or the model does not have exactly one label.
    """
    config = originals.read_config(checkpoint)
    is_oasst = config.model_type == originals.REWARD_GPT_NEOX
    if not is_oasst:
        _check_classifier(checkpoint, config)
    if config.model_type not in families.REWARD_DECODERS:
        _add_pair_reward(bundle, checkpoint, settings, config)
        return
    max_length = families.limit_tokens(config, asked=settings.max_length)
    backbone = families.REWARD_DECODERS[config.model_type].from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    if not is_oasst and not tokenizer.chat_template:
        raise ExportError(
            f"{checkpoint.folder}: a decoder as a reward model needs a chat template, its tokenizer has none"
        )
    template = templates.open_assistant() if is_oasst else templates.from_chat_template(tokenizer)
    text = _conversations(bundle, "reward", tokenizer, template, max_length)
    model = "the original model" if is_oasst else "transformers"
    settings.report(f"reward: computing reference values with {model} on {len(text.tokens)} texts")
    references = originals.rewards(checkpoint, text.tokens, separator=None)
    names = ("out_proj.weight", "out_proj.bias") if is_oasst else ("score.weight", None)

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        head = LinearHead.read(weights, *names)
        return causal.build(backbone, weights, vocabulary=False, reward=head, precision=precision, device=device)

    kind = "OpenAssistant's format" if is_oasst else "the model's chat template"
    _export(bundle, checkpoint, settings, text, [_Role("reward", references, checkpoint.source, {"text": kind})], build)


def _check_classifier(checkpoint: Checkpoint, config: PretrainedConfig) -> None:
    architecture = (config.architectures or ["of no stated architecture"])[0]
    if not architecture.endswith("ForSequenceClassification"):
        raise ExportError(
            f"{checkpoint.folder}: a model {architecture}; the role reward wants one …ForSequenceClassification, or "
            "GPTNeoXRewardModel"
        )
    if config.num_labels != 1:
        raise ExportError(f"{checkpoint.folder}: a classifier of {config.num_labels} labels; a reward model has one")


def _add_pair_reward(
    bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings, config: PretrainedConfig
) -> None:
    backbone_class = families.choose(families.ENCODERS, config, wanted_for="reward")
    max_length = families.limit_tokens(config, asked=settings.max_length)
    backbone = backbone_class.from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    text = _conversations(bundle, "reward", tokenizer, templates.pair(tokenizer.backend_tokenizer), max_length)
    separator = tokenizer.sep_token_id
    settings.report(f"reward: computing reference values with transformers on {len(text.tokens)} texts")
    references = originals.rewards(checkpoint, text.tokens, separator=separator)

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        return bidirectional.build_reward(backbone, weights, separator=separator, precision=precision, device=device)

    role = _Role("reward", references, checkpoint.source, {"text": "the tokenizer's pair of prompt and response"})
    _export(bundle, checkpoint, settings, text, [role], build)


def add_embedding(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role embedding: unit vectors, pooled as the model's sentence-transformers files say.

    Raises:
        ExportError: as for :func:`add_perplexity`; or the files name a module that the graph does not support.
    """
    model = SentenceModel.read(checkpoint.folder)
    inner = Checkpoint(model.folder, checkpoint.source)
    config = originals.read_config(inner)
    backbone_class = families.choose(families.SENTENCE_ENCODERS, config, wanted_for="embedding")
    if not model.stated and config.model_type not in families.ENCODERS:
        raise ExportError(
            f"{checkpoint.folder}: no sentence-transformers files; a decoder in the role embedding needs modules.json "
            "and the pooling that it names"
        )
    usual = model.max_length or families.DEFAULT_MAX_LENGTH
    max_length = families.limit_tokens(config, asked=settings.max_length, usual=usual)
    backbone = backbone_class.from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(inner, words=config.vocab_size)
    template = templates.document(tokenizer.backend_tokenizer, model.prompt)
    path = bundle.file_of("embedding", "tokenizer.json")
    save_tokenizer(tokenizer, path)
    texts = [document(example, Template.from_json(template, "template")) for example in parity_examples()]
    text = _Text(path, template, max_length, None, TextEncoder(path).rendered(texts, max_length=max_length))
    settings.report(f"embedding: computing reference values with transformers on {len(texts)} texts")
    references = originals.embeddings(inner, text.tokens, pooling=model.pooling, dense=model.dense)

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        return bidirectional.build_embedding(
            backbone, weights, pooling=model.pooling, dense=model.dense, precision=precision, device=device
        )

    details: dict[str, object] = {
        "pooling": model.pooling,
        "pooling_from": "the model's files"
        if model.stated
        else "assumed: the model has no sentence-transformers files",
        "unit_length_from": "the model's files" if model.normalized else "added: knn_6 is defined on unit vectors",
    }
    _export(bundle, inner, settings, text, [_Role("embedding", references, checkpoint.source, details)], build)


def add_unieval(bundle: BundleWriter, checkpoint: Checkpoint, settings: Settings) -> None:
    """Add the role unieval: a T5 that answers three questions about a response with Yes or No.

    Raises:
        ExportError: as for :func:`add_perplexity`.
    """
    config = originals.read_config(checkpoint)
    model_class = families.choose(families.SEQUENCE_TO_SEQUENCE, config, wanted_for="unieval")
    max_length = families.limit_tokens(config, asked=settings.max_length, usual=UNIEVAL_MAX_TOKENS)
    model = model_class.from_config(graph_settings(config), max_length=max_length)
    tokenizer = load_tokenizer(checkpoint, words=config.vocab_size)
    yes, no = (tokenizer(answer).input_ids[0] for answer in ("Yes", "No"))
    if yes == no:
        raise ExportError(f"{checkpoint.folder}: its tokenizer gives 'Yes' and 'No' the same first token")
    template = templates.unieval()
    path = bundle.file_of("unieval", "tokenizer.json")
    save_tokenizer(tokenizer, path)
    form = Template.from_json(template, "template")
    names = list(form.questions)
    texts = [question(example, form, names[number % len(names)]) for number, example in enumerate(parity_examples())]
    text = _Text(path, template, max_length, None, TextEncoder(path).rendered(texts, max_length=max_length))
    settings.report(f"unieval: computing reference values with transformers on {len(texts)} texts")
    references = originals.answers(checkpoint, text.tokens, yes=yes, no=no)

    def build(weights: Weights, precision: Precision, device: DeviceKind = "cpu") -> GraphBuilder:
        return t5.build(model, weights, yes=yes, no=no, precision=precision, device=device)

    role = _Role("unieval", references, checkpoint.source, {"yes": yes, "no": no})
    _export(bundle, checkpoint, settings, text, [role], build)


def _conversations(
    bundle: BundleWriter,
    role: RoleName,
    tokenizer: PreTrainedTokenizerFast,
    template: dict[str, Any],
    max_length: int,
) -> _Text:
    """Save the tokenizer and tokenize the parity conversations, without those that the template cannot hold.

    Raises:
        ExportError: fewer conversations are left than the gate needs.
    """
    path = bundle.file_of(role, "tokenizer.json")
    save_tokenizer(tokenizer, path)
    form = Template.from_json(template, "template")
    rendered = [parts for example in parity_examples() if (parts := _rendered(example, form)) is not None]
    if len(rendered) < _LEAST_TEXTS:
        raise ExportError(
            f"role {role!r}: its template holds only {len(rendered)} of the {len(parity_examples())} parity rows; "
            f"wanted {_LEAST_TEXTS}"
        )
    tokens = TextEncoder(path).rendered(rendered, max_length=max_length)
    return _Text(path, template, max_length, templates.begin_of_text(tokenizer.backend_tokenizer), tokens)


def _rendered(example: Example, template: Template) -> list[Part] | None:
    try:
        return conversation(example, template)
    except RowError:
        return None


def _export(
    bundle: BundleWriter,
    checkpoint: Checkpoint,
    settings: Settings,
    text: _Text,
    roles: Sequence[_Role],
    build: Build,
) -> None:
    """Write the graph and pass the gate; an int8 graph that fails is retried with its worst products in float32."""
    gc.collect()
    path = text.tokenizer.with_name("model.onnx")
    name, precision = roles[0].name, Precision(settings.precision)
    calibration = Calibration()
    with checkpoint.weights() as weights:
        if settings.precision == "int8":
            settings.report(f"{name}: measuring the inputs of its products")
            calibration = calibrate(build(weights, Precision()), text.tokens)
            precision = replace(precision, smoothing=calibration.smoothing, inputs=calibration.inputs)
        while True:
            graph = build(weights, precision)
            candidates = [*graph.tables, *calibration.worst_first]
            kept_note = f", {len(precision.kept)} of {len(candidates)} weights in fp32" if precision.kept else ""
            settings.report(f"{name}: writing the graph in {settings.precision}{kept_note}")
            save(graph.model(), path)
            settings.report(f"{name}: running the gate on {len(text.tokens)} texts, in batches and each alone")
            try:
                found = check({role.name: role.references for role in roles}, path, precision=settings.precision)
                break
            except ParityError as error:
                if settings.precision != "int8" or len(precision.kept) == len(candidates):
                    raise
                settings.report(f"{error}; retrying with the most affected weights in fp32")
                # Tables come first: keeping them costs bytes but no time.
                tables, first = len(graph.tables), math.ceil(_FIRST_KEPT * len(calibration.worst_first))
                count = max(tables + first, 2 * len(precision.kept)) if precision.kept else tables
                precision = replace(precision, kept=frozenset(candidates[:count]))
        cuda = _add_cuda_graph(graph, path, roles, settings, lambda: build(weights, precision, "cuda"))
    for role in roles:
        entry = _add_role(bundle, text, role, found[role.name], graph, _graph_facts(path, precision.kept))
        entry.cuda_graph = bundle.name_of(cuda) if cuda is not None else None


def _add_cuda_graph(
    graph: GraphBuilder, path: Path, roles: Sequence[_Role], settings: Settings, build: Callable[[], GraphBuilder]
) -> Path | None:
    """Write the graph for CUDA, on the same weights; None where one graph is fast on both.

    Its numbers pass the same gate, on the CPU, which has all of its operators.
    """
    if settings.precision == "int8":  # runs on the CPU only
        return None
    variant = build()
    if variant.operators == graph.operators:
        return None
    settings.report(f"{roles[0].name}: writing the graph for CUDA and running the gate on it")
    file = path.with_name("model.cuda.onnx")
    save_variant(variant.model(), file, first=path)
    check({role.name: role.references for role in roles}, file, precision=settings.precision)
    return file


def _graph_facts(path: Path, kept: frozenset[str]) -> Mapping[str, object]:
    facts: dict[str, object] = {"graph_bytes": sum(file.stat().st_size for file in path.parent.glob("model*.onnx*"))}
    return facts | ({"kept_fp32": sorted(kept)} if kept else {})


def _add_role(
    bundle: BundleWriter,
    text: _Text,
    role: _Role,
    parity: Agreement,
    graph: GraphBuilder,
    facts: Mapping[str, object],
) -> RoleEntry:
    """Save the reference values and describe the role in the manifest."""
    references = bundle.file_of(role.name, "references.json")
    role.references.save(references)
    entry = bundle.roles[role.name] = RoleEntry(
        graph=bundle.name_of(text.tokenizer.with_name("model.onnx")),
        tokenizer=bundle.name_of(text.tokenizer),
        template=text.template,
        max_length=text.max_length,
        bos=text.bos,
        source=role.source,
        parity=parity.as_json(),
        references=bundle.name_of(references),
        precision=graph.precision.name,
        multiply_adds=graph.multiply_adds,
        details={**role.details, **facts},
    )
    return entry
