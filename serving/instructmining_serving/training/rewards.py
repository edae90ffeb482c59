"""A column as the reward of TRL's trainers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from instructmining.bundle import Bundle
from instructmining.errors import InputError
from instructmining.reading.formats import FieldOptions
from instructmining.rules import Rule
from instructmining.scorer.scorer import Scorer
from instructmining.types import PREDICTION, Reject, ScoredRow
from instructmining_serving.training.scorers import TrainingScorer, conditions_of, passes, scorer_of

# TRL's fields, each a text or a list of messages; other keys of a message are the trainer's business.
_FIELDS = FieldOptions("prompt_response", unread="count")


class RewardFunction:
    """A column of ``score`` as a reward function of TRL's ``GRPOTrainer`` and ``RLOOTrainer``.

    Rewards are the numbers that ``score`` gives for the same rows, whatever else is in the batch. Picklable: a copy in
    another process opens its own models.

    Example:
        >>> trainer = GRPOTrainer(model, reward_funcs=RewardFunction("bundle"), ...)  # doctest: +SKIP
    """

    def __init__(
        self,
        scorer: TrainingScorer | Scorer | Bundle | str | Path | None = None,
        column: str = "reward",
        *,
        rule: str | Path | Rule | None = None,
        device: str = "auto",
        lower_is_better: bool | None = None,
        where: Sequence[str] | str = (),
        unscored: float | None = None,
    ) -> None:
        """Check the bundle and the columns; models open at the first batch.

        Args:
            scorer: a bundle, an open scorer, or one that several rewards share; by default the demo bundle.
            column: any column of ``score``.
            rule: for predicted_log_loss; by default the bundle's.
            device: "auto" and "cuda" mean the GPU numbered LOCAL_RANK, if that is set.
            lower_is_better: whether the column's values are negated; by default those of predicted_log_loss are, and no
                others.
            where: conditions on columns, such as "output_length>=5"; the reward of a completion that fails one is None,
                which TRL leaves out of its group.
            unscored: the reward of a completion that has no value, as an empty one; None leaves it out.

        Raises:
            BundleError: the bundle is damaged or lacks a role.
            RuleError: a column is not known, needs a rule or neighbours, or the scorer does not compute it.
            SelectionError: a condition has another form.
        """
        self.column = column
        self._conditions = conditions_of(where)
        needed = [column, *(condition.column for condition in self._conditions)]
        self.scorer = scorer_of(scorer, needed, rule, device)
        self._sign = -1 if (column == PREDICTION if lower_is_better is None else lower_is_better) else 1
        self._unscored = unscored
        self.__name__ = f"instructmining_{column}"  # TRL's metrics are rewards/instructmining_reward/mean, …

    def __call__(self, prompts: Sequence[object], completions: Sequence[object], **_: object) -> list[float | None]:
        """Return the reward of each completion, as TRL asks for it.

        Args:
            prompts: a text each, or a list of messages.
            completions: likewise, and as many.
            _: all else that TRL gives, which is not read.

        Raises:
            InputError: there are not as many completions as prompts.
            DeviceError: a graph fails.
        """
        if len(prompts) != len(completions):
            raise InputError(f"{len(prompts)} prompts and {len(completions)} completions; wanted as many of each")
        rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, completions, strict=True)]
        return [self._reward(row) for row in self.scorer.score(rows, _FIELDS)]

    def _reward(self, row: ScoredRow | Reject) -> float | None:
        if isinstance(row, Reject) or (value := row.columns[self.column]) is None:
            return self._unscored
        return self._sign * float(value) if passes(row, self._conditions) else None
