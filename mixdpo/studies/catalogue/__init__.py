"""The studies, one module each. A new one is a module here and a section in studies/params.yaml."""

from __future__ import annotations

import importlib
from functools import cache

from mixdpo.errors import ConfigError
from mixdpo.studies.study import Study

MODULES = {
    "fixed-weights": "fixed_weights",
    "specialisation": "specialisation",
    "gates": "gates",
    "collapse": "collapse",
    "crossed": "crossed",
    "reward-noise": "reward_noise",
    "evidence": "evidence",
    "experts": "experts",
}


@cache
def find_study(name: str) -> Study:
    """Raises ConfigError where there is no such study."""
    if name not in MODULES:
        raise ConfigError(f"there is no study {name!r}; choose one of {', '.join(MODULES)}")
    study: Study = importlib.import_module(f"{__name__}.{MODULES[name]}").STUDY
    assert study.name == name
    return study
