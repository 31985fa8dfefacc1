"""Promotion: a version takes an alias that people are served from, if the rules of params.yaml allow it.

What the rules look at is gathered here. A champion that was judged on other prompts or by other judges than the
challenger is judged again on the challenger's, once: the result is kept in the user's cache.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixdpo.config import Params
from mixdpo.errors import ConfigError, DataError, MixDPOError, PromotionRefused, RegistryError
from mixdpo.evaluation.standing import Standing
from mixdpo.files import replacing
from mixdpo.layout import STANDING as SUFFIXES
from mixdpo.layout import Layout
from mixdpo.promotion.display import decision_text
from mixdpo.promotion.evidence import gather_evidence
from mixdpo.promotion.rules import as_rules, decide
from mixdpo.registry import Registry, Version, open_registry
from mixdpo.registry.decision import Decision, Ruling
from mixdpo.registry.location import cache_directory
from mixdpo.registry.manifest import METRICS, STANDING

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examined:
    """What the rules say of a version now, for a person who is to approve it. Nothing was written."""

    challenger: Version
    champion: Version | None
    decision: Decision

    @property
    def text(self) -> str:
        return _text(self.decision, self.challenger, self.champion)


def examine(params: Params, layout: Layout, reference: str, alias: str | None = None) -> Examined:
    """What `promote` would decide now.

    Args:
        alias: by default the first of promotion.aliases.

    Raises:
        As `promote`, but where the rules refuse: that is in the result.
    """
    registry, alias = open_registry(params.registry, layout.root), _guarded(params, alias)
    challenger = registry.resolve(reference)
    target = registry.history(challenger.name).target(alias)
    champion = None if target is None else registry.resolve(f"{challenger.name}@sha256:{target}")
    decision, _ = _Bench(registry, params, layout).rule(challenger, champion)
    return Examined(challenger, champion, decision)


def promote(
    params: Params, layout: Layout, reference: str, alias: str | None, reason: str, force: bool = False
) -> Version:
    """Point `alias` to the version that `reference` means now, if the rules allow it.

    The champion is what the alias points to when the log is added to: where another promotion comes between, the
    challenger is compared with that one's version before the next try.

    Args:
        alias: by default the first of promotion.aliases.
        force: whatever the rules say, or whether they can be asked; the log says so.

    Raises:
        PromotionRefused: the rules refuse; has the table. Nothing was written then.
        ConfigError: promotion.aliases does not name this alias.
        RegistryError: no such version, or the champion cannot be judged on the challenger's prompts here.
    """
    registry, alias = open_registry(params.registry, layout.root), _guarded(params, alias)
    challenger = registry.resolve(reference)  # what is meant now, though an alias may move meanwhile
    bench = _Bench(registry, params, layout)

    def judge(champion: Version | None) -> Ruling:
        try:
            ruling = bench.rule(challenger, champion)
        except MixDPOError as error:
            if not force:
                raise
            ruling = _unknown(params, champion, error)
        if ruling.decision.passed:
            return ruling
        if not force:
            raise PromotionRefused(
                f"{challenger.reference} does not become {challenger.name}@{alias}\n"
                + _text(ruling.decision, challenger, champion)
            )
        return Ruling(ruling.decision.model_copy(update={"forced": True}), ruling.evidence)

    return registry.promote(challenger, alias, reason, judge)


@dataclass
class _Bench:
    """Rules on one challenger after another champion; what was found out of a version is kept."""

    registry: Registry
    params: Params
    layout: Layout
    _rulings: dict[tuple[str, str | None], Ruling] = field(default_factory=dict)

    def rule(self, challenger: Version, champion: Version | None) -> Ruling:
        key = (challenger.digest, champion.digest if champion else None)
        if key not in self._rulings:
            own = other = None
            if champion is not None:
                own = self._stored(challenger)
                if own is None:
                    raise RegistryError(
                        f"{challenger.reference} was registered without its held-out results ({STANDING}.json), so it "
                        "cannot be compared; run `mixdpo evaluate` and `mixdpo register` again"
                    )
                other = (champion.digest, self._on_the_same_terms(champion, own))
            evidence = gather_evidence(
                (challenger.digest, own), other, self._metrics(challenger), _policy(challenger), self.params
            )
            self._rulings[key] = decide(evidence, self.params.promotion)
        return self._rulings[key]

    def _on_the_same_terms(self, champion: Version, challenger: Standing) -> Standing:
        stored = self._stored(champion)
        if stored is not None and stored.terms == challenger.terms:
            return stored
        kept = cache_directory() / "standings" / f"{champion.digest}-{challenger.terms.digest}"
        with suppress(FileNotFoundError, DataError):  # not there yet, or of another mixdpo
            return Standing.read({suffix: (kept / f"standing{suffix}").read_bytes() for suffix in SUFFIXES}, str(kept))
        found = self._judge_again(champion, challenger)
        with replacing(kept) as target:
            found.write(target / "standing")
        return found

    def _judge_again(self, champion: Version, challenger: Standing) -> Standing:
        from mixdpo.stages.evaluate import Held, standing_of  # imports torch

        remedy = (
            f"{champion.reference} was judged on other prompts or by other judges than the challenger, and here are "
            "not those of the challenger to judge it again: check out the commit that the challenger was made from "
            "and `dvc pull`, or run `dvc repro`"
        )
        try:
            held = Held.of(self.params, self.layout)
            if held.terms(self.params, self.layout) != challenger.terms:
                raise RegistryError(remedy)
        except DataError as error:
            raise RegistryError(f"{remedy} ({error})") from error
        logger.info("judging %s again, on the prompts and by the judges of the challenger", champion.reference)
        directory = self.registry.materialise(champion.reference)
        return standing_of(champion.reference, directory, held, challenger.scale, self.params, self.layout)

    def _stored(self, version: Version) -> Standing | None:
        try:
            files = {suffix: self.registry.read(version, STANDING + suffix) for suffix in SUFFIXES}
        except FileNotFoundError:
            return None
        return Standing.read(files, f"{version.reference}: {STANDING}")

    def _metrics(self, version: Version) -> dict[str, Any]:
        names = [path for path in version.manifest.files if path.startswith(METRICS) and path.endswith(".json")]
        try:
            return {Path(path).stem: json.loads(self.registry.read(version, path)) for path in names}
        except (ValueError, RecursionError) as error:
            raise DataError(f"{version.reference} has metrics that are not JSON ({error}); register it again") from None


def _policy(version: Version) -> str:
    """What the version's policy was called in its run."""
    try:
        return str(version.manifest.lineage["params"]["registry"]["policy"])
    except (KeyError, TypeError):
        raise DataError(
            f"the lineage of {version.reference} does not say which policy of its run it is; register it again"
        ) from None


def _guarded(params: Params, alias: str | None) -> str:
    aliases = params.promotion.aliases
    if alias is not None and alias not in aliases:
        raise ConfigError(
            f"promotion.aliases has {', '.join(aliases)}, not {alias}: `mixdpo alias` moves that one without rules; "
            "or add it"
        )
    return alias or aliases[0]


def _unknown(params: Params, champion: Version | None, error: MixDPOError) -> Ruling:
    """Where the rules could not be asked."""
    decision = Decision(
        passed=False,
        forced=False,
        reasons=(f"the rules could not be asked: {error}"[:2000],),
        rules=as_rules(params.promotion),
        champion=champion.digest if champion else None,
        styles={},
        findings=(),
        validation=(),
        prompts=None,
        judges=None,
        evidence=None,
    )
    return Ruling(decision, None)


def _text(decision: Decision, challenger: Version, champion: Version | None) -> str:
    return decision_text(decision, challenger.reference, champion.reference if champion else None)
