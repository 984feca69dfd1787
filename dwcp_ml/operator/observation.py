"""What is observed of a rollout: live weights and metrics, as ``decide`` reads them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import ValidationError

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.kserve import DeployedRevision, DesiredRevision, ObservedTraffic, bare_digest
from dwcp_ml.metrics_sources.prometheus import PrometheusSource
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages
from dwcp_ml.operator.api.model_rollout import (
    AnalysisSettings,
    ModelRollout,
    RetryCandidate,
    ShadowSettings,
)
from dwcp_ml.operator.api.parts import DeploymentMode
from dwcp_ml.operator.comparison import Compared, Comparison
from dwcp_ml.operator.settings import Key
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.observation import Arm, ArmSample, Observation
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import (
    TESTS,
    Analysis,
    Retry,
    Revision,
    RolloutSpec,
    ShadowStep,
    Skip,
    Step,
)

LATE_WRITE_SECONDS: Final = 120.0
"""A write without an answer may still be made this much later, though not by default: the API
server ends a request after 60 s."""

SUPPORTED_TESTS: Final = frozenset(
    {"error_rate", "latency", "prediction_distribution", "reported_loss", "divergence"}
)
"""The tests for which a cluster has the data: the servers' counters, and the requests they keep."""


_LOG = logging.getLogger("dwcp_ml.operator")


@dataclass(frozen=True)
class Place:
    """The place of a rollout on the cluster."""

    namespace: str
    inference_service: str


class Source(Protocol):
    """Source of the request counters of both arms."""

    supported_tests: frozenset[str]
    """The tests that it has the data for."""

    def read(self, arm: Arm, expected: Expected, live: ObservedTraffic, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        ...


class PodSource:
    """The metrics pages of the pods themselves, at the addresses that the router found."""

    supported_tests = SUPPORTED_TESTS

    def read(self, arm: Arm, expected: Expected, live: ObservedTraffic, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        pods = live.pods.get(arm, ())
        if not pods:
            error = f"no pod of the {arm} in {place.namespace} is ready."
            return ArmSample(version=expected.version, error=error)
        return MetricsPages(pods, expected).read()


class PrometheusArms:
    """A Prometheus that scrapes the servers of both arms.

    Parameters
    ----------
    matchers
        Place, and what an arm must serve -> labels that select the arm's targets.
    """

    supported_tests = SUPPORTED_TESTS

    def __init__(
        self, address: str, matchers: Callable[[Place, DeployedRevision], dict[str, str]]
    ) -> None:
        self._address = address
        self._matchers = matchers

    def read(self, arm: Arm, expected: Expected, live: ObservedTraffic, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        deployed = live.stable if arm == "stable" else live.candidate or live.stable
        if deployed is None:
            return ArmSample(version=expected.version, error=f"the {arm} is not deployed.")
        try:
            return PrometheusSource(self._address, expected, self._matchers(place, deployed)).read()
        except UsageError as error:
            return ArmSample(version=expected.version, error=str(error))


def is_same(deployed: DeployedRevision | None, revision: Revision) -> bool:
    """Return whether the deployed revision is this one: its bundle by digest, else by address."""
    if deployed is None or deployed.runtime != revision.runtime:
        return False
    if deployed.digest and revision.digest:
        return bare_digest(deployed.digest) == revision.digest
    return bool(deployed.uri) and deployed.uri == revision.uri


def to_revision(deployed: DeployedRevision) -> Revision:
    """Return the deployed bundle as a revision; an unknown version is the end of its address."""
    return Revision(
        version=deployed.version or deployed.uri.rstrip("/").rsplit("/", 1)[-1],
        digest=bare_digest(deployed.digest),
        uri=deployed.uri,
        runtime=deployed.runtime,
    )


def desired_revision(resource: ModelRollout) -> DesiredRevision:
    """Return the candidate of a resource, and how it is to be deployed.

    It has no owner reference: the InferenceService outlives the ModelRollout.
    """
    spec = resource.spec
    return DesiredRevision(
        version=spec.candidate.version,
        digest=spec.candidate.digest,
        storage_uri=spec.candidate.storage_uri,
        predictor=spec.template.predictor.to_dict(),
        model=spec.model_name,
        runtime=spec.candidate.runtime or "",
        labels=spec.template.labels or {},
        annotations=spec.template.annotations or {},
    )


@dataclass(frozen=True)
class Request:
    """What a ModelRollout asks for.

    Parameters
    ----------
    spec
        The rollout; its stable is not known yet.
    desired
        The candidate, and how it is to be deployed; without a template it can only be rolled back.
    restores
        Whether the stable gets all traffic back before the object is deleted.
    obstacle
        Why the weight may not rise; ``None`` if it may.
    """

    spec: RolloutSpec
    desired: DesiredRevision
    mode: DeploymentMode
    restores: bool
    obstacle: Cause | None = None


def request_of(resource: ModelRollout, retry_manager: str = "") -> Request:
    """Return what a resource asks for.

    Parameters
    ----------
    retry_manager
        The field manager that wrote ``spec.retry``; empty if unknown.

    Raises
    ------
    UsageError
        If the resource asks for what no rollout can be; the API server refuses such a resource,
        unless it was stored before its rules.
    """
    return Request(
        to_rollout_spec(resource, retry_manager),
        desired_revision(resource),
        resource.spec.template.deployment_mode,
        resource.spec.deletion_policy == "Restore",
    )


def to_rollout_spec(resource: ModelRollout, retry_manager: str = "") -> RolloutSpec:
    """Return the rollout that a resource asks for; what is live is not in it.

    Parameters
    ----------
    retry_manager
        See ``request_of``.

    Raises
    ------
    UsageError
        See ``request_of``.
    """
    spec, candidate = resource.spec, resource.spec.candidate
    skip = None
    if spec.skip is not None and spec.skip.version == candidate.version:
        skip = Skip(traffic_percent=spec.skip.traffic_percent, reason=spec.skip.reason)
    try:
        return RolloutSpec(
            model=spec.model_name,
            candidate=Revision(
                version=candidate.version,
                digest=bare_digest(candidate.digest),
                uri=candidate.storage_uri,
                runtime=candidate.runtime or "",
            ),
            stable=None,
            steps=tuple(Step(**step.model_dump()) for step in spec.steps),
            shadow=_shadow(spec.shadow),
            analysis=_analysis(spec.analysis),
            watch_seconds=spec.watch_seconds,
            paused=spec.paused,
            abort=spec.abort,
            skip=skip,
            retry=_retry(spec.retry, retry_manager),
            template_runtime=spec.template.predictor.model.runtime or "",
            generation=resource.metadata.generation,
        )
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
        raise UsageError(f"ModelRollout {resource.metadata.name} is invalid: {what}.") from error


def _shadow(settings: ShadowSettings) -> ShadowStep | None:
    if not settings.enabled:
        return None
    return ShadowStep(minimum_pairs=settings.minimum_pairs, each_flag=settings.each_flag)


def _retry(asked: RetryCandidate | None, manager: str) -> Retry | None:
    if asked is None:
        return None
    return Retry(digest=bare_digest(asked.digest), reason=asked.reason, manager=manager)


def _analysis(settings: AnalysisSettings) -> Analysis:
    """Return the analysis with the tests that are off taken out."""
    fields = settings.model_dump()
    for test in TESTS:
        options = fields[test]
        if options is not None and not options.pop("enabled"):
            fields[test] = None
    return Analysis(**fields)


def observe(
    spec: RolloutSpec,
    live: ObservedTraffic,
    source: Source | None,
    place: Place,
    comparison: Comparison | None = None,
    cursor: str = "",
) -> Observation:
    """Return what is observed of a rollout.

    Parameters
    ----------
    spec
        The spec, with the stable that the candidate is compared with.
    source
        Where the counters come from; ``None`` if they are not needed.
    comparison, cursor
        What sends requests of the stable to the candidate, and how far it came; ``None`` for no
        pairs of predictions.
    """
    observation = Observation(
        are_compared=None,
        live_percent=live.percent if live.exists else 0,
        router_error=live.error.rstrip("."),
        promoted=live.promoted,
    )
    is_deployed = any(is_same(each, spec.candidate) for each in (live.stable, live.candidate))
    candidate = ArmSample(
        version=spec.candidate.version,
        digest=spec.candidate.digest,
        ready=is_deployed and live.candidate_ready,
        restarts=live.restarts if is_deployed else 0,
        pods=live.pod_counts.get("candidate", 0),
        problem=problem_of(live) if is_deployed else None,
    )
    if spec.stable is None or live.promoted or source is None:
        return observation.replace(candidate=candidate)
    stable = source.read("stable", _expected(spec.model, spec.stable), live, place)
    stable = stable.replace(
        ready=live.stable_ready,
        restarts=live.stable_restarts,
        pods=live.pod_counts.get("stable", 0),
    )
    if candidate.ready or (is_deployed and live.pods.get("candidate")):
        sample = source.read("candidate", _expected(spec.model, spec.candidate), live, place)
        candidate = sample.replace(
            ready=candidate.ready,
            restarts=candidate.restarts,
            pods=candidate.pods,
            problem=candidate.problem,
        )
    observation = observation.replace(stable=stable, candidate=candidate)
    if comparison is None or spec.analysis.divergence is None:
        return observation
    return _with_pairs(observation, spec, live, comparison, cursor)


def _with_pairs(
    observation: Observation,
    spec: RolloutSpec,
    live: ObservedTraffic,
    comparison: Comparison,
    cursor: str,
) -> Observation:
    """Add the pairs of predictions, where the stable's servers keep requests."""
    stable, candidate = observation.stable, observation.candidate
    if stable is None or not stable.requests_port:
        known = stable is not None and bool(stable.replicas)
        return observation.replace(are_compared=False if known else None)
    if candidate is None or not candidate.ready or not live.pods.get("stable"):
        return observation.replace(are_compared=True)
    if candidate.error or candidate.digest not in ("", spec.candidate.digest):
        # Its metrics say whether it has a record: the tolerance would accuse it of what was meant.
        return observation.replace(are_compared=True)
    ports = stable.requests_port, candidate.requests_port
    if spec.stable is not None and not spec.stable.digest:
        # Its InferenceService does not say what it serves, as one made by hand; its servers do.
        spec = spec.replace(stable=spec.stable.replace(digest=stable.digest))
    try:
        compared = comparison.read(spec, live, ports, cursor)
    except Exception as error:  # whatever a pod sends, a roll-back must not fail with it
        _LOG.exception("the comparison of %s and %s", spec.stable, spec.candidate)
        reason = f"the comparison failed: {type(error).__name__}."
        compared = Compared(cursor=cursor, error=reason)
    return observation.replace(
        are_compared=True,
        pairs=compared.pairs,
        pairs_record=compared.record,
        pairs_cursor=compared.cursor,
        pairs_error=compared.error,
    )


def problem_of(live: ObservedTraffic) -> Cause | None:
    """Return why the candidate is not ready, where that is no fault of its own."""
    if live.candidate_ready:
        return None
    if live.forbidden:
        return Cause(reason=Reason.READ_FORBIDDEN, detail=live.forbidden)
    if live.creation_failure:
        return Cause(reason=Reason.POD_CREATION_FAILED, detail=live.creation_failure)
    if live.problem:
        return Cause(reason=Reason.CLUSTER_PROBLEM, detail=live.problem)
    if not live.starting:
        return None
    lost = Reason.CANDIDATE_LOST_READINESS
    return Cause(reason=lost if live.percent else Reason.CANDIDATE_NOT_READY)


def _expected(model: str, revision: Revision) -> Expected:
    return Expected(model, revision.version, revision.digest)


class AbsentServices:
    """Time for which there has been no InferenceService of a rollout that waits for its mode."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def is_mode_unused(self, key: Key, live: ObservedTraffic, now: float) -> bool:
        """Return whether nothing of a rollout is live, or can become live, in its mode.

        An InferenceService of another mode is proof, unless a candidate is seen there: no write in
        this mode fits it. Where there is none, the first write may still be under way.

        Parameters
        ----------
        key
            Of the ModelRollout.
        live
            As it is read in the mode of the rollout.
        now
            By the monotonic clock.
        """
        if live.exists:
            self._since.pop(key, None)
            return bool(live.other_mode) and live.candidate is None
        return now - self._since.setdefault(key, now) >= LATE_WRITE_SECONDS

    def forget(self, key: Key) -> None:
        """Drop an object that is gone, or has its mode again."""
        self._since.pop(key, None)
