"""Expert policies and the weights that mix them. R rows, C completion tokens, D width, V vocabulary, K experts."""

from mixdpo.policy.mixture import MixturePolicy
from mixdpo.policy.sampling import Generations

__all__ = ["Generations", "MixturePolicy"]
