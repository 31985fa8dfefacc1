"""The report as pages: one self-contained HTML file for people, one Markdown file for everything else."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from mixdpo.evaluation.content import Section, Table
from mixdpo.evaluation.examples import Example
from mixdpo.evaluation.headline import Headline
from mixdpo.evaluation.markdown import line, table


@dataclass(frozen=True)
class Report:
    profile: str
    seed: int
    headline: Headline
    sections: Sequence[Section]
    examples: Sequence[Example]


def render_html(report: Report, figures: Path) -> str:
    """The page with its pictures inside; every text of the data is escaped."""
    environment = _environment(autoescape=True)
    images = {
        picture.file: base64.b64encode((figures / picture.file).read_bytes()).decode("ascii")
        for section in report.sections
        for picture in section.pictures
    }
    return environment.from_string(_template("report.html.j2")).render(report=report, images=images) + "\n"


def render_markdown(report: Report) -> str:
    """The same in Markdown; pictures by their path beside the file."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = line
    environment.filters["table"] = _markdown_table
    return environment.from_string(_template("report.md.j2")).render(report=report) + "\n"


def _markdown_table(content: Table) -> str:
    return table(content.header, content.rows)


def _environment(autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        autoescape=autoescape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _template(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
