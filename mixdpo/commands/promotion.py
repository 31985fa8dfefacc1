"""`mixdpo promote | alias | rollback`: what an alias points to."""

from __future__ import annotations

from pathlib import Path

import click

from mixdpo.commands.artifacts import open_registry, registry_option
from mixdpo.errors import ConfigError, PromotionRefused

reason_option = click.option("--reason", required=True, help="Kept in the log.")


@click.command(
    epilog="""\b
Examples:
  mixdpo promote reviews@staging --check
  mixdpo promote reviews@staging production --reason "weekly retraining"
  mixdpo promote reviews@v3 production --force --reason "the champion writes nonsense about books"
"""
)
@click.argument("reference")
@click.argument("alias", required=False)
@click.option("--reason", help="Kept in the log; needed unless --check.")
@click.option("--check", is_flag=True, help="Say what the rules say now, and write nothing.")
@click.option("--force", is_flag=True, help="Promote whatever the rules say; the log says so.")
@registry_option
@click.pass_obj
def promote(
    root: Path, reference: str, alias: str | None, reason: str | None, check: bool, force: bool, location: str | None
) -> None:
    """Let the version that REFERENCE names now take ALIAS, if the rules of params.yaml allow it.

    It is compared with the version that ALIAS points to. ALIAS is by default the first of promotion.aliases. Exit code
    3: the rules refuse.
    """
    from mixdpo.config import load_params
    from mixdpo.layout import Layout
    from mixdpo.promotion.display import entry_text
    from mixdpo.stages import promote as stage

    if check == (reason is not None) or (check and force):
        raise click.UsageError("give --reason to promote, or --check alone to ask only")
    params = load_params(root / "params.yaml")
    if location is not None:
        params = params.model_copy(update={"registry": params.registry.model_copy(update={"url": location})})
    if reason is None:
        examined = stage.examine(params, Layout(root), reference, alias)
        click.echo(examined.text)
        if not examined.decision.passed:
            raise click.exceptions.Exit(PromotionRefused.exit_code)
        return
    version = stage.promote(params, Layout(root), reference, alias, reason, force)
    if version.written is None:
        click.echo(f"nothing to do: {version.reference} has that alias already")
        return
    history = open_registry(root, location).history(version.name)
    click.echo(
        f"{entry_text(history, version.written)}\n{version.name}@{version.written.alias} is now v{version.number}"
    )


@click.command(epilog='\b\nExample:\n  mixdpo alias reviews@v2 next --reason "for the people who test"\n')
@click.argument("reference")
@click.argument("name", metavar="ALIAS")
@reason_option
@registry_option
@click.pass_obj
def alias(root: Path, reference: str, name: str, reason: str, location: str | None) -> None:
    """Point ALIAS to the version that REFERENCE names now, without rules: never one that was promoted."""
    from mixdpo.config import load_params

    if (root / "params.yaml").is_file() and name in load_params(root / "params.yaml").promotion.aliases:
        raise ConfigError(f"promotion.aliases has {name}, which rules guard; use `mixdpo promote {reference} {name}`")
    version = open_registry(root, location).set_alias(reference.split("@")[0], name, reference, reason)
    click.echo(f"{version.name}@{name} is now v{version.number}")


@click.command(epilog='\b\nExample:\n  mixdpo rollback reviews@production --reason "worse for informativeness"\n')
@click.argument("reference")
@reason_option
@registry_option
@click.pass_obj
def rollback(root: Path, reference: str, reason: str, location: str | None) -> None:
    """Point NAME@ALIAS back to the version before."""
    name, _, alias = reference.partition("@")
    version = open_registry(root, location).rollback(name, alias, reason)
    click.echo(f"{name}@{alias} is back at v{version.number}: {reason}")


COMMANDS = [promote, alias, rollback]
