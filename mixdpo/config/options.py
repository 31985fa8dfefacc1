"""params.yaml: what a policy may do beyond the plain method: start again, grow, go on from what was trained before."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mixdpo.config.base import Count, Fraction, NonNegative, Section
from mixdpo.errors import RegistryError
from mixdpo.registry.reference import parse_reference, split_expert


class Reseed(Section):
    """Give a dead expert a new start on what the mixture explains worst."""

    usage: Annotated[float, Field(gt=0, lt=0.5)]  # mean responsibility below which an expert is dead ...
    patience: Count  # ... for so many steps
    steps: Count  # for how many steps it is handed the worst explained annotators (or pairs)


class Starts(Section):
    """Begin several times, each with its own seed, and go on with the start that explains validation pairs best.

    EM ends in the nearest optimum: two tastes may share an expert while another expert has none.
    """

    number: Annotated[int, Field(ge=2)]
    steps: Count  # after which the starts are compared


class Growth(Section):
    """Let held-out evidence choose K: split an expert, train on, keep the split where validation gains by it."""

    most: Count  # experts at most
    steps: Count  # of training after each split, before it is judged
    gain: NonNegative  # nats a validation pair by which a split must pay
    prune: Fraction  # experts with less mean responsibility than this are removed at the end


def _stays(text: str) -> str:
    """A version's name must mean the same version at every run; what has no @ is a directory below `inputs`."""
    whole, _ = split_expert(text)
    if "@" not in whole:
        return text
    try:
        fixed = parse_reference(whole).fixed
    except RegistryError as error:
        raise ValueError(str(error)) from None
    if not fixed:
        raise ValueError(
            f"{text} means another version whenever the alias moves; name the version, as in reviews@v3 (`mixdpo list` "
            f"shows them; `python -m flows.retrain --warm-start {whole}` writes it)"
        )
    return text


Start = Annotated[str, Field(min_length=1), AfterValidator(_stays)]
