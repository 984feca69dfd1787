"""From what the router and the servers tell to what ``decide`` reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.kserve import Live, Served, Wanted
from dwcp_ml.metrics_sources.prometheus import PrometheusSource
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.rollout.observation import Arm, ArmSample, Observation
from dwcp_ml.rollout.spec import Revision, RolloutSpec

COUNTED: Final = frozenset({"error_rate", "latency"})
"""The tests that need the servers' counters only."""


@dataclass(frozen=True)
class Place:
    """Where a rollout is.

    Parameters
    ----------
    namespace, inference_service
        Names.
    """

    namespace: str
    inference_service: str


class Source(Protocol):
    """Where the counters of the two arms come from."""

    feeds: frozenset[str]
    """The tests that it brings enough for."""

    def read(self, arm: Arm, expected: Expected, live: Live, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        ...


class PodSource:
    """The metrics pages of the pods themselves, at the addresses that the router found."""

    feeds = COUNTED

    def read(self, arm: Arm, expected: Expected, live: Live, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        pods = live.pods.get(arm, ())
        if not pods:
            text = f"no pod of the {arm} in {place.namespace} is ready."
            return ArmSample(version=expected.version, error=text)
        return MetricsPages(pods, expected).read()


class PrometheusArms:
    """A Prometheus that scrapes the servers of both arms.

    Parameters
    ----------
    address
        See ``PrometheusSource``.
    matchers
        Place, and what an arm must serve -> labels that select the arm's targets.
    """

    feeds = COUNTED

    def __init__(self, address: str, matchers: Callable[[Place, Served], dict[str, str]]) -> None:
        self._address = address
        self._matchers = matchers

    def read(self, arm: Arm, expected: Expected, live: Live, place: Place) -> ArmSample:
        """Return the counters of an arm; what went wrong is in its ``error``."""
        served = live.stable if arm == "stable" else live.candidate or live.stable
        if served is None:
            return ArmSample(version=expected.version, error=f"the {arm} is not deployed.")
        try:
            return PrometheusSource(self._address, expected, self._matchers(place, served)).read()
        except UsageError as error:
            return ArmSample(version=expected.version, error=str(error))


def is_same(served: Served | None, revision: Revision) -> bool:
    """Return whether what is served is this bundle: by content, or by address if that is all."""
    if served is None:
        return False
    if served.digest and revision.digest:
        return served.digest.removeprefix("sha256:") == revision.digest
    return bool(served.uri) and served.uri == revision.uri


def revision_of(served: Served) -> Revision:
    """Return a bundle that is served; its version is the last part of its address if not told."""
    return Revision(
        version=served.version or served.uri.rstrip("/").rsplit("/", 1)[-1],
        digest=served.digest.removeprefix("sha256:"),
        uri=served.uri,
    )


def wanted_of(resource: ModelRollout) -> Wanted:
    """Return the candidate that a resource names, and how it is to be served.

    It has no owner: the InferenceService outlives the ModelRollout, unless a person deletes it.
    """
    spec = resource.spec
    return Wanted(
        version=spec.candidate.version,
        digest=spec.candidate.digest,
        storage_uri=spec.candidate.storage_uri,
        predictor=spec.template.predictor.to_dict(),
        labels=spec.template.labels or {},
        annotations=spec.template.annotations or {},
    )


def observe(spec: RolloutSpec, live: Live, source: Source | None, place: Place) -> Observation:
    """Return what is seen of a rollout.

    Parameters
    ----------
    spec
        What is asked for, with the stable that it is compared with.
    live
        What the router tells.
    source
        Where the counters come from; ``None`` where nobody needs them.
    """
    seen = Observation(
        live_percent=live.percent if live.exists else 0,
        router_error=live.error.rstrip("."),
        promoted=live.promoted,
    )
    is_deployed = any(is_same(one, spec.candidate) for one in (live.stable, live.candidate))
    candidate = ArmSample(
        version=spec.candidate.version,
        digest=spec.candidate.digest,
        ready=is_deployed and live.candidate_ready,
        restarts=live.restarts if is_deployed else 0,
    )
    if spec.stable is None or live.promoted or source is None:
        return seen.replace(candidate=candidate)
    stable = source.read("stable", _expected(spec.model, spec.stable), live, place)
    if candidate.ready:
        sample = source.read("candidate", _expected(spec.model, spec.candidate), live, place)
        candidate = sample.replace(ready=True, restarts=live.restarts)
    return seen.replace(stable=stable, candidate=candidate)


def _expected(model: str, revision: Revision) -> Expected:
    return Expected(model, revision.version, revision.digest)
