"""Scores in training: rewards for TRL's trainers, and filters for ``datasets``; needs neither FastAPI nor PyTorch."""

from instructmining_serving.training.filters import RowFilter
from instructmining_serving.training.rewards import RewardFunction
from instructmining_serving.training.scorers import TrainingScorer

__all__ = ["RewardFunction", "RowFilter", "TrainingScorer"]
