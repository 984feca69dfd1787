"""Starts a rollout on this machine, or continues one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.bundle import contract_digest
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.local_rollout.driver import End, Watcher, drive, ground_truth_source, start_machine
from dwcp_ml.local_rollout.replay import predict_requests
from dwcp_ml.local_rollout.store import LocalRun, RolloutRequest, Store
from dwcp_ml.local_rollout.timeline import write_timeline
from dwcp_ml.rollout.spec import Revision, rollout_spec
from dwcp_ml.rollout.status import RolloutStatus

MIRROR_PERCENT: Final = 10
"""Share of the stable's requests that are mirrored to the candidate, for the tests on pairs."""


@dataclass(frozen=True)
class RolloutResult:
    """How a rollout ended on this machine."""

    outcome: End
    status: RolloutStatus
    page: Path


def rollout_request(
    stable: Path,
    candidate: Path,
    telemetry: Path,
    *,
    requests_per_second: float,
    settings: dict[str, Any] | None = None,
    incidents: Path | None = None,
    label_delay_seconds: float = 5.0,
) -> RolloutRequest:
    """Return the request for a rollout of one bundle over another.

    Parameters
    ----------
    stable, candidate
        ``<model>/<version>`` of the same model.
    settings
        Steps, analysis and watch_seconds, as a YAML file has them.
    incidents
        The file with the ground truth of the reliability detector.
    label_delay_seconds
        Time after a response until its ground truth is known.

    Raises
    ------
    BundleRefused
        If a bundle does not match its manifest.
    DataRefused
        If the telemetry or the incidents can't be read.
    UsageError
        If the two are not versions of one model or differ in their contract, a setting is wrong,
        or a test would have no data.
    """
    from dwcp_ml.export.verify import open_bundle

    current, new = open_bundle(stable), open_bundle(candidate)
    if current.manifest.name != new.manifest.name or current.manifest.form != new.manifest.form:
        raise UsageError(
            f"{stable} is {current.manifest.name} ({current.manifest.form}), {candidate} is "
            f"{new.manifest.name} ({new.manifest.form}): a rollout needs two of the same."
        )
    if contract_digest(current.manifest) != contract_digest(new.manifest):
        raise UsageError(
            f"{candidate} has another contract than {stable}: their inputs or outputs differ, "
            "which would break the callers. Give it another model name and a service of its own.",
            code=ErrorCode.CONTRACT,
            subject=new.manifest.version,
        )
    if current.digest == new.digest:
        raise UsageError(f"{candidate} is the live bundle already: there is nothing to roll out.")
    rollout = rollout_spec(
        settings,
        model=new.manifest.name,
        stable=Revision(version=current.manifest.version, digest=current.digest, uri=str(stable)),
        candidate=Revision(version=new.manifest.version, digest=new.digest, uri=str(candidate)),
    )
    champion = new.manifest.provenance.champion
    paired = rollout.analysis.divergence is not None or rollout.analysis.ground_truth is not None
    run = LocalRun(
        stable_bundle=str(stable.resolve()),
        candidate_bundle=str(candidate.resolve()),
        telemetry=str(telemetry.resolve()),
        requests_per_second=requests_per_second,
        mirror_percent=MIRROR_PERCENT if paired else 0,
        incidents=None if incidents is None else str(incidents.resolve()),
        label_delay_seconds=label_delay_seconds,
        record=champion.difference if champion and champion.digest == current.digest else None,
    )
    request = RolloutRequest(rollout=rollout, run=run)
    if rollout.analysis.ground_truth is not None:
        ground_truth_source(request, predict_requests(model_spec(rollout.model), telemetry))
    return request


def run(store: Store, *, limit_seconds: float, watcher: Watcher | None = None) -> RolloutResult:
    """Drive the rollout that the store holds to its end, and write the timeline.

    Raises
    ------
    DwcpError
        If a server or Envoy does not start.
    """
    request = store.request()
    with start_machine(store, request) as machine:
        outcome = drive(store, machine, limit_seconds=limit_seconds, watcher=watcher)
        responses = machine.replay.responses.copy()
    page = write_timeline(store, outcome, responses)
    return RolloutResult(outcome, store.status(), page)
