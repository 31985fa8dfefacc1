"""Training beyond one process: a grid of ranks that share the pairs of a step and the experts (docs/scaling.md)."""

from mixdpo.training.parallel.exchange import agree
from mixdpo.training.parallel.experts import SpreadExperts
from mixdpo.training.parallel.joining import joined, started
from mixdpo.training.parallel.passes import SpreadPasses, log_probs, passes_of
from mixdpo.training.parallel.ranks import ALONE, Ranks
from mixdpo.training.parallel.whole import load_whole, save_whole, spread, take_back, told_state

__all__ = [
    "ALONE",
    "Ranks",
    "SpreadExperts",
    "SpreadPasses",
    "agree",
    "joined",
    "load_whole",
    "log_probs",
    "passes_of",
    "save_whole",
    "spread",
    "started",
    "take_back",
    "told_state",
]
