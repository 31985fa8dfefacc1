"""`mixdpo remote`: where data and runs are shared through DVC."""

from __future__ import annotations

from pathlib import Path

import click

from mixdpo.errors import ConfigError


@click.command(
    epilog="""\b
Examples:
  mixdpo remote /mnt/team/dvc
  mixdpo remote "s3://mlops/dvc?endpoint=https://s3.example.org"
"""
)
@click.argument("url")
@click.option("--name", default="shared", show_default=True, help="What DVC calls it.")
@click.pass_obj
def remote(root: Path, url: str, name: str) -> None:
    """Share data and runs through URL: DVC's default remote from now on, with every object verified.

    URL is a directory or s3://BUCKET/PREFIX, as registry.url is. Credentials come from the environment (AWS_*).
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    from mixdpo.registry.location import parse_location
    from mixdpo.registry.s3_location import S3Location

    place = parse_location(url, "URL", root)
    # without verify, DVC takes whatever lies there for what was pushed
    settings: dict[str, object] = {"url": str(place), "verify": True}
    if isinstance(place, S3Location):
        given = {"endpointurl": place.endpoint, "region": place.region}
        settings |= {key: value for key, value in given.items() if value is not None}
    try:
        with Repo(str(root)) as repo, repo.config.edit() as config:
            config["remote"][name] = settings
            config["core"]["remote"] = name
    except NotDvcRepoError:
        raise ConfigError(f"{root} is no project of DVC; work in a clone, or run `dvc init` first") from None
    click.echo(f"{name} is {place} now, and what it sends is verified; `dvc push --run-cache` gives it what is here")


COMMANDS = [remote]
