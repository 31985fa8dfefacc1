"""What the rules say of the evidence. A pure function: the same evidence and rules give the same decision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from mixdpo.config.outcome import Promotion
from mixdpo.evaluation.statistics import Interval
from mixdpo.files import digest
from mixdpo.promotion.evidence import Evidence
from mixdpo.registry.decision import Decision, Difference, Rules, Ruling

LISTED = 5  # warnings that are named
ROUNDING = 1e-6  # standard deviations; one policy judged twice differs by less, and is not better than itself


def decide(evidence: Evidence, rules: Promotion) -> Ruling:
    """Whether the challenger may take the champion's place.

    For each style the interval of the difference must end above -delta: not to be worse off by more than that is shown
    at this confidence, not merely not refuted. A style is better off where its interval lies above 0 (and above
    rounding). With several styles an equal challenger is better off for one of them by chance somewhat more often than
    for one alone; it is not worse for any, so that does no harm.
    """
    refusals = tuple(_refusals(evidence, rules))
    notes = ("there was no champion to compare with",) if evidence.champion is None else ()
    body = evidence.to_bytes()
    decision = Decision(
        passed=not refusals,
        forced=False,
        reasons=(*refusals, *notes),
        rules=as_rules(rules),
        champion=evidence.champion,
        styles={
            name: Difference(mean=d.mean, low=d.low, high=d.high, prompts=d.clusters)
            for name, d in ((name, each.difference) for name, each in evidence.styles.items())
        },
        findings=tuple(evidence.findings),
        validation=(*evidence.failed, *evidence.warned)[:LISTED],
        prompts=evidence.terms.prompts if evidence.terms else None,
        judges=digest(evidence.terms.judges) if evidence.terms else None,
        evidence=hashlib.sha256(body).hexdigest(),
    )
    return Ruling(decision, body)


def as_rules(rules: Promotion) -> Rules:
    """`promotion` of params.yaml as a log entry holds it."""
    return Rules(**rules.model_dump(exclude={"aliases"}))


def better(difference: Interval | Difference) -> bool:
    return difference.low > ROUNDING


def not_worse(difference: Interval | Difference, delta: float) -> bool:
    return difference.low >= -delta


def _refusals(evidence: Evidence, rules: Promotion) -> Iterator[str]:
    differences = {name: each.difference for name, each in evidence.styles.items()}
    at_risk = {name: each for name, each in differences.items() if not not_worse(each, rules.delta)}
    if at_risk:
        told = ", ".join(f"{name} by up to {-each.low:.3g}" for name, each in at_risk.items())
        yield f"may be worse at {rules.confidence:.0%} by more than delta {rules.delta:g}: {told}"[:2000]
    if evidence.champion is not None and (beaten := sum(map(better, differences.values()))) < rules.must_beat:
        yield f"better for {beaten} of {len(differences)} styles, must_beat is {rules.must_beat}"
    refused = evidence.findings if rules.refuse == "any" else evidence.findings.keys() & set(rules.refuse)
    if refused:
        yield f"the health check of its training found {', '.join(sorted(refused))}"
    if evidence.failed:
        yield f"validation of its data: {'; '.join(evidence.failed)}"
    if evidence.warned and rules.validation == "clean":
        more = f", and {len(evidence.warned) - LISTED} more" if len(evidence.warned) > LISTED else ""
        yield f"validation of its data warned of {', '.join(evidence.warned[:LISTED])}{more}"
