"""All sequential tests of a rollout together: blocks of counts in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.counters import ArmBlock
from dwcp_ml.rollout.evidence.betting import BettingEvidence
from dwcp_ml.rollout.evidence.counts import CountBlock, Counts, WorstWindow
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.evidence.error_rate import ErrorRateEvidence
from dwcp_ml.rollout.evidence.ground_truth import GroundTruthEvidence
from dwcp_ml.rollout.evidence.latency import LatencyEvidence
from dwcp_ml.rollout.evidence.promotion import PromotionEvidence, bounds
from dwcp_ml.rollout.observation import GroundTruthLoss, Observation, Pair
from dwcp_ml.rollout.spec import Analysis
from dwcp_ml.rollout.verdict import Outcome, Verdict, combined, evidence_of, percent, unavailable

WATCH: Final = "watch"

_ALWAYS_REQUIRED: Final = ("error_rate", "latency")


class Evidence(Record):
    """State of the enabled tests; ``None`` for a test that is off or has no data yet."""

    error_rate: ErrorRateEvidence | None = None
    promotion: PromotionEvidence | None = None
    latency: LatencyEvidence | None = None
    divergence: DivergenceEvidence | None = None
    ground_truth: GroundTruthEvidence | None = None
    worst: WorstWindow = WorstWindow()
    """Of the stable, for the watch."""
    watch: BettingEvidence | None = None
    fault: str = ""
    """Why the newest latencies could not be compared."""


def update(
    settings: Analysis,
    evidence: Evidence,
    stable: ArmBlock,
    candidate: ArmBlock,
    pairs: Sequence[Pair],
    losses: Sequence[GroundTruthLoss],
    pending: int = 0,
) -> Evidence:
    """Return the evidence with one more block of everything.

    A test whose setting was edited starts over; the others go on.

    Parameters
    ----------
    pending
        Requests whose ground truth is not known yet.
    """
    new = evidence.replace(fault="")
    if settings.error_rate is not None:
        block = _block(stable, candidate)
        margin = settings.error_rate.margin
        promotion = evidence.promotion
        if promotion is None or promotion.margin != margin:
            promotion = PromotionEvidence(margin=margin)
        new = new.replace(
            error_rate=(evidence.error_rate or ErrorRateEvidence()).update(block),
            promotion=promotion.update(block),
            worst=evidence.worst.update(block.stable),
            watch=_watched(settings, evidence, stable, candidate),
        )
    if settings.latency is not None:
        latency = evidence.latency
        if latency is None or latency.promotion.margin != settings.latency.margin:
            latency = LatencyEvidence.start(settings.latency.margin)
        try:
            new = new.replace(latency=latency.update(candidate.latency, stable.latency))
        except DwcpError as error:
            new = new.replace(fault=str(error))
    if settings.divergence is not None:
        divergence = evidence.divergence
        if divergence is None or divergence.betting.bound != settings.divergence.tolerance:
            divergence = DivergenceEvidence.start(settings.divergence.tolerance)
        divergence = divergence.update([pair.difference for pair in pairs])
        new = new.replace(divergence=divergence)
    if settings.ground_truth is not None:
        ground_truth = evidence.ground_truth
        if ground_truth is None or ground_truth.margin != settings.ground_truth.margin:
            ground_truth = GroundTruthEvidence.start(settings.ground_truth.margin)
        of_arms = [each.candidate for each in losses], [each.stable for each in losses]
        new = new.replace(ground_truth=ground_truth.update(*of_arms, pending=pending))
    return new


def verdicts(
    settings: Analysis, evidence: Evidence, observation: Observation
) -> tuple[Verdict, ...]:
    """Return the verdict of each enabled test; harm wins over promotion."""
    alpha, passing = settings.alpha_each, settings.promotion_alpha
    results: list[Verdict] = []
    on = settings.enabled  # a test that was turned off keeps its evidence, and has no verdict
    if "error_rate" in on and evidence.error_rate is not None and evidence.promotion is not None:
        harm = evidence.error_rate.verdict(alpha)
        promotion = evidence.promotion.verdict(passing, test="error_rate")
        results.append(combined(harm, promotion))
    if "latency" in on and evidence.fault:
        results.append(unavailable("latency", evidence.fault))
    elif "latency" in on and evidence.latency is not None:
        harm = evidence.latency.harm_verdict(alpha)
        results.append(combined(harm, evidence.latency.promotion_verdict(passing)))
    if "divergence" in on and evidence.divergence is not None:
        if observation.pairs_error:
            results.append(unavailable("divergence", observation.pairs_error))
        else:
            results.append(evidence.divergence.verdict(alpha, passing))
    if "ground_truth" in on and evidence.ground_truth is not None:
        if observation.labels_error:
            results.append(unavailable("ground_truth", observation.labels_error))
        else:
            results.append(evidence.ground_truth.verdict(alpha, passing))
    if evidence.watch is not None:
        results.append(_watch_verdict(evidence.watch, alpha / 2))
    return tuple(results)


def is_required(settings: Analysis, test: str) -> bool:
    """Return whether a step waits until this test passes; every test may roll it back."""
    if test in _ALWAYS_REQUIRED:
        return True
    chosen = {"divergence": settings.divergence, "ground_truth": settings.ground_truth}.get(test)
    return chosen is not None and chosen.required


def not_measured(test: str, why: str) -> Verdict:
    """Return the verdict of a test that can't be evaluated now."""
    return unavailable(test, why)


def _block(stable: ArmBlock, candidate: ArmBlock) -> CountBlock:
    return CountBlock(
        candidate=Counts(requests=candidate.requests, errors=candidate.errors),
        stable=Counts(requests=stable.requests, errors=stable.errors),
    )


def _watched(
    settings: Analysis, evidence: Evidence, stable: ArmBlock, candidate: ArmBlock
) -> BettingEvidence | None:
    """Return the evidence of the watch: the candidate alone, beside what the stable was.

    With all traffic at the candidate there is nothing to compare with. What remains is a bound
    that the stable surely kept, plus the margin, fixed when the last of its requests came.

    A fault that comes and goes in both arms now hits the candidate alone, and the mean over all of
    the stable's requests is no bound for a bad minute: the stable's worst window counts if it is
    higher. A fault worse than any that the stable showed is attributed to the candidate.
    """
    watch, known = evidence.watch, evidence.error_rate
    if stable.requests or candidate.requests == 0 or known is None or settings.error_rate is None:
        return watch
    if known.stable.requests == 0:
        return watch
    if watch is None:
        # Half of the watch's alpha for the bound, half for the bet on it.
        upper = bounds(known.stable, settings.alpha_each / 2)[1]
        upper = max(upper, evidence.worst.rate)
        watch = BettingEvidence(bound=min(upper + settings.error_rate.margin, 0.99))
    return watch.update_counts(candidate.requests, candidate.errors)


def _watch_verdict(watch: BettingEvidence, alpha: float) -> Verdict:
    capital, needed = evidence_of(watch.log_capital_above), 1.0 / alpha
    mean = watch.sums.mean or 0.0
    return Verdict(
        test=WATCH,
        outcome=Outcome.FAIL if capital >= needed else Outcome.PASS,
        value=mean,
        threshold=watch.bound,
        evidence=capital,
        needed=needed,
        samples=watch.sums.count,
        sentence=f"With all traffic {percent(mean)} of {watch.sums.count:,} requests failed; "
        f"{percent(watch.bound)} is what the stable and the margin allow.",
    )
