"""`mixdpo keygen | sign`: who vouches for a version."""

from __future__ import annotations

from pathlib import Path

import click

from mixdpo.commands.artifacts import open_registry, registry_option, settings
from mixdpo.errors import ConfigError


@click.command(epilog="\b\nExample:\n  mixdpo keygen ~/.config/mixdpo/signing.pem\n")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def keygen(file: Path) -> None:
    """Make a private key that signs versions, write it to FILE for your eyes alone, and print the public key."""
    from mixdpo.registry.keys import new_key, public_text
    from mixdpo.registry.variables import SIGNER

    click.echo(public_text(new_key(file).public_key()))
    click.echo(f"wrote {file}; give that line to registry.signing.trusted, and the file to ${SIGNER}", err=True)


@click.command(
    epilog="\b\nExamples:\n  mixdpo sign reviews@v3\n  mixdpo sign reviews@v3 --key ~/.config/mixdpo/me.pem\n"
)
@click.argument("reference")
@click.option("--key", help="File of a private key.  [default: registry.signing.key, else $MIXDPO_SIGNING_KEY]")
@registry_option
@click.pass_obj
def sign(root: Path, reference: str, key: str | None, location: str | None) -> None:
    """Sign the version that REFERENCE names now, after reading every byte of it again."""
    from mixdpo.registry import signing_key
    from mixdpo.registry.keys import public_text, read_key

    private = read_key(key) if key is not None else signing_key(settings(root), root)
    if private is None:
        raise ConfigError("there is no key to sign with; give --key, registry.signing.key or $MIXDPO_SIGNING_KEY")
    version, new = open_registry(root, location).sign(reference, private)
    public = public_text(private.public_key())
    click.echo(
        f"signed {version.reference} as {public}" if new else f"{version.reference} is signed by {public} already"
    )


COMMANDS = [keygen, sign]
