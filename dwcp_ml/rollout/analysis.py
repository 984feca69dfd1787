"""All sequential tests of a rollout together: blocks of counts in, verdicts out."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final, Self

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.counters import ArmBlock
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.evidence.error_rate import (
    CountBlock,
    Counts,
    ErrorRateEvidence,
    WorstWindow,
    rate_verdict,
)
from dwcp_ml.rollout.evidence.ground_truth import GroundTruthEvidence
from dwcp_ml.rollout.evidence.loss import TEST as REPORTED_LOSS
from dwcp_ml.rollout.evidence.loss import LossEvidence
from dwcp_ml.rollout.evidence.pods import PodCounts
from dwcp_ml.rollout.evidence.predictions import TEST as PREDICTION_TEST
from dwcp_ml.rollout.evidence.predictions import PredictionEvidence
from dwcp_ml.rollout.evidence.promotion import (
    LatencyEvidence,
    LatencyPart,
    PromotionEvidence,
    bounds,
)
from dwcp_ml.rollout.evidence.watch import WatchEvidence
from dwcp_ml.rollout.observation import ArmSample, Observation
from dwcp_ml.rollout.spec import Analysis, DivergenceTest
from dwcp_ml.rollout.verdict import Outcome, Verdict, combined, unavailable

WATCH: Final = "watch"
WATCH_LATENCY: Final = "watch_latency"
REJECTIONS: Final = "rejection_rate"
PREDICTION_DISTRIBUTION: Final = PREDICTION_TEST

_ALWAYS_REQUIRED: Final = ("error_rate", "latency")

REJECTION_SHARE_OF_MARGIN: Final = 0.5
"""Excess of 4xx responses that is no harm, of the margin of ``error_rate``: one bad client that is
routed to one arm is no fault of the bundle."""

WATCH_SHARE_OF_MARGIN: Final = 0.25
"""The watch allows what the stable did in its worst window, and this share of the margin."""

_BOUND_ALPHA: Final = 1e-3


class RateEvidence(Record):
    """Both tests on one rate of bad responses: that there are more, and that there are not."""

    harm: ErrorRateEvidence
    promotion: PromotionEvidence

    @classmethod
    def start(cls, harm_margin: float, margin: float) -> Self:
        """Return no evidence yet.

        Parameters
        ----------
        harm_margin
            Excess rate that is no harm.
        margin
            Excess rate below which a step may pass.
        """
        return cls(
            harm=ErrorRateEvidence(margin=harm_margin), promotion=PromotionEvidence(margin=margin)
        )

    def update(self, candidate: Counts, stable: Counts, *, only_harm: bool) -> Self:
        """Return the evidence with one more block of counts."""
        block = CountBlock(candidate=candidate, stable=stable)
        promotion = self.promotion if only_harm else self.promotion.update(block)
        return type(self)(harm=self.harm.update(block), promotion=promotion)

    def verdict(self, test: str, what: str, alpha: float, promotion_alpha: float) -> Verdict:
        """Return the verdict; ``what`` names a bad response as a verb, ``failed``."""
        return combined(
            rate_verdict(test, what, self.harm, alpha),
            self.promotion.verdict(promotion_alpha, test, what),
        )


class Evidence(Record):
    """State of the enabled tests; ``None`` for a test that is off or has no data yet."""

    error_rate: RateEvidence | None = None
    rejection_rate: RateEvidence | None = None
    latency: LatencyEvidence | None = None
    prediction_distribution: PredictionEvidence | None = None
    reported_loss: LossEvidence | None = None
    divergence: DivergenceEvidence | None = None
    ground_truth: GroundTruthEvidence | None = None
    worst: WorstWindow = WorstWindow()
    """Of the stable's errors, for the watch."""
    failed_by_pod: PodCounts = PodCounts()
    slow_by_pod: PodCounts = PodCounts()
    tail_by_pod: PodCounts = PodCounts()
    watch: WatchEvidence | None = None
    watch_latency: WatchEvidence | None = None
    fault: str = ""
    """Why the newest latencies could not be compared."""


def update_evidence(
    settings: Analysis,
    evidence: Evidence,
    stable: ArmBlock,
    candidate: ArmBlock,
    observation: Observation,
    *,
    only_harm: bool = False,
    flag: bool = False,
) -> Evidence:
    """Return the evidence with one more block of everything.

    A test whose setting was edited starts over; the others go on.

    Parameters
    ----------
    observation
        Its pairs, losses and live weight; the counters are in the blocks.
    only_harm
        The blocks are a part of what happened. The part that is missing may be the worst, so they
        count against the candidate, and not for it.
    flag
        The output by which the two are compared is a flag.
    """
    all_traffic = observation.live_percent == 100
    new = evidence.replace(fault="")
    if settings.error_rate is not None:
        margin = settings.error_rate.margin
        new = _with_rates(new, margin, stable, candidate, only_harm, all_traffic)
    if settings.latency is not None:
        margin = settings.latency.margin
        new = _with_latency(new, margin, stable, candidate, only_harm, all_traffic)
    if settings.prediction_distribution is not None:
        margin = settings.prediction_distribution.margin
        new = _with_predictions(new, margin, stable, candidate, only_harm)
    if settings.reported_loss is not None:
        loss = evidence.reported_loss
        if loss is None or loss.margin != settings.reported_loss.margin:
            loss = LossEvidence.start(settings.reported_loss.margin)
        of_candidate, of_stable = (
            _losses_of(sample, stable, candidate)
            for sample in (observation.candidate, observation.stable)
        )
        loss = loss.update(of_candidate, of_stable, only_harm=only_harm)
        new = new.replace(reported_loss=loss)
    if settings.divergence is not None and observation.pairs:
        new = new.replace(
            divergence=_with_pairs(settings.divergence, evidence.divergence, observation, flag)
        )
    if settings.ground_truth is not None:
        ground_truth = evidence.ground_truth
        if ground_truth is None or ground_truth.margin != settings.ground_truth.margin:
            ground_truth = GroundTruthEvidence.start(settings.ground_truth.margin)
        losses = observation.losses
        of_arms = [each.candidate for each in losses], [each.stable for each in losses]
        new = new.replace(
            ground_truth=ground_truth.update(*of_arms, pending=observation.labels_pending)
        )
    return new


def _with_pairs(
    settings: DivergenceTest,
    known: DivergenceEvidence | None,
    observation: Observation,
    flag: bool,
) -> DivergenceEvidence:
    """Return the evidence with new pairs; with other settings it is new.

    The first record counts: a candidate that showed another each time would never be judged.
    """
    record = observation.pairs_record if known is None else known.record
    basis = settings.tolerance, settings.margin, record, flag
    if known is None or not known.is_of(*basis):
        known = DivergenceEvidence.start(*basis)
    return known.update(observation.pairs)


def _losses_of(sample: ArmSample | None, *blocks: ArmBlock) -> dict[str, int]:
    """Return the losses of the predictions that an arm made; any replica has counted them."""
    found: Counter[str] = Counter()
    for block in blocks:
        if sample is not None and sample.version in block.losses:
            found.update(block.losses[sample.version].counts)
    return dict(found)


def _with_predictions(
    evidence: Evidence, margin: float, stable: ArmBlock, candidate: ArmBlock, only_harm: bool
) -> Evidence:
    known = evidence.prediction_distribution
    if known is None and stable.predictions is None:
        return evidence  # servers of an older release
    if known is None or known.margin != margin:
        known = PredictionEvidence.start(margin)
    of_pods = [
        {pod: block.predictions for pod, block in arm.pods if block.predictions is not None}
        for arm in (stable, candidate)
    ]
    pods = None if only_harm else (of_pods[0], of_pods[1])
    predictions = candidate.predictions
    if not candidate.pods and stable.predictions is not None:
        predictions = stable.predictions.replace(counts={})  # it is not there yet
    new = known.update(predictions, stable.predictions, pods)
    return evidence.replace(prediction_distribution=new)


def _with_latency(
    evidence: Evidence,
    margin: float,
    stable: ArmBlock,
    candidate: ArmBlock,
    only_harm: bool,
    all_traffic: bool,
) -> Evidence:
    known = evidence.latency
    if known is None or known.slow.promotion.margin != margin:
        known = LatencyEvidence.start(margin)
    try:
        latency = known.update(candidate.latency, stable.latency, only_harm=only_harm)
    except DwcpError as error:
        return evidence.replace(fault=str(error))
    evidence = _with_slow_by_pod(evidence, known, stable, candidate)
    watch = _watched_latency(latency, evidence.watch_latency, stable, candidate, all_traffic)
    return evidence.replace(latency=latency, watch_latency=watch)


def _with_rates(
    evidence: Evidence,
    margin: float,
    stable: ArmBlock,
    candidate: ArmBlock,
    only_harm: bool,
    all_traffic: bool,
) -> Evidence:
    errors, rejections = evidence.error_rate, evidence.rejection_rate
    if errors is None or rejections is None or errors.promotion.margin != margin:
        start = RateEvidence.start(0.0, margin)
        # Harm has no margin here: what is known of it stays when the margin is edited.
        errors = start if errors is None else errors.replace(promotion=start.promotion)
        rejections = RateEvidence.start(REJECTION_SHARE_OF_MARGIN * margin, margin)
    failed = evidence.failed_by_pod.update(
        {pod: block.failed for pod, block in stable.pods},
        {pod: block.failed for pod, block in candidate.pods},
    )
    return evidence.replace(
        failed_by_pod=failed,
        error_rate=errors.update(candidate.failed, stable.failed, only_harm=only_harm),
        rejection_rate=rejections.update(candidate.refused, stable.refused, only_harm=only_harm),
        worst=evidence.worst.update(stable.failed),
        watch=_watched(evidence, errors, margin, stable, candidate, all_traffic),
    )


def verdicts_of(
    settings: Analysis, evidence: Evidence, observation: Observation, run_length: float
) -> tuple[Verdict, ...]:
    """Return the verdict of each enabled test; harm wins over promotion.

    Parameters
    ----------
    run_length
        Mean number of blocks until a false alarm of the watch.
    """
    passing = settings.promotion_alpha
    on = settings.enabled  # a test that was turned off keeps its evidence, and has no verdict
    results: list[Verdict] = []
    if "error_rate" in on:
        results += _rate_verdicts(settings, evidence, run_length)
    if "latency" in on:
        results += _latency_verdicts(settings, evidence, run_length)
    if PREDICTION_DISTRIBUTION in on and evidence.prediction_distribution is not None:
        alpha = settings.alpha_of(PREDICTION_DISTRIBUTION)
        results.append(evidence.prediction_distribution.verdict(alpha))
    if REPORTED_LOSS in on and evidence.reported_loss is not None:
        alpha = settings.alpha_of(REPORTED_LOSS)
        results.append(evidence.reported_loss.verdict(alpha, passing))
    if "divergence" in on and evidence.divergence is not None:
        verdict = evidence.divergence.verdict(settings.alpha_of("divergence"), passing)
        results.append(_unless_unavailable(verdict, observation.pairs_error))
    elif "divergence" in on and observation.pairs_error:
        results.append(unavailable("divergence", observation.pairs_error))
    if "ground_truth" in on and evidence.ground_truth is not None:
        verdict = evidence.ground_truth.verdict(settings.alpha_of("ground_truth"), passing)
        results.append(_unless_unavailable(verdict, observation.labels_error))
    return tuple(results)


def _unless_unavailable(verdict: Verdict, error: str) -> Verdict:
    """Return the verdict; without all of its data, that of a test that passes nothing."""
    if not error or verdict.outcome is Outcome.FAIL:
        return verdict
    return unavailable(verdict.test, error)


def _rate_verdicts(settings: Analysis, evidence: Evidence, needed: float) -> list[Verdict]:
    results = []
    for test, what, rate in (
        ("error_rate", "failed", evidence.error_rate),
        (REJECTIONS, "were rejected", evidence.rejection_rate),
    ):
        if rate is not None:
            alpha = settings.alpha_of(test)
            results.append(rate.verdict(test, what, alpha, settings.promotion_alpha))
    if evidence.watch is not None:
        results.append(evidence.watch.verdict(WATCH, "failed", needed))
    return results


def _latency_verdicts(settings: Analysis, evidence: Evidence, needed: float) -> list[Verdict]:
    results = []
    if evidence.fault:
        results.append(unavailable("latency", evidence.fault))
    elif evidence.latency is not None:
        alphas = settings.alpha_of("latency"), settings.alpha_of("latency_tail")
        harm = evidence.latency.harm_verdict(*alphas)
        promotion = evidence.latency.promotion_verdict(settings.promotion_alpha)
        results.append(combined(harm, promotion))
    if evidence.watch_latency is not None:
        results.append(evidence.watch_latency.verdict(WATCH_LATENCY, "were slow", needed))
    return results


def is_required(settings: Analysis, test: str) -> bool:
    """Return whether a step waits until this test passes; every test may roll it back."""
    if test in _ALWAYS_REQUIRED:
        return True
    chosen = {
        REPORTED_LOSS: settings.reported_loss,
        "divergence": settings.divergence,
        "ground_truth": settings.ground_truth,
    }.get(test)
    return chosen is not None and chosen.required


def _with_slow_by_pod(
    evidence: Evidence, known: LatencyEvidence, stable: ArmBlock, candidate: ArmBlock
) -> Evidence:
    """Add the counts by pod above the thresholds that were known before the block."""

    def counts_of(part: LatencyPart, arm: ArmBlock) -> dict[str, Counts]:
        return {
            pod: part.counts_above(known.edges, block.latency)
            for pod, block in arm.pods
            if block.latency is not None
        }

    slow, tail = (
        (counts_of(part, stable), counts_of(part, candidate)) for part in (known.slow, known.tail)
    )
    return evidence.replace(
        slow_by_pod=evidence.slow_by_pod.update(*slow),
        tail_by_pod=evidence.tail_by_pod.update(*tail),
    )


def odd_pod(settings: Analysis, evidence: Evidence, test: str) -> str:
    """Return the pod that explains why a test failed; empty if the bundle has to.

    Of latency both thresholds are tested, and a pod has to explain each that failed.
    """
    if test == "error_rate":
        return evidence.failed_by_pod.odd_pod
    if test == PREDICTION_DISTRIBUTION and evidence.prediction_distribution is not None:
        return evidence.prediction_distribution.odd_pod
    latency = evidence.latency
    if test != "latency" or latency is None:
        return ""
    pods = []
    if latency.slow.harm.log_e >= -math.log(settings.alpha_of("latency")):
        pods.append(evidence.slow_by_pod.odd_pod_by_speed)
    if latency.tail.harm.log_e >= -math.log(settings.alpha_of("latency_tail")):
        pods.append(evidence.tail_by_pod.odd_pod)
    return pods[0] if pods and all(pods) else ""


def restarted(evidence: Evidence, test: str) -> Evidence:
    """Return the evidence with that of one test started over: the pod that explained it is gone."""
    if test == "error_rate":
        return evidence.replace(error_rate=None, rejection_rate=None, failed_by_pod=PodCounts())
    if test == PREDICTION_DISTRIBUTION:
        return evidence.replace(prediction_distribution=None)
    return evidence.replace(latency=None, slow_by_pod=PodCounts(), tail_by_pod=PodCounts())


UNKNOWN_BOUND: Final = 0.1
"""Share of failed requests that is harm with all traffic where nothing is known of the stable, for
instance because an operator of another release stored the evidence."""


def _watched(
    evidence: Evidence,
    errors: RateEvidence,
    margin: float,
    stable: ArmBlock,
    candidate: ArmBlock,
    all_traffic: bool,
) -> WatchEvidence | None:
    """Return the evidence of the watch on errors: the candidate alone, beside what the stable was.

    A fault that comes and goes in both arms now hits the candidate alone, and the mean over all of
    the stable's requests is no bound for a bad minute: the stable's worst window counts if it is
    higher. A fault worse than any that the stable showed is attributed to the candidate. Below all
    traffic the watch stands in while the stable's metrics are missing, and starts over after that.
    """
    watch, known = evidence.watch, errors.harm.stable
    if stable.requests and not all_traffic:
        return None
    if not candidate.requests or not (known.requests or all_traffic):
        return watch
    if watch is None:
        allowed = UNKNOWN_BOUND
        if known.requests:
            allowed = max(bounds(known, _BOUND_ALPHA)[1], evidence.worst.rate)
        watch = WatchEvidence.start(allowed + WATCH_SHARE_OF_MARGIN * margin)
    return watch.update(candidate.failed)


def _watched_latency(
    latency: LatencyEvidence,
    watch: WatchEvidence | None,
    stable: ArmBlock,
    candidate: ArmBlock,
    all_traffic: bool,
) -> WatchEvidence | None:
    """Return the evidence of the watch on slow responses; slow is what it was for the stable."""
    if stable.requests and not all_traffic:
        return None
    if not latency.past or candidate.latency is None:
        return watch
    counts = latency.slow.counts_above(latency.edges, candidate.latency)
    if not counts.requests:
        return watch
    if watch is None:
        watch = WatchEvidence.start(latency.slow.allowed(latency.edges, latency.past, _BOUND_ALPHA))
    return watch.update(counts)
