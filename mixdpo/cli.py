"""The `mixdpo` command: one verb a stage, and a few for people. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from mixdpo import __version__
from mixdpo.errors import ConfigError, MixDPOError
from mixdpo.layout import PROFILES
from mixdpo.parent import end_with_dvc

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Errors(click.Group):
    """Says what a user can mend in one paragraph, without a traceback; exit code 1, or 2 for wrong use."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MixDPOError as error:
            click.secho(f"mixdpo: {error}", fg="red", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # the reader of a pipe has gone, as `| head` does; click then ends quietly
        except OSError as error:
            # what the stages foresee is a MixDPOError already; this is the disk itself
            click.secho(f"mixdpo: {error}; earlier outputs are untouched, mend it and run again", fg="red", err=True)
            ctx.exit(1)


@click.group(
    cls=Errors,
    context_settings=CONTEXT,
    epilog="""\b
Examples:
  mixdpo doctor                       check machine and project, and say what to mend
  mixdpo profile use reviews          choose a ready-made params.yaml
  dvc repro                           run every stage that is not up to date
  mixdpo train moe                    run one stage by itself
  mixdpo generate reviews@staging "This film"
""",
)
@click.version_option(__version__, prog_name="mixdpo")
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="Project directory (params.yaml and dvc.yaml).  [default: here]",
)
@click.pass_context
def main(ctx: click.Context, root: Path) -> None:
    """Mixtures of expert policies from heterogeneous preferences (Mix-DPO, MoE-DPO)."""
    verb, processes = ctx.invoked_subcommand, int(os.environ.get("WORLD_SIZE", "1"))
    if verb != "train" and processes > 1:
        raise ConfigError(
            f"{processes} processes were started, but one does `mixdpo {verb}`, and each would write its outputs; "
            f"start one (`mixdpo train` alone takes several)"
        )
    # offline and quiet unless the user says otherwise: no tool of ours reports home
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "false")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers draws a bar for each small model that is read or written, over ours; 0 shows them, and downloads
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    end_with_dvc()
    ctx.obj = root


def _stage(verb: str, text: str, example: str) -> Callable[[Path], None]:
    """A verb that runs a stage without arguments."""

    @main.command(verb, help=text, epilog=f"\b\nExample:\n  {example}\n")
    @click.pass_obj
    def run(root: Path) -> None:
        _run(root, verb)

    return run


def _run(root: Path, stage: str, *arguments: str) -> None:
    from mixdpo.config import load_params
    from mixdpo.layout import Layout
    from mixdpo.lock import held

    params, layout = load_params(root / "params.yaml"), Layout(root)
    module = importlib.import_module(f"mixdpo.stages.{stage}")
    what = " ".join((stage, *arguments))
    # of several ranks the first one writes
    alone = os.environ.get("RANK", "0") == "0"
    with held(layout.lock(what.replace(" ", "-")), f"the outputs of {what}") if alone else nullcontext():
        written = module.run(params, layout, *arguments)
    for path in written:
        click.echo(f"wrote {path}")


_stage("prepare", "Read reviews from their source, clean them, give them ids and splits.", "mixdpo prepare")
_stage("rewards", "Train or fetch the reward models (annotators and judges) and measure them.", "mixdpo rewards")
_stage("sft", "Fine-tune the reference policy on the reviews.", "mixdpo sft")
_stage("candidates", "Sample completions of review openings from the SFT policy.", "mixdpo candidates")
_stage("annotate", "Score every candidate with every annotator reward model.", "mixdpo annotate")
_stage("preferences", "Let annotators label pairs, or read ready preferences.", "mixdpo preferences")
_stage("reference", "Compute log-probs and prompt features under the frozen SFT policy.", "mixdpo reference")
_stage("evaluate", "Held-out preferences, judged samples, specialisation.", "mixdpo evaluate")
_stage("report", "Write reports/index.html and reports/report.md.", "mixdpo report")


@main.command(epilog="\b\nExamples:\n  mixdpo validate reviews\n  mixdpo validate preferences\n")
@click.argument("table", type=click.Choice(["reviews", "scores", "preferences"]))
@click.pass_obj
def validate(root: Path, table: str) -> None:
    """Check TABLE; put bad rows into quarantine, stop where too much is wrong."""
    _run(root, "validate", table)


@main.command(epilog="\b\nExamples:\n  mixdpo describe reviews\n  mixdpo describe preferences\n")
@click.argument("part", type=click.Choice(PROFILES))
@click.pass_obj
def describe(root: Path, part: str) -> None:
    """Write the profile of PART of the data, which the data of later versions are compared with."""
    _run(root, "describe", part)


@main.command(epilog="\b\nExamples:\n  mixdpo train dpo\n  mixdpo train moe\n")
@click.argument("policy")
@click.pass_obj
def train(root: Path, policy: str) -> None:
    """Train POLICY (a name below `policies` in params.yaml); resumes where a killed run stopped."""
    _run(root, "train", policy)


@main.command(epilog='\b\nExample:\n  mixdpo register --reason "weekly retraining"\n')
@click.option("--reason", default="registered by `mixdpo register`", show_default=True, help="Kept in the log.")
@click.pass_obj
def register(root: Path, reason: str) -> None:
    """Publish the trained policy with its lineage and move the alias of params.yaml to it."""
    from mixdpo.config import load_params
    from mixdpo.layout import Layout
    from mixdpo.registry.display import registered
    from mixdpo.stages.register import register as publish

    click.echo(registered(publish(load_params(root / "params.yaml"), Layout(root), reason)))


def _verbs() -> None:
    """The verbs for people live in files of their own; importing them registers them."""
    from mixdpo.commands import (
        arrivals,
        artifacts,
        compose,
        doctor,
        drift,
        keys,
        policies,
        project,
        promotion,
        reproduction,
        sharing,
        studies,
        upkeep,
        versions,
    )

    for module in (
        *(project, doctor, arrivals, drift, artifacts, versions, promotion, reproduction, keys, upkeep),
        *(policies, compose, studies, sharing),
    ):
        for command in module.COMMANDS:
            main.add_command(command)


_verbs()

if __name__ == "__main__":
    sys.exit(main())
