"""`mixdpo compose`: a new mixture from experts of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixdpo.commands.artifacts import open_registry, registry_option
from mixdpo.commands.policies import load_policy

if TYPE_CHECKING:
    from mixdpo import MixturePolicy


@click.command(
    epilog="""\b
Examples:
  mixdpo compose ./both reviews@v1/expert-0 books@v2/expert-1
  mixdpo compose ./four reviews@v3 data/policies/moe/expert-0

\b
A part is one expert (reviews@v3/expert-1), or all of a mixture (reviews@v3). Parts of one mixture, or of mixtures that
were trained from the same SFT model with the same architecture, go together; nothing is trained.
"""
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("parts", nargs=-1, required=True)
@registry_option
@click.pass_obj
def compose(root: Path, out: Path, parts: tuple[str, ...], location: str | None) -> None:
    """Write a mixture of the experts in PARTS, with uniform weights, to the directory OUT."""
    from mixdpo.errors import ConfigError
    from mixdpo.policy.compose import compose as put_together
    from mixdpo.registry.reference import chosen_experts, split_expert

    if out.exists():
        raise ConfigError(f"{out} exists; name a directory that does not, or remove it")
    registry = open_registry(root, location)
    loaded: dict[str, MixturePolicy] = {}
    chosen, names = [], []
    for part in parts:
        whole, expert = split_expert(part)
        if whole not in loaded:
            loaded[whole] = load_policy(root, whole, location)
        # an alias moves; what was composed is kept as the version that it means now
        known = whole if Path(whole).exists() else registry.resolve(whole).reference
        for each in chosen_experts(part, expert, loaded[whole].experts):
            chosen.append((loaded[whole], each))
            names.append(f"{known}/expert-{each}")
    written = put_together(chosen, names).save_pretrained(out)
    for place, name in enumerate(names):
        click.echo(f"expert {place}  {name}")
    click.echo(f"wrote {written}: {len(names)} experts, uniform weights")


COMMANDS = [compose]
