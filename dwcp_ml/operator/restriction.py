"""What a rollout may still do whose spec the operator does not allow: take traffic away; pure."""

from __future__ import annotations

from dataclasses import replace

from dwcp_ml.kube.kserve import ObservedTraffic
from dwcp_ml.operator.plan import Plan
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.status import Phase


def restricted(plan: Plan, live: ObservedTraffic, refusal: Cause | None) -> Plan:
    """Return the plan of a rollout whose spec is not allowed: it can only lose traffic.

    Parameters
    ----------
    plan
        As ``next_plan`` made it.
    refusal
        Of ``Policy.refusal`` or ``read_rollout``; ``None`` leaves the plan as it is.
    """
    if refusal is None or plan.obstacle is not None:
        return plan
    if plan.action == "drop" or plan.state.rollout.phase is Phase.ROLLED_BACK:
        return plan
    if plan.state.rollout.phase is Phase.ROLLING_BACK:
        # ``set`` to 0 would also write the predictor as the template says.
        return replace(plan, action="drop") if plan.action == "set" else plan
    if plan.action == "none" and live.candidate is not None:
        return plan  # Evidence against a candidate that is deployed already still counts.
    return replace(plan, obstacle=refusal)
