from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mixdpo.evaluation import content, plots, run_content
from mixdpo.evaluation.examples import examples
from mixdpo.evaluation.figures import draw_figures, read_curve
from mixdpo.evaluation.headline import headline
from mixdpo.evaluation.heldout import HeldOut
from mixdpo.evaluation.report import Report, render_html, render_markdown
from mixdpo.evaluation.samples import Prompts
from mixdpo.evaluation.tables import responsibilities_table, samples_table

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = '<script>alert("x")</script> | **bold** [a](javascript:b)'
SUMMARY = {
    "experts": 3,
    "weights": "gate",
    "latent": "annotator",
    "steps": 1200,
    "pairs": 1920,
    "annotators": 240,
    "validation_marginal": -0.41,
    "findings": [{"name": "dead-expert", "message": "expert 2 explains 0.0% of the pairs"}],
}
VERDICT = {"passed": True, "rows": 1000, "accepted": 990, "quarantined": 10}
QUALITY = {
    "schema": 1,
    "dimensions": {
        "sentiment": {
            "annotator": {"test_texts": 1200, "accuracy": 0.9, "auc": None},
            "judge": {"test_texts": 1200, "accuracy": 0.88, "auc": 0.95},
            "agreement": {"spearman": 0.8},
        }
    },
}


@pytest.fixture(scope="module")
def report(
    evaluated: dict[str, Any], pairs: HeldOut, prompts: Prompts, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Report, Path]:
    """A report on the constructed run, and the folder of its figures; every completion is hostile."""
    directory = tmp_path_factory.mktemp("figures")
    metrics = evaluated["metrics"]
    curve = directory / "train-mix.csv"
    curve.write_text(
        "step,train_marginal,validation_marginal,elbo,entropy_q,usage_0,usage_1\n1,-0.7,,-0.7,0.9,0.5,0.5\n"
    )
    rows = responsibilities_table(evaluated["opinions"], pairs)
    pictures = draw_figures(metrics, rows, {"mix": read_curve(curve)}, directory)
    samples = samples_table(list(evaluated["samples"].values()), prompts)
    place = samples.column_names.index("completion")
    samples = samples.set_column(place, "completion", pa.array([HOSTILE] * samples.num_rows))
    sections = [
        content.served(metrics),
        content.preferences(metrics),
        content.rewards(metrics),
        content.specialisation(metrics, pictures),
        content.cost(metrics),
        run_content.training({"mix": SUMMARY}),
        run_content.reward_models(QUALITY, ["sentiment"]),
        run_content.validation({"reviews": VERDICT}, {"reviews": "validation-reviews.html"}),
    ]
    shown = examples(samples, metrics["dimensions"], 2)
    return Report("demo", 7, headline(metrics), sections, shown), directory


class Page(HTMLParser):
    """What a browser would load, and which elements are left open."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(report: tuple[Report, Path]) -> None:
    text = render_html(*report)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert "script" not in page.tags
    assert page.tags.count("img") == 8
    assert all(load.startswith(("data:image/png;base64,", "#", "validation-")) for load in page.loads)
    assert "url(" not in text


def test_texts_of_the_model_are_texts_on_the_page_and_in_markdown(report: tuple[Report, Path]) -> None:
    page, marked = render_html(*report), render_markdown(report[0])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<script>" not in marked
    assert "\\<script\\>" in marked
    assert "](javascript" not in marked


def test_the_headline_leads_and_findings_are_loud(report: tuple[Report, Path]) -> None:
    page, marked = render_html(*report), render_markdown(report[0])
    for text in (page, marked):
        assert text.index("Once it knows 4 comparisons") < text.index("Held-out preferences")
        assert "Worst served by mix" in text
        assert "expert 2 explains 0.0% of the pairs" in text
        assert "validation-reviews.html" in text
    assert marked.startswith("# demo, seed 7\n")


def test_markdown_tables_are_even_and_pictures_exist(report: tuple[Report, Path]) -> None:
    marked = render_markdown(report[0])
    for block in re.findall(r"(?:^\|.*\n)+", marked, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    named = re.findall(r"!\[[^\]]*\]\(figures/([^)]+)\)", marked)
    assert len(named) == 8
    for name in named:
        assert (report[1] / name).read_bytes().startswith(PNG)


def test_figures_are_the_same_bytes_each_time(
    evaluated: dict[str, Any], report: tuple[Report, Path], tmp_path: Path
) -> None:
    plots.save(plots.reward_bars(evaluated["metrics"]), tmp_path / "rewards.png")
    assert (tmp_path / "rewards.png").read_bytes() == (report[1] / "rewards.png").read_bytes()


def test_unknown_styles_draw_no_style_figures_and_the_text_says_why(
    evaluated: dict[str, Any], pairs: HeldOut, tmp_path: Path
) -> None:
    metrics = evaluated["unknown"]
    rows = responsibilities_table(evaluated["opinions"], pairs)
    pictures = draw_figures(metrics, rows, {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"rewards.png", "frontier.png", "few-shot.png", "routing.png"}
    assert "reads ready preferences" in content.served(metrics).text
    assert "not whether it is right" in content.specialisation(metrics, pictures).text
    sections = [content.served(metrics), content.preferences(metrics), content.specialisation(metrics, pictures)]
    assert "None" not in render_html(Report("reviews", 0, headline(metrics), sections, []), tmp_path)


def test_a_curve_may_have_gaps(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,validation_marginal\n1,\n2,-0.5\n")
    curve = read_curve(path)
    np.testing.assert_array_equal(curve["validation_marginal"], [np.nan, -0.5])
    path.write_text("")
    assert read_curve(path) == {}


def test_examples_are_the_first_prompts_one_completion_an_expert(evaluated: dict[str, Any], prompts: Prompts) -> None:
    found = examples(samples_table(list(evaluated["samples"].values()), prompts), ["grammar"], 2)
    assert [example.prompt for example in found] == ["prompt 0", "prompt 1"]
    assert [each.author for each in found[0].completions] == [
        *("sft", "dpo"),
        *("mix, expert 0", "mix, expert 1", "mix, expert 2"),
    ]
    assert examples(samples_table(list(evaluated["samples"].values()), prompts), ["grammar"], 0) == []
