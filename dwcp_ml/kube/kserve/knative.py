"""KServe's Knative mode: ``canaryTrafficPercent``, and the traffic of a Knative Service.

There is one predictor, which is the candidate, and KServe remembers in its status which revision
had all traffic before. So what the stable was stands in an annotation of the candidate: the
operator can put it back. Each change but that of ``canaryTrafficPercent`` makes a new revision.

While a new revision is not ready, "the latest" is still the one before it: a candidate that was
taken back would get traffic again. So a new predictor always comes with 0 %.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dwcp_ml.kube.api import KNATIVE_SERVICE, POD, Api, Object
from dwcp_ml.kube.kserve.objects import (
    SERVICE_LABEL,
    Predictor,
    Writer,
    addresses,
    bare_digest,
    check_service,
    check_share,
    condition,
    is_made_of,
    refusal,
    restarts,
    served_of,
    serves,
)
from dwcp_ml.kube.kserve.predictors import (
    first_deployment,
    is_of_template,
    predictor_of,
    stable_of,
    with_stable,
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


class KnativeRouter:
    """A ``Router`` of one InferenceService in Knative mode."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._writer = Writer(api, namespace, name)

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return what is live."""
        found = self._writer.get()
        unsupported = refusal(found, candidate, MODE)
        if found is None:
            return no_inference_service(unsupported)
        predictor = found["spec"]["predictor"]
        service = self._service()
        revisions = revisions_of(found, service)
        stable, percent, error = None, None, ""
        is_mine, is_alone = serves(predictor, candidate), PERCENT not in predictor
        its = {revisions.newest} if is_mine else set()
        try:
            stable = predictor if is_alone else stable_of(predictor)
            if not is_alone and serves(stable, candidate):
                its.add(revisions.rolled_out)
            its.discard("")
            percent = None if unsupported else share_of(found, service, its, is_alone)
        except TrafficUnknown as unclear:
            error = f"{unclear}."
        pods = self._pods()
        mine = [pod for revision in its for pod in pods.get(revision, [])]
        has_stable_beside = revisions.rolled_out not in its and not (is_mine and is_alone)
        others = pods.get(revisions.rolled_out, []) if has_stable_beside else []
        return ObservedTraffic(
            exists=True,
            percent=percent,
            error=error,
            unsupported=unsupported,
            stable=None if stable is None else served_of(stable),
            candidate=None if is_alone else served_of(predictor),
            promoted=is_mine and is_alone and percent == 100,
            candidate_ready=bool(its) and (revisions.is_ready or revisions.rolled_out in its),
            restarts=restarts(mine),
            pods={"stable": addresses(others), "candidate": addresses(mine)},
            resource_version=str(found["metadata"]["resourceVersion"]),
        )

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share; see ``Router``."""
        check_share(percent)
        found = self._writer.unchanged(live)
        if found is None:
            if percent != 100:
                raise ChangeRejected("nothing is live yet: the first deployment gets 100 %.")
            predictor = predictor_of(candidate)
            self._writer.create(
                first_deployment(candidate, self._namespace, self._name, MODE, predictor)
            )
            return
        unsupported = refusal(found, candidate, MODE)
        if unsupported:
            raise ChangeRejected(unsupported)
        predictor = found["spec"]["predictor"]
        if serves(_stable_in(predictor) or {}, candidate):
            self._keep(found, candidate, percent)
        elif serves(predictor, candidate):
            self._move(found, candidate, percent)
        else:
            self._exchange(found, candidate)

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; see ``Router``."""
        found = self._writer.unchanged(live)
        if found is None:
            raise ChangeRejected(f"There is no InferenceService {self._name}.")
        predictor = found["spec"]["predictor"]
        if not serves(predictor, candidate):
            raise ChangeRejected(f"{candidate.version} is not what the predictor serves.")
        if PERCENT not in predictor:
            return
        if predictor[PERCENT] != 100:
            self._write(found, {**predictor, PERCENT: 100})
        elif self._newest_share(found) == 100:
            self._write(found, _without_percent(predictor))

    def drop(self, live: ObservedTraffic) -> None:
        """Make the next write on the way to nothing beside the stable; see ``Router``."""
        found = self._writer.unchanged(live)
        if found is not None:
            self._drop(found)

    def _move(self, found: Object, candidate: DesiredRevision, percent: int) -> None:
        """Change the share of the candidate, which has a stable beside it."""
        predictor = found["spec"]["predictor"]
        there = served_of(predictor)
        if there is None or (there.uri, there.digest) != (
            candidate.storage_uri,
            bare_digest(candidate.digest),
        ):
            self._exchange(found, candidate)  # another address makes another revision
        elif not predictor[PERCENT] and not is_of_template(predictor, candidate):
            self._exchange(found, candidate)  # so does another template: only without traffic
        elif percent <= predictor[PERCENT] or revisions_of(found, self._service()).is_ready:
            # Before it is ready "the latest" is the revision before it, whatever that was.
            self._write(found, {**predictor, PERCENT: percent})

    def _exchange(self, found: Object, candidate: DesiredRevision) -> None:
        """Put the candidate, without traffic, in the place of what the predictor serves.

        A candidate that had all traffic KServe takes for the stable until it has none: what the
        newcomer does not get would go there.
        """
        predictor = found["spec"]["predictor"]
        is_alone = PERCENT not in predictor
        stable = predictor if is_alone else stable_of(predictor)
        if not is_alone and predictor[PERCENT]:
            self._write(found, {**predictor, PERCENT: 0})
        elif is_alone or self._newest_share(found) == 0:
            self._write(found, {**with_stable(predictor_of(candidate), stable), PERCENT: 0})

    def _keep(self, found: Object, candidate: DesiredRevision, percent: int) -> None:
        """Keep the candidate, which is the stable already, as it is asked for."""
        if percent != 100:
            raise ChangeRejected(
                f"{candidate.version} is the stable: there is nothing that could take its traffic."
            )
        if PERCENT in found["spec"]["predictor"]:
            self._drop(found)
        else:
            self._write(found, predictor_of(candidate))

    def _drop(self, found: Object) -> None:
        predictor = found["spec"]["predictor"]
        if PERCENT not in predictor:
            return
        stable = stable_of(predictor)
        revisions = revisions_of(found, self._service())
        if served_of(predictor) == served_of(stable):
            # The stable again, as a new revision: without a share it takes over once it is ready,
            # and before that "the latest" would be the candidate that was taken back.
            if revisions.is_ready:
                self._write(found, _without_percent(predictor))
        elif predictor[PERCENT]:
            self._write(found, {**predictor, PERCENT: 0})
        elif self._newest_share(found) == 0:
            self._write(found, {**with_stable(stable, stable), PERCENT: 0})

    def _write(self, found: Object, predictor: Predictor) -> None:
        spec = found["spec"]
        if PERCENT in spec["predictor"] and PERCENT not in predictor:
            self._api.replace({**found, "spec": {**spec, "predictor": predictor}})
        else:
            self._writer.replace(found, {**spec, "predictor": predictor})

    def _newest_share(self, found: Object) -> int | None:
        """Return the live share of the newest revision; ``None`` if that can't be told."""
        service = self._service()
        newest = revisions_of(found, service).newest
        try:
            return share_of(found, service, {newest}, is_alone=False) if newest else None
        except TrafficUnknown:
            return None

    def _service(self) -> Object | None:
        for name in (f"{self._name}-predictor", f"{self._name}-predictor-default"):
            found = self._api.get(KNATIVE_SERVICE, self._namespace, name)
            if found is not None:
                return found
        return None

    def _pods(self) -> dict[str, list[Object]]:
        """Return name of a revision -> its pods."""
        pods: dict[str, list[Object]] = {}
        for pod in self._api.list(POD, self._namespace, f"{SERVICE_LABEL}={self._name}"):
            revision = str((pod["metadata"].get("labels") or {}).get(REVISION))
            pods.setdefault(revision, []).append(pod)
        return pods


def _stable_in(predictor: Predictor) -> Predictor | None:
    """Return the stable; ``None`` if the predictor does not say."""
    if PERCENT not in predictor:
        return predictor
    try:
        return stable_of(predictor)
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
