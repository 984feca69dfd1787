"""What the shadow step waits for: requests of the stable that the candidate has predicted."""

from __future__ import annotations

from typing import Final

from dwcp_ml.rollout.analysis import is_required
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.evidence.divergence import TEST as DIVERGENCE
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.observation import Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import RolloutSpec, ShadowStep
from dwcp_ml.rollout.status import RolloutStatus
from dwcp_ml.rollout.verdict import Outcome, Verdict

FIRST_PAIRS_SECONDS: Final = 30.0
"""Time after the start in which the first pairs may still be under way."""


def hold_of_shadow_step(
    spec: RolloutSpec, status: RolloutStatus, observation: Observation
) -> Cause | None:
    """Return what the shadow step waits for; ``None`` for nothing. A failed test rolls back.

    While the rollout is paused pairs are compared, and nothing is waited for but the user.
    """
    verdict = next((each for each in status.verdicts if each.test == DIVERGENCE), None)
    if verdict is not None and verdict.outcome is Outcome.ERROR:
        return Cause(reason=Reason.TEST_UNAVAILABLE, test=DIVERGENCE, detail=verdict.sentence)
    hold = (
        _hold_of_pairs(spec.shadow or ShadowStep(), status, observation)
        or _hold_of_flags(spec, status.evidence.divergence)
        or _hold_of_verdict(spec, verdict)
    )
    return Cause(reason=Reason.PAUSED, percent=0) if hold is not None and spec.paused else hold


def _hold_of_pairs(
    step: ShadowStep, status: RolloutStatus, observation: Observation
) -> Cause | None:
    """Return that too few requests were compared, and whether there are more to compare."""
    known = status.evidence.divergence
    pairs = 0 if known is None else known.pairs
    if pairs >= step.minimum_pairs:
        return None
    elapsed = (status.last_reconciled or 0.0) - status.started_at
    begins = known is None and observation.are_compared and elapsed < FIRST_PAIRS_SECONDS
    reason = Reason.COMPARING if observation.pairs or begins else Reason.NOTHING_TO_COMPARE
    return Cause(reason=reason, value=pairs, limit=step.minimum_pairs)


def _hold_of_flags(spec: RolloutSpec, known: DivergenceEvidence | None) -> Cause | None:
    """Return that too few flagged requests, or ones that are not, were compared."""
    if known is None or spec.shadow is None or not spec.shadow.each_flag:
        return None
    answer = known.answer_waited(spec.analysis.alpha_of(DIVERGENCE))
    if answer is None:
        return None
    detail = "flagged" if answer.flag else "did not flag"
    return Cause(
        reason=Reason.FLAG_NOT_COMPARED, test=DIVERGENCE, detail=detail,
        value=answer.pairs, limit=answer.needed,
    )  # fmt: skip


def _hold_of_verdict(spec: RolloutSpec, verdict: Verdict | None) -> Cause | None:
    if not is_required(spec.analysis, DIVERGENCE):
        return None
    if verdict is not None and verdict.outcome is Outcome.PASS:
        return None
    detail = "" if verdict is None else verdict.sentence
    return Cause(reason=Reason.INSUFFICIENT_EVIDENCE, test=DIVERGENCE, detail=detail)
