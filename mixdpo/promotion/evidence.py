"""What a promotion is decided on: two standings compared, the health of training, the validation of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixdpo.config.data import AnnotatedPairs
from mixdpo.errors import DataError
from mixdpo.evaluation.standing import Standing, Terms
from mixdpo.evaluation.statistics import Bootstrap, Floats, Interval
from mixdpo.files import canonical_json
from mixdpo.layout import TABLES

if TYPE_CHECKING:
    from mixdpo.config import Params

SCHEMA = 1


@dataclass(frozen=True)
class Compared:
    """What people of one style get from the challenger and from the champion, standard deviations of SFT's samples."""

    difference: Interval  # challenger less champion, paired prompt by prompt
    rows: Floats  # the same for each row


@dataclass(frozen=True)
class Evidence:
    """All that the rules look at.

    Attributes:
        champion: manifest digest; None where the alias points nowhere, and then nothing is compared.
        terms: what both were judged on.
        prompts: the id of each row of `Compared.rows`.
        findings: of the health check of the challenger's training: name → message.
        failed, warned: what the gates found in the challenger's data: stopped it, or only warned.
    """

    challenger: str
    champion: str | None
    terms: Terms | None
    prompts: tuple[str, ...]
    styles: Mapping[str, Compared]
    findings: Mapping[str, str]
    failed: tuple[str, ...]
    warned: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Canonical JSON, the same for the same evidence."""
        return canonical_json(
            {
                "schema": SCHEMA,
                "challenger": self.challenger,
                "champion": self.champion,
                "terms": self.terms and self.terms.model_dump(),
                "prompts": self.prompts,
                "styles": {
                    name: {"difference": each.difference.record(), "rows": each.rows.tolist()}
                    for name, each in self.styles.items()
                },
                "findings": dict(self.findings),
                "failed": self.failed,
                "warned": self.warned,
            }
        )


def tastes(params: Params) -> dict[str, tuple[dict[str, float], str | None]]:
    """Whom a policy is to serve: name → (weight of each dimension, style of held-out annotators with this taste).

    Where pairs came ready-made, styles are not known in terms of the judges; each judge then is a taste of its own.
    """
    if isinstance(params.preferences.source, AnnotatedPairs):
        return {name: (dict(style.weights), name) for name, style in params.preferences.styles.items()}
    return {name: ({name: 1.0}, None) for name in params.rewards.dimensions}


def compare(challenger: Standing, champion: Standing, params: Params) -> dict[str, Compared]:
    """The difference for each taste, rows of one prompt standing or falling together.

    Raises:
        ValueError: the two were not judged on the same terms.
    """
    if challenger.terms != champion.terms or challenger.prompts != champion.prompts:
        raise ValueError("standings on different terms cannot be compared")
    rules, scale = params.promotion, challenger.scale
    bootstrap = Bootstrap(params.evaluation.bootstrap, params.seed, rules.confidence)
    compared = {}
    for name, (weights, style) in tastes(params).items():
        own, other = (each.rewards(weights, style, rules.comparisons, scale) for each in (challenger, champion))
        compared[name] = Compared(bootstrap.difference(own, other, challenger.prompts), own - other)
    return compared


def gather_evidence(
    challenger: tuple[str, Standing | None],
    champion: tuple[str, Standing] | None,
    metrics: Mapping[str, Any],
    policy: str,
    params: Params,
) -> Evidence:
    """Put together what the rules look at.

    Args:
        challenger, champion: manifest digest and standing; the challenger's is needed where there is a champion.
        metrics: name → content of the challenger's run/metrics/NAME.json.
        policy: what the challenger was called in its run.

    Raises:
        DataError: the challenger's metrics are not what the stages write.
    """
    digest, own = challenger
    styles = {} if champion is None or own is None else compare(own, champion[1], params)
    try:
        failed, warned = _validation(metrics)
        findings = {str(each["name"]): str(each["message"]) for each in metrics[f"train-{policy}"]["findings"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the challenger's metrics do not tell of its validation and of the health of its training ({error!r}); "
            "run its stages again and register it"
        ) from None
    return Evidence(
        challenger=digest,
        champion=champion and champion[0],
        terms=own.terms if styles and own else None,
        prompts=own.prompts if styles and own else (),
        styles=styles,
        findings=findings,
        failed=failed,
        warned=warned,
    )


def _validation(metrics: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    verdicts = {table: metrics[f"validation-{table}"] for table in TABLES}
    failed = tuple(
        f"{table}: the gate did not let it through" for table, each in verdicts.items() if not each["passed"]
    )
    warned = tuple(
        f"{table}: {finding['name']}"
        for table, each in verdicts.items()
        for finding in each["expectations"]
        if finding["severity"] == "warning" and finding["success"] is False
    )
    return failed, warned
