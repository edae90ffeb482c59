"""Computes reference values with the original models: transformers in float32."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from instructmining.errors import ExportError
from instructmining.inference.batching import Batch, batches
from instructmining.inference.references import References
from instructmining.tokenizing.truncation import Tokens
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.bidirectional import Pooling
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.heads import Dense
from instructmining_export.transformers_versions import config_changes

REWARD_GPT_NEOX = "gpt_neox_reward_model"  # the oasst reward model's own class, which transformers does not have
_BUDGET_TOKENS = 512


def read_config(checkpoint: Checkpoint) -> PretrainedConfig:
    """Read the checkpoint's config, with transformers' defaults filled in; of a Gemma 3 that sees images its text part.

    Raises:
        ExportError: transformers cannot read it.
    """
    config = _whole_config(checkpoint)
    text: PretrainedConfig = config.text_config if config.model_type == "gemma3" else config
    return text


def _whole_config(checkpoint: Checkpoint) -> PretrainedConfig:
    raw = checkpoint.config()
    changes = config_changes(raw)
    if raw.get("model_type") == REWARD_GPT_NEOX:
        config: PretrainedConfig = GPTNeoXConfig.from_dict(raw | changes)
        config.model_type = REWARD_GPT_NEOX
        return config
    try:
        config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
        if changes:
            config = type(config).from_dict(raw | changes)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{checkpoint.folder}: transformers cannot read its config: {_first_line(error)}") from error
    return config


def likelihoods(
    checkpoint: Checkpoint, texts: Sequence[Tokens], head: LinearHead | None = None
) -> tuple[References, References]:
    """Compute NLLs of the scored tokens and, in the same pass, a linear head's rewards.

    Args:
        checkpoint: of a causal language model.
        texts: of the role perplexity.
        head: a linear head on the last token's last hidden state; None for no rewards.
    """
    losses: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(texts)
    rewards: list[NDArray[np.float32]] = list(losses) if head is not None else []
    with original_model(AutoModelForCausalLM, checkpoint) as model:
        for batch in batches(texts, max_batch_tokens=_BUDGET_TOKENS):
            ids = torch.from_numpy(batch.ids)
            rows, positions = (torch.from_numpy(column) for column in batch.scored.T)
            with logits_at(model, rows, positions - 1) as states:
                logits = model(**_inputs(batch), use_cache=False).logits[0]
            nll = -torch.log_softmax(logits, dim=-1).gather(1, ids[rows, positions][:, None])[:, 0].numpy()
            for row, member in enumerate(batch.members):
                losses[member] = nll[batch.scored[:, 0] == row]
                if head is not None:
                    last = states[0][row, len(texts[member].ids) - 1].numpy().astype(np.float64)
                    rewards[member] = (last @ head.weight.T + head.bias).astype(np.float32)
    return References("nll", list(texts), losses), References("reward", list(texts) if rewards else [], rewards)


@contextmanager
def logits_at(model: PreTrainedModel, rows: torch.Tensor, positions: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Let a model compute logits at some positions alone: (1, n, words) of each forward pass inside.

    The model itself makes its logits, since some families scale or bound them; a hook hands it fewer states for that.

    Args:
        model: a causal language model.
        rows: int64 (n,) of the batch.
        positions: int64 (n,).

    Yields:
        A list that gets the last hidden states of each forward pass, (rows, width, hidden).
    """
    found: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, states: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        found.append(states[0])
        return (states[0][rows, positions][None],)

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        hook.remove()


def rewards(checkpoint: Checkpoint, texts: Sequence[Tokens], *, separator: int | None) -> References:
    """Compute the reward model's logit of each text with the model's own code, one text at a time.

    Args:
        checkpoint: of a sequence classifier with one label, or of the oasst GPT-NeoX reward model.
        texts: of the role reward.
        separator: id of the token after a pair's first text; None where texts are not pairs.
    """
    config = read_config(checkpoint)
    if config.model_type == REWARD_GPT_NEOX:
        return References("reward", list(texts), _neox_rewards(checkpoint, config, texts))
    values = []
    with original_model(AutoModelForSequenceClassification, checkpoint) as model:
        has_segments = getattr(config, "type_vocab_size", 0) > 1 and separator is not None
        for text in texts:
            arguments = {"input_ids": torch.from_numpy(text.ids)[None]}
            if has_segments:
                separators_before = np.cumsum(text.ids == separator) - (text.ids == separator)
                arguments["token_type_ids"] = torch.from_numpy(np.minimum(separators_before, 1))[None]
            values.append(model(**arguments).logits[0].numpy())
    return References("reward", list(texts), values)


def _neox_rewards(
    checkpoint: Checkpoint, config: PretrainedConfig, texts: Sequence[Tokens]
) -> list[NDArray[np.float32]]:
    """Apply ``out_proj`` to the last token's last hidden state, as the model's repository defines it."""
    config.model_type = GPTNeoXConfig.model_type
    model = GPTNeoXModel(config).eval()
    with checkpoint.weights() as weights:
        for name, parameter in model.named_parameters():
            parameter.data.copy_(torch.from_numpy(weights(name)))
        head = torch.nn.Linear(config.hidden_size, 1)
        head.weight.data.copy_(torch.from_numpy(weights("out_proj.weight")))
        head.bias.data.copy_(torch.from_numpy(weights("out_proj.bias")))
    with torch.inference_mode():
        values = [head(model(torch.from_numpy(text.ids)[None]).last_hidden_state[0, -1]).numpy() for text in texts]
    del model
    gc.collect()
    return values


def embeddings(
    checkpoint: Checkpoint, texts: Sequence[Tokens], *, pooling: Pooling, dense: Sequence[Dense] = ()
) -> References:
    """Compute unit vectors from the last hidden states, by their mean, the first or the last, then through layers."""
    values: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(texts)
    pool: dict[Pooling, Callable[[torch.Tensor], torch.Tensor]] = {
        "mean": lambda states: states.mean(dim=0),
        "cls": lambda states: states[0],
        "last": lambda states: states[-1],
    }
    with original_model(AutoModel, checkpoint) as model:
        for batch in batches(texts, max_batch_tokens=_BUDGET_TOKENS):
            states = model(**_inputs(batch)).last_hidden_state
            for row, member in enumerate(batch.members):
                pooled = pool[pooling](states[row, : len(texts[member].ids)])
                for layer in dense:
                    weight, bias = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
                    pooled = torch.nn.functional.linear(pooled, weight, bias)
                    pooled = torch.tanh(pooled) if layer.activation == "Tanh" else pooled
                values[member] = torch.nn.functional.normalize(pooled, dim=0).numpy()
    return References("embedding", list(texts), values)


def answers(checkpoint: Checkpoint, texts: Sequence[Tokens], *, yes: int, no: int) -> References:
    """Compute UniEval's p(Yes) / (p(Yes) + p(No)) at the first decoder step.

    Args:
        checkpoint: of a T5.
        texts: the questions.
        yes: id of the first token of "Yes".
        no: id of the first token of "No".
    """
    values: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(texts)
    with original_model(AutoModelForSeq2SeqLM, checkpoint) as model:
        start = model.config.decoder_start_token_id or 0
        for batch in batches(texts, max_batch_tokens=_BUDGET_TOKENS):
            first = torch.full((len(batch.ids), 1), start)
            logits = model(**_inputs(batch), decoder_input_ids=first).logits[:, 0]
            probabilities = torch.sigmoid(logits[:, yes] - logits[:, no]).numpy()
            for row, member in enumerate(batch.members):
                values[member] = probabilities[row : row + 1]
    return References("yes", list(texts), values)


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.from_numpy(batch.ids), "attention_mask": torch.from_numpy(batch.mask)}


def load_original(
    kind: type[_BaseAutoModelClass], checkpoint: Checkpoint, *, attention: str = "eager"
) -> PreTrainedModel:
    """Load the model in float32.

    Args:
        kind: transformers' class for the task.
        checkpoint: in the Hugging Face layout.
        attention: one of transformers' implementations.

    Raises:
        ExportError: transformers cannot load the checkpoint, or its weights do not fit the config.
    """
    with checkpoint.weights():
        pass  # raises an error that names the file where one is damaged
    try:
        model, loaded = kind.from_pretrained(
            checkpoint.folder,
            config=_whole_config(checkpoint),
            attn_implementation=attention,
            output_loading_info=True,
            **checkpoint.loading_arguments(),
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ExportError(f"{checkpoint.folder}: transformers cannot load it: {_first_line(error)}") from error
    # transformers fills missing weights with random numbers and only warns.
    missing = [name for name in loaded["missing_keys"] if "pooler" not in name or kind is not AutoModel]
    if missing:
        raise ExportError(
            f"{checkpoint.folder}: its weights lack {', '.join(sorted(missing)[:3])}; wanted {kind.__name__}"
        )
    found: PreTrainedModel = model
    return found


@contextmanager
def original_model(kind: type[_BaseAutoModelClass], checkpoint: Checkpoint) -> Iterator[PreTrainedModel]:
    """Load the model in float32; frees its memory at the end.

    Raises:
        ExportError: transformers cannot load the checkpoint, its weights do not fit the config, or its code fails in
            the block.
    """
    model = load_original(kind, checkpoint)
    try:
        with torch.inference_mode():
            yield model.eval()
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"{checkpoint.folder}: transformers cannot run it: {_first_line(error)}") from error
    finally:
        del model
        gc.collect()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
