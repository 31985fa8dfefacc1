"""`mixdpo generate | personalise | export`: talking to a policy, from a directory or the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixdpo.commands.artifacts import open_registry, registry_option
from mixdpo.errors import DataError

if TYPE_CHECKING:
    from mixdpo import MixturePolicy


annotator_option = click.option(
    "--annotator",
    help="For whom, where the policy's gate knows annotators.  [default: a stranger]",
)


def load_policy(root: Path, policy: str, location: str | None) -> MixturePolicy:
    """From a directory, or a reference into the registry that all commands of this project mean."""
    from mixdpo import MixturePolicy
    from mixdpo.registry import resolve_policy

    if Path(policy).exists():
        return MixturePolicy.from_pretrained(policy)
    return MixturePolicy.from_pretrained(resolve_policy(policy, open_registry(root, location)))


@click.command(
    epilog="""\b
Examples:
  mixdpo generate reviews@staging "This film"
  mixdpo generate data/policies/moe "I read this novel" --expert 1 --samples 3
  mixdpo generate reviews@staging "This film" --comparisons mine.jsonl
  mixdpo generate reviews@staging "This film" --annotator ann-12
"""
)
@click.argument("policy")
@click.argument("prompts", nargs=-1, required=True)
@click.option("--expert", type=int, help="Write with this expert only.  [default: draw one by the weights]")
@click.option("--mode", type=click.Choice(["sequence", "token", "argmax"]), default="sequence", show_default=True)
@click.option("--top", type=int, help="Of each prompt's experts let only so many take part.  [default: all]")
@click.option("--samples", default=1, show_default=True, help="Completions a prompt.")
@click.option("--max-new-tokens", default=48, show_default=True)
@click.option("--temperature", default=1.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--comparisons", type=click.Path(path_type=Path), help="JSON lines of one user's comparisons.")
@annotator_option
@registry_option
@click.pass_obj
def generate(
    root: Path,
    policy: str,
    prompts: tuple[str, ...],
    expert: int | None,
    mode: str,
    top: int | None,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    comparisons: Path | None,
    annotator: str | None,
    location: str | None,
) -> None:
    """Continue PROMPTS with POLICY (a directory, or a registry reference such as reviews@staging)."""
    mixture = load_policy(root, policy, location)
    _tell_strangers(mixture, annotator)
    weights = mixture.personalise(read_comparisons(comparisons), annotator) if comparisons else None
    rows = [prompt for prompt in prompts for _ in range(samples)]
    written = mixture.generate(
        rows,
        expert=expert,
        annotators=[annotator] * len(rows) if annotator is not None and weights is None else None,
        mode=mode,
        weights=weights,
        top=top,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    for prompt, text, author in zip(rows, written.texts, written.experts, strict=True):
        who = "all experts" if author < 0 else f"expert {author}"
        click.echo(f"{click.style(f'[{who}]', fg='cyan')} {prompt}{click.style(text, bold=True)}")


@click.command(epilog="\b\nExample:\n  mixdpo personalise reviews@staging mine.jsonl\n")
@click.argument("policy")
@click.argument("comparisons", type=click.Path(path_type=Path))
@annotator_option
@registry_option
@click.pass_obj
def personalise(root: Path, policy: str, comparisons: Path, annotator: str | None, location: str | None) -> None:
    """Weights over experts for one user, from a few of their COMPARISONS.

    COMPARISONS is a file of JSON lines with prompt, chosen and rejected. Nothing is trained.
    """
    mixture = load_policy(root, policy, location)
    _tell_strangers(mixture, annotator)
    rows = read_comparisons(comparisons)
    weights = mixture.personalise(rows, annotator).tolist()
    click.echo(f"{len(rows)} comparisons")
    for expert, weight in enumerate(weights):
        click.echo(f"expert {expert}  {weight:6.1%}  {'█' * round(40 * weight)}")


@click.command(epilog="\b\nExample:\n  mixdpo export reviews@staging 1 ./expert-1\n")
@click.argument("policy")
@click.argument("expert", type=int)
@click.argument("directory", type=click.Path(path_type=Path))
@registry_option
@click.pass_obj
def export(root: Path, policy: str, expert: int, directory: Path, location: str | None) -> None:
    """Write one EXPERT of POLICY as a plain Hugging Face causal language model."""
    click.echo(f"wrote {load_policy(root, policy, location).export_expert(expert, directory)}")


def _tell_strangers(mixture: MixturePolicy, annotator: str | None) -> None:
    """Say so where the gate would know the annotator by name, but does not: a typing error looks the same."""
    known = mixture.weighting.annotators
    if annotator is not None and known is not None and annotator not in known:
        some = ", ".join(known[:3])
        click.echo(
            f"{annotator} is none of the {len(known)} annotators whom this policy has met (such as {some}); "
            f"it is treated as a stranger",
            err=True,
        )


def read_comparisons(path: Path) -> list[dict[str, str]]:
    """JSON lines with prompt, chosen and rejected.

    Raises:
        DataError: the file is missing or empty, or a line is not such an object.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a file of JSON lines with prompt, chosen and rejected")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number} is not JSON ({error}); correct or remove it") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("prompt", "chosen", "rejected")):
            raise DataError(f"{path} line {number} needs text in prompt, chosen and rejected; got {line[:80]}")
        rows.append(row)
    if not rows:
        raise DataError(f"{path} holds no comparison; give at least one line with prompt, chosen and rejected")
    return rows


COMMANDS = [generate, personalise, export]
