"""Every study, whole, on a toy project: trained, cached, tabled and drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mixdpo.cli import main
from mixdpo.errors import ConfigError, DataError
from mixdpo.layout import Layout
from mixdpo.studies.catalogue import MODULES
from mixdpo.studies.figures import variance
from mixdpo.studies.plan import plan
from mixdpo.studies.study import LOG_LIKELIHOOD, NMI, figure


def mixdpo(project: Layout, *arguments: str) -> str:
    done = CliRunner().invoke(main, ["--root", str(project.root), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_a_study_leaves_its_table_rows_summary_and_picture(project: Layout, name: str) -> None:
    planned = plan(project, name)
    told = mixdpo(project, "study", "run", name)
    assert planned.study.question in told
    place = project.study(name)
    lines = (place / "rows.csv").read_text().splitlines()
    assert len(lines) == 1 + len(planned.trainings)
    assert len((place / "table.md").read_text().splitlines()) == 2 + len(planned.variants)
    assert json.loads((place / "summary.json").read_text())["trainings"] == len(planned.trainings)
    assert (place / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert planned.finished() == planned.trainings


def test_a_repeated_study_trains_nothing_and_says_the_same(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mixdpo(project, "study", "run", "experts")
    monkeypatch.setattr("mixdpo.studies.world.World.load", lambda *_: pytest.fail("the world was loaded"))
    assert mixdpo(project, "study", "run", "experts") == first


def test_a_part_of_the_grid_leaves_the_results_alone(project: Layout) -> None:
    table = project.study("experts") / "table.md"
    table.unlink(missing_ok=True)
    told = mixdpo(project, "study", "run", "experts", "--only", "experts=2")
    assert "a part of the grid" in told
    assert not table.exists()
    with pytest.raises(ConfigError, match=r"no variant of experts matches experts=9.*\n  experts=1\n  experts=2"):
        plan(project, "experts", only=["experts=9"])


def test_the_list_counts_what_is_done(project: Layout) -> None:
    plan(project, "experts").run(lambda _: None)
    lines = mixdpo(project, "study", "list").splitlines()
    assert [line.split()[0] for line in lines] == list(MODULES)
    assert next(line for line in lines if line.startswith("experts")).split()[1:4] == ["2", "of", "2"]


def test_what_changes_a_training_changes_its_place_in_the_cache(project: Layout) -> None:
    planned = plan(project, "experts")
    setting = planned.variants[0].setting
    places = {
        planned.cache.path(setting, 0),
        planned.cache.path(setting, 1),
        planned.cache.path(setting.asking(pairs=5), 0),
        planned.cache.path(setting.changed(training={"beta": 0.31}), 0),
    }
    assert len(places) == 4


def test_a_project_without_its_world_is_told_what_to_run(project: Layout, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "params.yaml").write_bytes(project.study_params.read_bytes())
    with pytest.raises(DataError, match=r"scores.parquet does not exist.*dvc repro validate-scores"):
        plan(Layout(tmp_path), "experts").finished()
    assert "experts           0 of   2" in mixdpo(Layout(tmp_path), "study", "list")


def test_figures_of_one_expert_have_no_latent(project: Layout) -> None:
    results = plan(project, "experts").run(lambda _: None)
    one, two = results.of(experts=1)[0].figures, results.of(experts=2)[0].figures
    assert NMI.value(one) is None
    assert np.isnan(results.mean(NMI.value, experts=1))
    assert LOG_LIKELIHOOD.value(one) == one["log_likelihood"]["mean"] < 0
    assert len(two["people"]["q"]) == 9
    assert len(two["points"]["evidence"]) == two["pairs"] == 36
    assert figure("no.such")(two) is None


def test_variance_is_that_of_certain_and_even_responsibilities() -> None:
    certain = np.eye(3)[[0, 1, 2] * 4]
    assert variance(certain) == pytest.approx(1.0)
    assert variance(np.full((6, 3), 1 / 3)) == pytest.approx(0.0)
    assert variance(np.eye(3)[[0] * 6]) == pytest.approx(0.0)


def test_equal_experts_never_part(project: Layout) -> None:
    results = plan(project, "fixed-weights").run(lambda _: None)
    spread = figure("margin_spread")
    assert results.mean(spread, policy="mix, equal full heads") < 1e-6
    assert results.mean(spread, policy="mix, latent of an annotator") > 1e-3
    dpo, equal = (
        results.mean(LOG_LIKELIHOOD.value, policy=name) for name in ("dpo, full head", "mix, equal full heads")
    )
    # not to the last digit: the gradient of K heads is clipped and scaled otherwise than that of one
    assert equal == pytest.approx(dpo, abs=1e-3)


def test_a_frozen_gate_is_fixed_weights(project: Layout) -> None:
    results = plan(project, "gates").run(lambda _: None)
    frozen, fixed = (results.mean(LOG_LIKELIHOOD.value, weights=name) for name in ("frozen gate", "fixed 1/K"))
    assert frozen == pytest.approx(fixed, abs=1e-6)
