"""A study of this project, ready to run: its variants and seeds, and which of them are finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mixdpo.config import Params, load_params
from mixdpo.errors import ConfigError, DataError
from mixdpo.layout import Layout
from mixdpo.studies.cache import FigureCache
from mixdpo.studies.catalogue import find_study
from mixdpo.studies.runner import Row, run_variants
from mixdpo.studies.setting import Variant, load_study_params
from mixdpo.studies.study import LOG_LIKELIHOOD, NMI, Results, Study

if TYPE_CHECKING:
    from mixdpo.studies.world import World


@dataclass(frozen=True)
class Plan:
    """What is to be trained."""

    layout: Layout
    study: Study
    variants: tuple[Variant, ...]
    seeds: range

    @cached_property
    def cache(self) -> FigureCache:
        """Raises DataError where the pipeline has not left what studies build on."""
        layout = self.layout
        absent = [path for path in (layout.validated("scores"), layout.sft, layout.rewards) if not path.exists()]
        if absent:
            raise DataError(
                f"{absent[0]} does not exist, and studies build on it; run `dvc repro validate-scores` first (minutes)"
            )
        return FigureCache.of(self.params, layout)

    @property
    def trainings(self) -> list[tuple[Variant, int]]:
        return [(variant, seed) for variant in self.variants for seed in self.seeds]

    def finished(self) -> list[tuple[Variant, int]]:
        return [each for each in self.trainings if self.cache.path(each[0].setting, each[1]).is_file()]

    def run(self, say: Callable[[str], None]) -> Results:
        """Train what is not finished, one after the other; a line for each as it is done."""
        rows: list[Row] = []
        whole = len(self.trainings)
        for row in run_variants(self.variants, self.seeds, self.cache, self._world):
            rows.append(row)
            say(f"{self.study.name} {len(rows)}/{whole}  {_told(row)}")
        return Results(rows)

    @cached_property
    def params(self) -> Params:
        """The project's params.yaml."""
        return load_params(self.layout.root / "params.yaml")

    def _world(self) -> World:
        from mixdpo.studies.world import World

        return World.load(self.params, self.layout)


def plan(layout: Layout, name: str, seeds: int | None = None, only: Sequence[str] = ()) -> Plan:
    """The study `name` as studies/params.yaml has it.

    Args:
        seeds: 0 to this number less one; None: as many as the study's section says.
        only: `axis=value`, joined by commas where several must hold; variants that match one of these.

    Raises:
        ConfigError: no such study, a section that does not fit, or `only` matches nothing.
    """
    study = find_study(name)
    params = load_study_params(layout.study_params)
    grid = params.grid(name, study.grid)
    variants = study.variants(params.base, grid)
    chosen = tuple(variant for variant in variants if not only or any(map(variant.matches, only)))
    if not chosen:
        known = "\n  ".join(variant.key for variant in variants)
        raise ConfigError(f"no variant of {name} matches {' or '.join(only)}; it has\n  {known}")
    return Plan(layout, study, chosen, range(seeds or grid.seeds))


def _told(row: Row) -> str:
    likelihood, nmi = LOG_LIKELIHOOD.value(row.figures), NMI.value(row.figures)
    found = "" if nmi is None else f", NMI {nmi:.2f}"
    return f"{row.variant.key} seed {row.seed}: {likelihood:.3f} nats a pair{found}, {row.figures['seconds']:.0f} s"
