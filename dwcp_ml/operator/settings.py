"""How the operator runs: what its command line and its Deployment may say."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.records import Record
from dwcp_ml.operator.api.state import Sealer

FINALIZER: Final = "ml.dwcp.io/restore-traffic"
"""Holds a ModelRollout of ``deletionPolicy: Restore`` until its candidate has no traffic."""

Key = tuple[str, str]
"""Namespace and name of an object."""


@dataclass(frozen=True)
class Clock:
    """The two clocks: one tells the time and may jump, one only measures.

    Parameters
    ----------
    wall
        Epoch seconds.
    monotonic
        Seconds since some moment; never goes back.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


SYSTEM: Final = Clock()


class Pace(Record):
    """How often the operator looks, and how often it writes down what it saw."""

    look_seconds: float = Field(default=10.0, gt=0, description="between two looks at a rollout")
    ended_seconds: float = Field(
        default=300.0, gt=0, description="between two looks at one that has ended"
    )
    conflict_seconds: float = Field(
        default=1.0, gt=0, description="until the next look after somebody else wrote"
    )
    trouble_seconds: float = Field(
        default=60.0,
        ge=0,
        description="a rollout that is held so long has its reason written into its status",
    )
    resumed_seconds: float = Field(
        default=60.0,
        gt=0,
        description="evidence of a rollout that another process began is stored so often",
    )
    evidence_seconds: float = Field(
        default=0.0,
        ge=0,
        description="evidence is stored at least so often; 0 stores it only when something else "
        "is written, which keeps the writes of a rollout bounded: evidence that a crash loses is "
        "counted again from the servers' counters",
    )


USUAL: Final = Pace()


class OperatorSettings(Record):
    """What one process of the operator is told."""

    key_files: tuple[Path, ...] = Field(
        min_length=1, description="secrets that seal memories; the first seals, all are believed"
    )
    namespace: str = Field(default="", description="the one namespace to watch; empty for all")
    lease_namespace: str = Field(default="dwcp-ml", description="where the Lease is")
    lease_name: str = Field(default="dwcp-ml-operator", description="name of the Lease")
    identity: str = Field(default="", description="who this process is; empty for one made up")
    prometheus: str = Field(
        default="", description="address of a Prometheus; empty to read the pods' own metrics"
    )
    kubeflow: str = Field(
        default="", description="address of Kubeflow Pipelines; empty refuses TrainingRuns"
    )
    kubeflow_token_file: Path | None = Field(default=None, description="token for Kubeflow")
    pipelines: Path = Field(
        default=Path("pipelines"), description="directory of the compiled pipelines"
    )
    port: int = Field(default=8080, ge=0, le=65535, description="health and metrics; 0 for any")
    workers: int = Field(default=4, ge=1, le=64, description="objects looked at at the same time")
    pace: Pace = Pace()


def sealer_of(files: tuple[Path, ...]) -> Sealer:
    """Return what seals memories, with the secrets in these files.

    Raises
    ------
    UsageError
        If a file can't be read, or holds fewer than 32 bytes.
    """
    keys = []
    for file in files:
        try:
            keys.append(file.read_bytes().strip())
        except OSError as error:
            raise UsageError(f"can't read the key {file}: {error.strerror}.") from error
    return Sealer(*keys)


def identity_of(given: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return who this process is: as it was told, or its pod, or its host and process."""
    if given:
        return given
    return environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
