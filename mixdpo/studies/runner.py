"""One variant, from annotators to held-out figures; and a whole study, cached variant by variant."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixdpo.studies.cache import FigureCache
from mixdpo.studies.setting import Setting, Variant

if TYPE_CHECKING:
    from mixdpo.studies.world import World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One finished training."""

    variant: Variant
    seed: int
    figures: dict[str, Any]


def run_setting(world: World, setting: Setting, seed: int) -> dict[str, Any]:
    """Label, train, judge: the figures of one setting (see `heldout_figures`), with what the training says of itself.

    Raises:
        DataError: too few candidates differ enough for these annotators. TrainingError: training cannot go on.
    """
    # torch and the models: not needed where all figures are cached
    from mixdpo.studies.figures import heldout_figures, prompt_routing
    from mixdpo.studies.labelling import OWN, compare
    from mixdpo.studies.training import judge, train

    comparisons = compare(world, setting, seed)
    started = time.process_time()
    mixture, result = train(world, setting, comparisons, seed)
    seconds = time.process_time() - started
    judgements = {name: judge(world, setting, mixture, pairs) for name, pairs in comparisons.heldout.items()}
    figures = heldout_figures(judgements[OWN], comparisons.heldout[OWN], seed)
    for name, pairs in comparisons.heldout.items():
        if name != OWN and "assignment" in figures:
            routes = prompt_routing(judgements[name], pairs, figures["assignment"], _favourites(setting))
            figures[name] = {**_scalars(heldout_figures(judgements[name], pairs, seed)), **routes}
    return {
        **figures,
        "experts": mixture.experts.experts,
        "training_pairs": len(comparisons.train),
        "steps": len(result.history),
        "validation_marginal": result.history[-1]["validation_marginal"],
        "findings": [finding.name for finding in result.findings],
        "seconds": round(seconds, 1),  # of the processor, training alone
    }


def _favourites(setting: Setting) -> dict[str, str]:
    """domain → the style that judges it most, relative to what else that style judges."""
    shares = {
        (domain, name): share * style.share / sum(style.domains.values())
        for name, style in setting.labelling.styles.items()
        if style.domains
        for domain, share in style.domains.items()
    }
    domains = sorted({domain for domain, _ in shares})
    return {
        domain: max((name for other, name in shares if other == domain), key=lambda name: shares[domain, name])
        for domain in domains
    }


def _scalars(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in ("people", "points")}


def run_variants(
    variants: Sequence[Variant], seeds: Iterable[int], cache: FigureCache, world: Callable[[], World]
) -> Iterator[Row]:
    """Every variant under every seed, variant by variant; `world` is asked for at the first that is not cached."""
    loaded: World | None = None
    for variant in variants:
        for seed in seeds:
            figures = cache.find(variant.setting, seed)
            if figures is None:
                loaded = loaded or world()
                figures = run_setting(loaded, variant.setting, seed)
                cache.keep(variant.setting, seed, figures)
            yield Row(variant, seed, figures)
