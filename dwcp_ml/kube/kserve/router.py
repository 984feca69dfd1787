"""The desired and the observed traffic of an InferenceService, and the ``Router`` protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dwcp_ml.contract.errors import DwcpError


class ChangeRejected(DwcpError):
    """The change is not possible with the InferenceService as it is."""


class TrafficUnknown(ChangeRejected):
    """The live weight, or the stable, is unknown."""


@dataclass(frozen=True)
class DeployedRevision:
    """One bundle that an InferenceService names.

    Parameters
    ----------
    version
        As annotated; without an annotation the last part of the address.
    digest
        SHA-256 of the bundle's manifest as annotated, 64 hexadecimal digits; empty if it is not.
    runtime
        The ServingRuntime that was chosen for it; empty for the template's.
    """

    uri: str
    version: str
    digest: str
    runtime: str = ""


@dataclass(frozen=True)
class DesiredRevision:
    """A candidate and the template of its deployment.

    Parameters
    ----------
    version, digest, storage_uri
        The bundle; the digest with or without ``sha256:``.
    predictor
        The template: a KServe PredictorSpec without bundle, name, traffic and arguments.
    model
        Full name of the model; its server is told to serve this digest of it only.
    runtime
        The ServingRuntime of this candidate; empty for the template's.
    labels, annotations, owner_references
        Of the InferenceService when it is created. KServe copies labels and annotations to every
        pod, so a later change would restart the stable: they are never changed.
    """

    version: str
    digest: str
    storage_uri: str
    predictor: Mapping[str, Any]
    model: str
    runtime: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner_references: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ObservedTraffic:
    """The live traffic of an InferenceService.

    Parameters
    ----------
    percent
        The desired candidate's live share of the traffic, from the routes and never from the spec;
        ``None`` if it is unknown, see ``error``.
    error
        Why the share is unknown; empty if it is known.
    unsupported
        Why this service can't split traffic at all; empty if it can.
    stable
        The stable; ``None`` if there is none or, with an ``error``, if it is unknown.
    candidate
        The bundle deployed beside the stable; ``None`` for none. It may be another than the desired
        candidate: compare the digests.
    promoted
        Whether the desired candidate is the stable, has all traffic, and nothing is beside it.
    restarts
        Container restarts of the desired candidate, and its pods that failed by themselves; of pods
        that still exist.
    pods
        ``stable`` and ``candidate`` -> ``host:port`` of the ready pods. Where the desired candidate
        is the stable there is only ``candidate``.
    resource_version
        Of the InferenceService as it was read; empty if there is none.
    forbidden
        The API server's sentence if it forbids one of the reads; empty if it does not.
    creation_failure
        Why no pod of the desired candidate, which is not ready, can be created; empty if they can.
    pod_counts
        ``stable`` and ``candidate`` -> pods that run or are to run.
    stable_ready
        Whether the stable can take traffic, or is scaled to 0.
    problem
        What the cluster keeps from running of the candidate, and which pod; empty for nothing.
    starting
        Whether no pod of the candidate has had the chance to become ready.
    other_mode
        The deployment mode of the InferenceService, where that is not the router's; empty if it is,
        or is not known yet.
    last_writer
        The field manager, other than the operator's, that wrote the spec last; empty if unknown.
    """

    exists: bool
    percent: int | None
    error: str
    unsupported: str
    stable: DeployedRevision | None
    candidate: DeployedRevision | None
    promoted: bool
    candidate_ready: bool
    restarts: int
    pods: Mapping[str, tuple[str, ...]]
    resource_version: str
    forbidden: str = ""
    creation_failure: str = ""
    last_writer: str = ""
    stable_restarts: int = 0
    pod_counts: Mapping[str, int] = field(default_factory=dict)
    stable_ready: bool = True
    problem: str = ""
    starting: bool = False
    other_mode: str = ""


def no_inference_service(unsupported: str = "") -> ObservedTraffic:
    """Return the traffic if there is no InferenceService."""
    return ObservedTraffic(
        exists=False,
        percent=None if unsupported else 0,
        error="",
        unsupported=unsupported,
        stable=None,
        candidate=None,
        promoted=False,
        candidate_ready=False,
        restarts=0,
        pods={"stable": (), "candidate": ()},
        resource_version="",
    )


class Router(Protocol):
    """Moves the traffic of one InferenceService.

    Each method but ``read`` makes at most one write, on the condition that the InferenceService is
    still the one of ``live``, and none if nothing has to change. So each can be called again: a
    lost write is repeated, and a completed one is not. All raise ``KubeError``; after
    ``Conflict`` and ``ApiUnavailable`` read again.
    """

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return the live traffic."""
        ...

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share.

        0 deploys a new candidate beside the stable, without traffic. If there is no
        InferenceService, 100 creates it. A former candidate first loses its
        traffic, by a write of its own, and is then replaced.

        Raises
        ------
        ChangeRejected
            If the share is not possible: below 100 without a stable.
        """
        ...

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; until it is promoted."""
        ...

    def drop(self, live: ObservedTraffic) -> None:
        """Make the next write on the way to no candidate: no traffic, then no entry.

        Until ``live.candidate`` is ``None``.
        """
        ...
