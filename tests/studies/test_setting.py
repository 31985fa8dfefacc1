from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mixdpo.errors import ConfigError
from mixdpo.studies.catalogue import MODULES, find_study
from mixdpo.studies.setting import Grid, Setting, Variant, load_study_params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base() -> Setting:
    return load_study_params(ROOT / "studies" / "params.yaml").base


@pytest.mark.parametrize("name", MODULES)
def test_every_study_makes_different_variants_of_the_committed_grid(name: str) -> None:
    params = load_study_params(ROOT / "studies" / "params.yaml")
    study = find_study(name)
    variants = study.variants(params.base, params.grid(name, study.grid))
    keys = [variant.key for variant in variants]
    assert len(set(keys)) == len(keys) > 1
    assert len({tuple(variant.labels) for variant in variants}) == 1


def test_a_changed_setting_is_checked(base: Setting) -> None:
    assert base.changed(policy={"experts": 2}).policy.experts == 2
    assert base.asking(train=7).labelling.annotators.train == 7
    assert base.asking(train=7).labelling.styles == base.labelling.styles
    with pytest.raises(ValueError, match="experts"):
        base.changed(policy={"experts": 0})


def test_a_variant_is_named_and_found_by_its_labels(base: Setting) -> None:
    variant = Variant({"beta": 0.1, "entropy": 0.0}, base)
    assert variant.key == "beta=0.1,entropy=0.0"
    assert variant.matches("beta=0.1")
    assert variant.matches("entropy=0.0,beta=0.1")
    assert not variant.matches("beta=0.1,entropy=0.1")
    assert not variant.matches("beta=0")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "does not exist"),
        ("base: [", "is not YAML"),
        ("experts: {seeds: 1}", "a mapping with `base`"),
        ("base: {crossed: 0}", "labelling: Field required"),
    ],
)
def test_faulty_parameters_are_told(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        load_study_params(path)


def test_a_faulty_section_is_told(base: Setting, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"base": base.model_dump(mode="json"), "experts": {"seeds": 0}}))
    params = load_study_params(path)
    with pytest.raises(ConfigError, match=r"section experts.*\n.*seeds.*greater than or equal to 1"):
        params.grid("experts", Grid)
    with pytest.raises(ConfigError, match="no section gates; it has experts"):
        params.grid("gates", Grid)
