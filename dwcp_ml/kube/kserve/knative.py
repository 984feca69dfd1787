"""KServe's Knative mode: ``canaryTrafficPercent``, and the traffic of a Knative Service.

There is one predictor, which is the candidate; KServe's status names the revision that had all
traffic before. The stable predictor is recorded in an annotation of the candidate, so that it can
be restored. Each change, except of ``canaryTrafficPercent``, makes a new revision.

While a new revision is not ready, "the latest" is still the one before it: a candidate that was
rolled back would get traffic again. So a new predictor always starts at 0 %.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dwcp_ml.kube.api import DEPLOYMENT, KNATIVE_SERVICE, Object
from dwcp_ml.kube.kserve.objects import (
    Predictor,
    ServiceRouter,
    bare_digest,
    check_all,
    check_service,
    check_share,
    condition,
    creation_failure,
    deployed_revision,
    is_made_of,
    last_spec_writer,
    other_mode,
    serves,
    why_unsupported,
)
from dwcp_ml.kube.kserve.pods import addresses, report_of
from dwcp_ml.kube.kserve.predictors import (
    first_deployment,
    is_of_template,
    predictor_of,
    recorded_stable,
    with_recorded_stable,
)
from dwcp_ml.kube.kserve.router import (
    ChangeRejected,
    DesiredRevision,
    ObservedTraffic,
    TrafficUnknown,
    no_inference_service,
)

MODE: Final = "Knative"
REVISION: Final = "serving.knative.dev/revision"


class KnativeRouter(ServiceRouter):
    """A ``Router`` of one InferenceService in Knative mode."""

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return the live traffic."""
        isvc = self._writer.get()
        unsupported = why_unsupported(isvc, candidate, MODE)
        if isvc is None:
            return no_inference_service(unsupported)
        predictor = isvc["spec"]["predictor"]
        service = self._service()
        revisions = revisions_of(isvc, service)
        stable, percent, error = None, None, ""
        is_mine, is_alone = serves(predictor, candidate), PERCENT not in predictor
        own_revisions = {revisions.newest} if is_mine else set()
        try:
            stable = predictor if is_alone else recorded_stable(predictor)
            if not is_alone and serves(stable, candidate):
                own_revisions.add(revisions.rolled_out)
            own_revisions.discard("")
            if KNATIVE_SERVICE in self._forbidden:
                raise TrafficUnknown("the Knative Service may not be read")
            percent = None if unsupported else share_of(isvc, service, own_revisions, is_alone)
        except TrafficUnknown as unknown:
            error = f"{unknown}."
        pods = self._pods_by(REVISION)
        candidate_pods = [pod for revision in own_revisions for pod in pods.get(revision, [])]
        has_stable_beside = revisions.rolled_out not in own_revisions and not (is_mine and is_alone)
        stable_pods = pods.get(revisions.rolled_out, []) if has_stable_beside else []
        candidate_ready = bool(own_revisions) and (
            revisions.is_ready or revisions.rolled_out in own_revisions
        )
        candidate_report, stable_report = report_of(candidate_pods), report_of(stable_pods)
        # Without requests, as when the candidate has all of them, a revision has no pods.
        stable_ready = bool(addresses(stable_pods)) or not stable_pods
        return ObservedTraffic(
            exists=True,
            percent=percent,
            error=error,
            unsupported=unsupported,
            stable=None if stable is None else deployed_revision(stable),
            candidate=None if is_alone else deployed_revision(predictor),
            promoted=is_mine and is_alone and percent == 100,
            candidate_ready=candidate_ready,
            restarts=candidate_report.restarts,
            stable_restarts=stable_report.restarts,
            pods={"stable": addresses(stable_pods), "candidate": addresses(candidate_pods)},
            pod_counts={"stable": stable_report.count, "candidate": candidate_report.count},
            stable_ready=stable_ready,
            problem=candidate_report.problem,
            starting=candidate_report.starting,
            resource_version=str(isvc["metadata"]["resourceVersion"]),
            creation_failure="" if candidate_ready else self._creation_failure(own_revisions),
            forbidden=self._why_forbidden(),
            last_writer=last_spec_writer(isvc),
            other_mode=other_mode(isvc, MODE),
        )

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share; see ``Router``."""
        check_share(percent)
        isvc = self._writer.get_unchanged(live)
        if isvc is None:
            if percent != 100:
                raise ChangeRejected("Nothing is live yet: the first deployment gets 100 %.")
            predictor = predictor_of(candidate)
            self._writer.create(
                first_deployment(candidate, self._namespace, self._name, MODE, predictor)
            )
            return
        unsupported = why_unsupported(isvc, candidate, MODE)
        if unsupported:
            raise ChangeRejected(unsupported)
        predictor = isvc["spec"]["predictor"]
        if serves(_stable_if_known(predictor) or {}, candidate):
            self._keep(isvc, candidate, percent)
        elif serves(predictor, candidate):
            self._move(isvc, candidate, percent)
        else:
            self._exchange(isvc, candidate)

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; see ``Router``."""
        isvc = self._existing(live)
        predictor = isvc["spec"]["predictor"]
        if not serves(predictor, candidate):
            raise ChangeRejected(f"{candidate.version} is not what the predictor serves.")
        if PERCENT not in predictor:
            return
        if predictor[PERCENT] != 100:
            self._write(isvc, {**predictor, PERCENT: 100})
        elif self._newest_share(isvc) == 100:
            self._write(isvc, _without_percent(predictor))

    def _move(self, isvc: Object, candidate: DesiredRevision, percent: int) -> None:
        """Change the share of the candidate, which has a stable beside it."""
        predictor = isvc["spec"]["predictor"]
        deployed = deployed_revision(predictor)
        if deployed is None or (deployed.uri, deployed.digest) != (
            candidate.storage_uri,
            bare_digest(candidate.digest),
        ):
            self._exchange(isvc, candidate)  # another address makes another revision
        elif not predictor[PERCENT] and not is_of_template(predictor, candidate):
            self._exchange(isvc, candidate)  # so does another template: only without traffic
        elif percent <= predictor[PERCENT] or revisions_of(isvc, self._service()).is_ready:
            # Until it is ready, "the latest" is the revision before it.
            self._write(isvc, {**predictor, PERCENT: percent})

    def _exchange(self, isvc: Object, candidate: DesiredRevision) -> None:
        """Deploy the candidate, without traffic, in place of what the predictor serves.

        KServe treats a candidate with all traffic as the stable until it has none: the share that
        the new candidate does not get would go there.
        """
        predictor = isvc["spec"]["predictor"]
        is_alone = PERCENT not in predictor
        stable = predictor if is_alone else recorded_stable(predictor)
        if not is_alone and predictor[PERCENT]:
            self._write(isvc, {**predictor, PERCENT: 0})
        elif is_alone or self._newest_share(isvc) == 0:
            self._write(isvc, {**with_recorded_stable(predictor_of(candidate), stable), PERCENT: 0})

    def _keep(self, isvc: Object, candidate: DesiredRevision, percent: int) -> None:
        """Keep the candidate, which is already the stable, as the template says."""
        check_all(candidate, percent)
        if PERCENT in isvc["spec"]["predictor"]:
            self._drop(isvc)
        else:
            self._write(isvc, predictor_of(candidate))

    def _drop(self, isvc: Object) -> None:
        predictor = isvc["spec"]["predictor"]
        if PERCENT not in predictor:
            return
        if predictor[PERCENT] and _stable_if_known(predictor) is None:
            # KServe gives the traffic to the revision before, whether or not it is recorded.
            self._write(isvc, {**predictor, PERCENT: 0})
            return
        stable = recorded_stable(predictor)
        revisions = revisions_of(isvc, self._service())
        if deployed_revision(predictor) == deployed_revision(stable):
            # The stable again, as a new revision: without a share it takes over once it is ready,
            # and before that "the latest" would be the candidate that was rolled back.
            if revisions.is_ready:
                self._write(isvc, _without_percent(predictor))
        elif predictor[PERCENT]:
            self._write(isvc, {**predictor, PERCENT: 0})
        elif self._newest_share(isvc) == 0:
            self._write(isvc, {**with_recorded_stable(stable, stable), PERCENT: 0})

    def _write(self, isvc: Object, predictor: Predictor) -> None:
        spec = isvc["spec"]
        is_other = deployed_revision(spec["predictor"]) != deployed_revision(predictor)
        if is_other or (PERCENT in spec["predictor"] and PERCENT not in predictor):
            # A revision may differ from another one of the same bundle by what it lacks only.
            self._api.replace({**isvc, "spec": {**spec, "predictor": predictor}})
        else:
            self._writer.replace(isvc, {**spec, "predictor": predictor})

    def _newest_share(self, isvc: Object) -> int | None:
        """Return the live share of the newest revision; ``None`` if it is unknown."""
        service = self._service()
        newest = revisions_of(isvc, service).newest
        try:
            return share_of(isvc, service, {newest}, is_alone=False) if newest else None
        except TrafficUnknown:
            return None

    def _creation_failure(self, revisions: Collection[str]) -> str:
        """Return why the pods of these revisions can't be created; empty if they can."""
        deployments = (self._get(DEPLOYMENT, f"{name}-deployment") for name in sorted(revisions))
        return next(filter(None, map(creation_failure, deployments)), "")

    def _service(self) -> Object | None:
        for name in (f"{self._name}-predictor", f"{self._name}-predictor-default"):
            service = self._get(KNATIVE_SERVICE, name)
            if service is not None:
                return service
        return None


def _stable_if_known(predictor: Predictor) -> Predictor | None:
    """Return the stable; ``None`` if it is unknown."""
    if PERCENT not in predictor:
        return predictor
    try:
        return recorded_stable(predictor)
    except TrafficUnknown:
        return None


def _without_percent(predictor: Predictor) -> Predictor:
    return {key: value for key, value in predictor.items() if key != PERCENT}


PERCENT: Final = "canaryTrafficPercent"


@dataclass(frozen=True)
class Revisions:
    """The revisions of a Knative Service.

    Parameters
    ----------
    newest
        Revision of the predictor in the InferenceService; empty if it is not created yet.
    rolled_out
        The one that KServe treats as the stable; empty if there is none.
    """

    newest: str
    is_ready: bool
    rolled_out: str


def revisions_of(isvc: Object, service: Object | None) -> Revisions:
    """Return the revisions of an InferenceService's Knative Service; ``None`` for no service."""
    components = (isvc.get("status") or {}).get("components") or {}
    rolled_out = str((components.get("predictor") or {}).get("latestRolledoutRevision") or "")
    if service is None or not _is_of(service, isvc["spec"]["predictor"]):
        return Revisions("", False, rolled_out)
    status = service.get("status") or {}
    newest = str(status.get("latestCreatedRevisionName") or "")
    if rolled_out == newest and PERCENT in isvc["spec"]["predictor"]:
        # At 100 % KServe calls the candidate rolled out, and keeps the name of the one before it.
        rolled_out = str((components.get("predictor") or {}).get("previousRolledoutRevision") or "")
    is_ready = bool(newest) and status.get("latestReadyRevisionName") == newest
    return Revisions(newest, is_ready, rolled_out)


def _is_of(service: Object, predictor: Mapping[str, Any]) -> bool:
    """Return whether the Knative Service is that of this predictor."""
    template = (service.get("spec") or {}).get("template") or {}
    return _is_observed(service) and is_made_of(template, predictor)


def _is_observed(service: Object) -> bool:
    """Return whether the status of the Knative Service is about its newest spec."""
    observed = (service.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= service["metadata"].get("generation", 0))


def share_of(
    isvc: Object, service: Object | None, revisions: Collection[str], is_alone: bool
) -> int:
    """Return the share of these revisions together.

    Raises
    ------
    TrafficUnknown
        If Knative does not report it.
    """
    check_service(isvc)
    traffic = _traffic(service)
    if service is None or not traffic:
        if is_alone:
            return 0  # A first deployment that is not ready.
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
    shares = [
        (str(target.get("revisionName")), int(target.get("percent") or 0)) for target in targets
    ]
    if shares and sum(share for _, share in shares) != 100:
        raise TrafficUnknown("the shares of the Knative Service are not 100 % together")
    return shares
