"""What a rollout asks of KServe, what is seen there, and who moves the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from dwcp_ml.contract.errors import DwcpError


class ChangeRejected(DwcpError):
    """What was asked for can't be done with the InferenceService as it is."""


class TrafficUnknown(ChangeRejected):
    """What is live, or what was, can't be told from what the cluster says."""


@dataclass(frozen=True)
class DeployedRevision:
    """One bundle that an InferenceService names.

    Parameters
    ----------
    uri
        Its address.
    version
        As annotated; without an annotation the last part of the address.
    digest
        SHA-256 of the bundle's manifest as annotated, 64 hexadecimal digits; empty if it is not.
    """

    uri: str
    version: str
    digest: str


@dataclass(frozen=True)
class DesiredRevision:
    """A candidate, and how it is to be deployed.

    Parameters
    ----------
    version, digest, storage_uri
        The bundle; the digest with or without ``sha256:``.
    predictor
        The template: a KServe PredictorSpec without bundle, name and traffic.
    labels, annotations, owner_references
        Of the InferenceService when it is created. KServe hands labels and annotations on to every
        pod, so a later change would restart the stable: they are never changed.
    """

    version: str
    digest: str
    storage_uri: str
    predictor: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner_references: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class ObservedTraffic:
    """What is live at one moment.

    Parameters
    ----------
    exists
        The InferenceService is there.
    percent
        The desired candidate's share of the traffic, as what routes it says, never as the spec
        says; ``None`` if that can't be told, see ``error``.
    error
        Why not; empty otherwise.
    unsupported
        Why this service can't split traffic at all; empty if it can.
    stable
        What the stable predictor is; ``None`` if there is none, or, with an ``error``, not known.
    candidate
        What stands beside the stable; ``None`` for nothing. It need not be the desired candidate:
        compare the digests.
    promoted
        The desired candidate is the stable, gets everything, and nothing stands beside it.
    candidate_ready
        The desired candidate's pods can take traffic.
    restarts
        Container restarts and failed pods of the desired candidate, of those that are still there.
    pods
        ``stable`` and ``candidate`` -> ``host:port`` of the ready pods. Where the desired candidate
        is the stable there is only ``candidate``.
    resource_version
        Of the InferenceService as it was read; empty if there is none.
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


def no_inference_service(unsupported: str = "") -> ObservedTraffic:
    """Return what is live where there is no InferenceService."""
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
    still the one of ``live``, and none at all where everything is as it should be. So each can be
    called again: what was lost is made up for, and what stands is left alone. All raise
    ``KubeError``; after ``Conflict`` and ``Unavailable`` read again.
    """

    def read(self, candidate: DesiredRevision) -> ObservedTraffic:
        """Return what is live."""
        ...

    def set(self, live: ObservedTraffic, candidate: DesiredRevision, percent: int) -> None:
        """Make the next write on the way to this share.

        0 puts a candidate that is not there beside the stable, without traffic. Where nothing is
        there at all 100 creates the InferenceService. Another candidate that stands in the place
        first loses its traffic, by a write of its own, and then the place.

        Raises
        ------
        ChangeRejected
            If the share can't be had: less than all where there is nothing else.
        """
        ...

    def promote(self, live: ObservedTraffic, candidate: DesiredRevision) -> None:
        """Make the next write on the way to the candidate as the stable; until it is promoted."""
        ...

    def drop(self, live: ObservedTraffic) -> None:
        """Make the next write on the way to nothing beside the stable: no traffic, then no entry.

        Until ``live.candidate`` is ``None``.
        """
        ...
