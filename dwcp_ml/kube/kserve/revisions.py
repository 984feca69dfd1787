"""The revisions of a Knative Service: which is whose, and who has how much of the traffic; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dwcp_ml.kube.api import Object
from dwcp_ml.kube.kserve.predictors import is_made_of
from dwcp_ml.kube.kserve.router import TrafficUnknown
from dwcp_ml.kube.kserve.unsupported import check_service
from dwcp_ml.kube.kserve.workloads import condition

PERCENT: Final = "canaryTrafficPercent"


@dataclass(frozen=True)
class Revisions:
    """The revisions of a Knative Service.

    Parameters
    ----------
    newest
        That of the predictor as it stands in the InferenceService; empty if it is not made yet.
    is_ready
        Whether the newest can take traffic.
    rolled_out
        The one that KServe takes for the stable; empty if there is none.
    """

    newest: str
    is_ready: bool
    rolled_out: str


def revisions_of(found: Object, service: Object | None) -> Revisions:
    """Return the revisions of an InferenceService's Knative Service; ``None`` for no service."""
    said = (found.get("status") or {}).get("components") or {}
    rolled_out = str((said.get("predictor") or {}).get("latestRolledoutRevision") or "")
    if service is None or not _is_of(service, found["spec"]["predictor"]):
        return Revisions("", False, rolled_out)
    status = service.get("status") or {}
    newest = str(status.get("latestCreatedRevisionName") or "")
    if rolled_out == newest and PERCENT in found["spec"]["predictor"]:
        # At 100 % KServe takes the candidate for rolled out, and remembers what was before it.
        rolled_out = str((said.get("predictor") or {}).get("previousRolledoutRevision") or "")
    is_ready = bool(newest) and status.get("latestReadyRevisionName") == newest
    return Revisions(newest, is_ready, rolled_out)


def _is_of(service: Object, predictor: Mapping[str, Any]) -> bool:
    """Return whether the Knative Service is that of the predictor as it stands now."""
    template = (service.get("spec") or {}).get("template") or {}
    return _is_observed(service) and is_made_of(template, predictor)


def _is_observed(service: Object) -> bool:
    """Return whether the status of the Knative Service is about what is asked of it now."""
    seen = (service.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= service["metadata"].get("generation", 0))


def share_of(
    found: Object, service: Object | None, revisions: Collection[str], is_alone: bool
) -> int:
    """Return the share of these revisions together.

    Raises
    ------
    TrafficUnknown
        If Knative does not say.
    """
    check_service(found)
    traffic = _traffic(service)
    if service is None or not traffic:
        if is_alone:
            return 0  # a first deployment that is not ready
        raise TrafficUnknown("there is no Knative Service of the predictor")
    if not _is_observed(service) or condition(service, "RoutesReady") != "True":
        raise TrafficUnknown("Knative has not carried the newest traffic out yet")
    return sum(share for name, share in traffic if name in revisions)


def _traffic(service: Object | None) -> Sequence[tuple[str, int]]:
    """Return revision and share of each target.

    Raises
    ------
    TrafficUnknown
        If the shares are not all of the traffic.
    """
    targets = ((service or {}).get("status") or {}).get("traffic") or []
    shares = [(str(one.get("revisionName")), int(one.get("percent") or 0)) for one in targets]
    if shares and sum(share for _, share in shares) != 100:
        raise TrafficUnknown("the shares of the Knative Service are not 100 % together")
    return shares
