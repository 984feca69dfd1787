"""Settings of the operator process: clocks, intervals, command line."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from dwcp_ml.contract.record import Record
from dwcp_ml.operator.policy import Policy

FINALIZER: Final = "ml.dwcp.io/restore-traffic"
"""Keeps a ModelRollout of ``deletionPolicy: Restore`` until its candidate has no traffic."""

Key = tuple[str, str]
"""Namespace and name of an object."""


@dataclass(frozen=True)
class Clock:
    """The two clocks: the wall clock may jump, the monotonic one only measures.

    Parameters
    ----------
    wall
        Epoch seconds.
    monotonic
        Seconds since some moment; never goes back.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


SYSTEM_CLOCK: Final = Clock()


class Intervals(Record):
    """Times between reconciliations and between writes of the status."""

    reconcile_seconds: float = Field(
        default=10.0, gt=0, description="between two reconciliations of a rollout"
    )
    ended_seconds: float = Field(
        default=300.0, gt=0, description="between two reconciliations of a rollout that has ended"
    )
    conflict_seconds: float = Field(
        default=1.0, gt=0, description="until the next reconciliation after a write conflict"
    )
    stall_seconds: float = Field(
        default=60.0,
        ge=0,
        description="a rollout that can't use its metrics or its router for this long is Stalled",
    )
    progress_deadline_seconds: float = Field(
        default=600.0,
        ge=0,
        description="a rollout that gets no traffic, or whose candidate does not become ready, for "
        "this long is Stalled",
    )
    resumed_seconds: float = Field(
        default=60.0,
        gt=0,
        description="interval at which the evidence of a rollout is stored that an earlier process "
        "started",
    )
    evidence_seconds: float = Field(
        default=0.0,
        ge=0,
        description="interval at which evidence is stored; 0 stores it only with another write, "
        "which bounds the writes of a rollout: evidence that a crash loses is counted again from "
        "the servers' counters",
    )


DEFAULT_INTERVALS: Final = Intervals()


class OperatorSettings(Record):
    """Settings of one operator process."""

    namespace: str = Field(default="", description="the one namespace to watch; empty for all")
    lease_namespace: str = Field(default="dwcp-ml", description="namespace of the Lease")
    lease_name: str = Field(default="dwcp-ml-operator", description="name of the Lease")
    identity: str = Field(
        default="", description="identity of this process in the Lease; empty for one made up"
    )
    prometheus: str = Field(
        default="", description="address of a Prometheus; empty to read the pods' own metrics"
    )
    kubeflow: str = Field(
        default="", description="address of Kubeflow Pipelines; empty rejects TrainingRuns"
    )
    kubeflow_token_file: Path | None = Field(default=None, description="token for Kubeflow")
    pipelines: Path = Field(
        default=Path("pipelines"), description="directory of the compiled pipelines"
    )
    port: int = Field(default=8080, ge=0, le=65535, description="health and metrics; 0 for any")
    workers: int = Field(
        default=4, ge=1, le=64, description="objects of each kind reconciled at the same time"
    )
    intervals: Intervals = Intervals()
    policy: Policy = Policy()


def identity_of(given: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the identity of this process: as configured, or its pod, or host and process id."""
    if given:
        return given
    return environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
