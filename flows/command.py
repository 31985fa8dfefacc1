"""What a person sees of a flow that was started from the command line and did not end well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from flows.tasks import CommandError
from mixdpo.errors import MixDPOError, TransientError, ValidationStop

# exit codes of a command below the flow that say more than that it failed
TOLD = (ValidationStop.exit_code, TransientError.exit_code)


@contextmanager
def told() -> Iterator[None]:
    """Turn what a flow raises into a message and an exit code.

    1 failed, 2 used wrongly, 3 refused by a rule, 75 try again, 130 stopped.
    """
    try:
        yield
    except CommandError as error:
        click.echo(f"\n{error}", err=True)
        sys.exit(error.exit_code if error.exit_code in TOLD else 1)
    except MixDPOError as error:
        click.echo(f"\n{error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("\nStopped. What was finished is kept; run again to go on.", err=True)
        sys.exit(130)
