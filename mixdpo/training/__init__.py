"""Training: the SFT reference, its cached log-probs, and expert policies by variational EM."""

from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.trainer import TrainingResult, train_mixture

__all__ = ["PreferencePairs", "TrainingResult", "train_mixture"]
