"""A decision as people read it."""

from __future__ import annotations

from mixdpo.promotion.rules import better, not_worse
from mixdpo.registry.decision import Decision, Difference
from mixdpo.registry.display import table
from mixdpo.registry.log import Entry, State


def decision_text(decision: Decision, challenger: str, champion: str | None) -> str:
    """The table of styles and what the rules say.

    Args:
        challenger, champion: what to call them.
    """
    rules = decision.rules
    lines = [f"{challenger} against {champion}" if champion else f"{challenger}, against nobody"]
    if decision.styles:
        prompts = next(iter(decision.styles.values())).prompts
        known = f"{rules.comparisons} comparisons of a person known" if rules.comparisons else "nothing known of people"
        lines[0] += f": {prompts} held-out prompts, {known}, standard deviations of SFT's samples"
        rows = [
            (name, _signed(each.mean), f"{_signed(each.low)} to {_signed(each.high)}", _verdict(each, rules.delta))
            for name, each in sorted(decision.styles.items())
        ]
        lines.append(table(("style", "difference", f"{rules.confidence:.0%} interval", ""), rows))
    lines.append(f"health of training: {', '.join(decision.findings) or 'no findings'}")
    lines.append(f"validation of data: {'; '.join(decision.validation) or 'passed, no warnings'}")
    outcome = "the rules allow it" if decision.passed else "the rules refuse it"
    outcome += ", a person moved the alias nevertheless" if decision.forced else ""
    return "\n".join([*lines, ": ".join(filter(None, (outcome, "; ".join(decision.reasons))))])


def entry_text(history: State, entry: Entry) -> str:
    """What a promotion in the log was decided on; nothing for other entries."""
    decision = entry.decision
    if decision is None:
        return ""
    champion = f"{history.name}@v{history.number(decision.champion)}" if decision.champion else None
    return decision_text(decision, f"{history.name}@v{history.number(entry.manifest)}", champion)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # never -0.000


def _verdict(difference: Difference, delta: float) -> str:
    if better(difference):
        return "better"
    if not_worse(difference, delta):
        return f"not worse by {delta:g}"
    return "worse" if difference.high < 0 else "may be worse"
