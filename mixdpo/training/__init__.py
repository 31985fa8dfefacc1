"""Training: the SFT reference, its cached log-probs, and expert policies by variational EM."""

from mixdpo.training.mixture import Mixture
from mixdpo.training.pairs import PreferencePairs
from mixdpo.training.run import Setup
from mixdpo.training.trainer import TrainingResult, train_mixture

__all__ = ["Mixture", "PreferencePairs", "Setup", "TrainingResult", "train_mixture"]
