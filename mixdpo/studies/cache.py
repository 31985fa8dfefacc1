"""Figures of a variant, kept by what they depend on: an interrupted study goes on, a repeated one is instant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.files import code_digests, digest, directory_digest, file_digest, read_json, write_json
from mixdpo.layout import Layout
from mixdpo.studies.setting import Setting

# what decides a figure: packages and, of those that mostly draw and print, single modules
PACKAGES = ("objective", "policy", "training", "rewards")
MODULES = {
    "evaluation": ("heldout", "measure", "preference", "specialisation", "statistics"),
    "stages": ("preferences",),
    "studies": ("crossed_openings", "figures", "labelling", "runner", "training", "world"),
}


def world_key(params: Params, layout: Layout) -> str:
    """Digest of what studies take from the pipeline: scored candidates, reference policy, reward models, parameters."""
    left = [file_digest(layout.validated("scores")), *map(directory_digest, (layout.sft, layout.rewards))]
    values = [params.seed, params.compute.model_dump(), params.candidates.model_dump(mode="json")]
    return digest([left, values])


def _code() -> dict[str, str]:
    """sha256 (hex) by package or module."""
    place = Path(__file__).parents[1]
    modules = [Path(package, f"{module}.py") for package, names in MODULES.items() for module in names]
    return code_digests(*PACKAGES) | {module.as_posix(): file_digest(place / module) for module in modules}


@dataclass(frozen=True)
class FigureCache:
    """JSON files below `directory`, one for each setting, seed, world and state of the code."""

    directory: Path
    world: str
    code: dict[str, str]

    @classmethod
    def of(cls, params: Params, layout: Layout) -> FigureCache:
        return cls(layout.study_cache / "figures", world_key(params, layout), _code())

    def path(self, setting: Setting, seed: int) -> Path:
        return self.directory / f"{digest([setting.model_dump(mode='json'), seed, self.world, self.code])}.json"

    def find(self, setting: Setting, seed: int) -> dict[str, Any] | None:
        path = self.path(setting, seed)
        return read_json(path) if path.is_file() else None

    def keep(self, setting: Setting, seed: int, figures: dict[str, Any]) -> None:
        write_json(self.path(setting, seed), figures)
