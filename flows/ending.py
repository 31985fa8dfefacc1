"""How a run ended, and why, where Prefect shows it: a state with a name and a message.

Registered     reviews@v3 (staging): expert policies of …
Refused        stage validate-reviews failed with exit code 3. Its last lines: …
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, cast

from prefect.states import Completed, Failed

from flows.tasks import CommandError
from mixdpo.errors import MixDPOError, ValidationStop

REFUSED = ValidationStop.exit_code  # a rule of params.yaml said no


class Ended(Protocol):
    """What a flow returns: whatever it likes, with a word and a sentence for people."""

    @property
    def outcome(self) -> str: ...

    @property
    def reason(self) -> str: ...


P = ParamSpec("P")
R = TypeVar("R", bound=Ended)


def told_by_state(work: Callable[P, R]) -> Callable[P, R]:
    """Below `@flow`: the run's final state has the name `outcome` and the message `reason` of what is returned.

    Errors that a user can cause become a state Refused, where a rule said no, or Failed, with the error's own words.
    Whoever calls the flow gets what it returned, or the error, as without this.
    """

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            done = work(*args, **kwargs)
        except (CommandError, MixDPOError) as error:
            name = "Refused" if error.exit_code == REFUSED else "Failed"
            return cast(R, Failed(name=name, message=str(error), data=error))
        return cast(R, Completed(name=done.outcome, message=done.reason, data=done))

    # with the types themselves: Prefect would look their names up in this module
    run.__signature__ = inspect.signature(work, eval_str=True)  # type: ignore[attr-defined]
    return run
