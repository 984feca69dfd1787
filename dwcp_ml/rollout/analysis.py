"""All sequential tests of a rollout together: blocks of counts in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, lt, sub
from typing import Final

from pydantic import Field

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import Record
from dwcp_ml.rollout.cause import (
    Outcome,
    Verdict,
    combined,
    evidence_of,
    percent,
    unavailable,
)
from dwcp_ml.rollout.evidence.betting import BettingEvidence
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.evidence.error_rate import (
    CountBlock,
    Counts,
    ErrorRateEvidence,
    WorstWindow,
)
from dwcp_ml.rollout.evidence.ground_truth import GroundTruthEvidence
from dwcp_ml.rollout.evidence.promotion import (
    LatencyEvidence,
    PromotionEvidence,
    bounds,
)
from dwcp_ml.rollout.observation import (
    ArmSample,
    GroundTruthLoss,
    Histogram,
    Observation,
    Pair,
    ReplicaSample,
)
from dwcp_ml.rollout.spec import Analysis

MAX_GONE: Final = 16
"""Replicas that are kept after they are gone: one that comes back is not counted twice."""


class ArmCounters(Record):
    """The last known counters of the replicas of one arm, by replica."""

    replicas: dict[str, ReplicaSample] = Field(default_factory=dict)


class ArmBlock(Record):
    """What one arm did since the last reconciliation."""

    requests: int = 0
    errors: int = 0
    latency: Histogram | None = None
    unequal_buckets: bool = False
    """The replicas' latency histograms can't be added: there is none of the arm."""


def since(last: ArmCounters, sample: ArmSample, started_at: float) -> tuple[ArmBlock, ArmCounters]:
    """Return what happened since the last reconciliation, and the counters to keep.

    Parameters
    ----------
    last
        The counters of the last reconciliation; empty for the first.
    sample
        The counters now.
    started_at
        Start of the rollout, epoch seconds: a replica that is older and was not seen before
        counts from now on, a younger one from its start.

    """
    block = None
    for now in sample.replicas:
        increase = _increase(last.replicas.get(now.replica), now, started_at)
        block = increase if block is None else _plus(block, increase)
    seen = {now.replica: now for now in sample.replicas}
    gone = [each for each in last.replicas.values() if each.replica not in seen][-MAX_GONE:]
    return block or ArmBlock(), ArmCounters(replicas={each.replica: each for each in gone} | seen)


def _increase(before: ReplicaSample | None, now: ReplicaSample, started_at: float) -> ArmBlock:
    if before is None and now.started_at < started_at:
        return ArmBlock(latency=_zero(now.latency))
    if before is None or _was_restarted(before, now):
        return ArmBlock(requests=now.requests, errors=now.errors, latency=now.latency)
    return ArmBlock(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        latency=_minus(now.latency, before.latency),
    )


def _was_restarted(before: ReplicaSample, now: ReplicaSample) -> bool:
    """Return whether the counters are those of a new process."""
    if now.started_at != before.started_at:
        return True
    more = now.requests - before.requests, now.errors - before.errors
    if min(more) < 0 or more[1] > more[0]:
        return True
    if now.latency is None or before.latency is None:
        return False
    if now.latency.edges != before.latency.edges:
        return True
    return any(map(lt, now.latency.counts, before.latency.counts))


def _zero(histogram: Histogram | None) -> Histogram | None:
    return histogram and Histogram(edges=histogram.edges, counts=(0,) * len(histogram.counts))


def _minus(now: Histogram | None, before: Histogram | None) -> Histogram | None:
    if now is None or before is None:
        return now
    return Histogram(edges=now.edges, counts=tuple(map(sub, now.counts, before.counts)))


def _plus(one: ArmBlock, other: ArmBlock) -> ArmBlock:
    edges = {each.latency.edges for each in (one, other) if each.latency is not None}
    unequal = one.unequal_buckets or other.unequal_buckets or len(edges) > 1
    return ArmBlock(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        latency=None if unequal else _merged(one.latency, other.latency),
        unequal_buckets=unequal,
    )


def _merged(one: Histogram | None, other: Histogram | None) -> Histogram | None:
    if one is None or other is None:
        return one or other
    return Histogram(edges=one.edges, counts=tuple(map(add, one.counts, other.counts)))


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


def update_evidence(
    settings: Analysis,
    evidence: Evidence,
    stable: ArmBlock,
    candidate: ArmBlock,
    pairs: Sequence[Pair],
    losses: Sequence[GroundTruthLoss],
    pending: int = 0,
    *,
    only_harm: bool = False,
) -> Evidence:
    """Return the evidence with one more block of everything.

    A test whose setting was edited starts over; the others go on.

    Parameters
    ----------
    pending
        Requests whose ground truth is not known yet.
    only_harm
        The blocks are a part of what happened. The part that is missing may be the worst, so they
        count against the candidate, and not for it.
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
            promotion=promotion if only_harm else promotion.update(block),
            worst=evidence.worst.update(block.stable),
            watch=_watched(settings, evidence, stable, candidate),
        )
    if settings.latency is not None:
        latency = evidence.latency
        if latency is None or latency.promotion.margin != settings.latency.margin:
            latency = LatencyEvidence.start(settings.latency.margin)
        try:
            new = new.replace(
                latency=latency.update(candidate.latency, stable.latency, only_harm=only_harm)
            )
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


def verdicts_of(
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
