"""The raw logit of the reward model on the whole conversation."""

from __future__ import annotations

import numpy as np

from instructmining.indicators.base import Measurements, RowIndicator
from instructmining.types import Column


def _reward(rows: Measurements) -> Column:
    return Column(np.asarray(rows.reward, dtype=np.float64))


REWARD = RowIndicator("reward", ("reward",), _reward)
