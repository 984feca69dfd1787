"""Begin a rollout on this machine, or go on with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import RolloutStatus
from dwcp_ml.stages.local_rollout.driver import End, Watcher, drive, machine_of
from dwcp_ml.stages.local_rollout.store import LocalRun, Request, Store
from dwcp_ml.stages.local_rollout.timeline import write_timeline


@dataclass(frozen=True)
class Ended:
    """How a rollout ended on this machine."""

    outcome: End
    status: RolloutStatus
    page: Path


def request_of(
    stable: Path,
    candidate: Path,
    telemetry: Path,
    *,
    requests_per_second: float,
    settings: dict[str, Any] | None = None,
) -> Request:
    """Return the request for a rollout of one bundle over another.

    Parameters
    ----------
    stable, candidate
        ``<model>/<version>`` of the same model.
    settings
        Steps, analysis and watch_seconds, as a YAML file has them.

    Raises
    ------
    BundleRefused
        If a bundle is not what it says.
    UsageError
        If the two are not versions of one model, or a setting is wrong.
    """
    from dwcp_ml.export.verify import open_bundle

    live, new = open_bundle(stable), open_bundle(candidate)
    if live.manifest.name != new.manifest.name or live.manifest.form != new.manifest.form:
        raise UsageError(
            f"{stable} is {live.manifest.name} ({live.manifest.form}), {candidate} is "
            f"{new.manifest.name} ({new.manifest.form}): a rollout needs two of the same."
        )
    if live.digest == new.digest:
        raise UsageError(f"{candidate} is what is live already: there is nothing to roll out.")
    given = {
        **(settings or {}),
        "model": new.manifest.name,
        "stable": Revision(version=live.manifest.version, digest=live.digest, uri=str(stable)),
        "candidate": Revision(version=new.manifest.version, digest=new.digest, uri=str(candidate)),
    }
    try:
        rollout = RolloutSpec(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the settings"
        raise UsageError(f"{where}: {first['msg']}.") from error
    run = LocalRun(
        stable_bundle=str(stable.resolve()),
        candidate_bundle=str(candidate.resolve()),
        telemetry=str(telemetry.resolve()),
        requests_per_second=requests_per_second,
        mirror_percent=10 if rollout.analysis.divergence is not None else 0,
    )
    return Request(rollout=rollout, run=run)


def run(store: Store, *, limit_seconds: float, watcher: Watcher | None = None) -> Ended:
    """Drive the rollout that the store holds to its end, and write the timeline.

    Raises
    ------
    DwcpError
        If a server or Envoy does not start.
    """
    request = store.request()
    with machine_of(store, request) as machine:
        outcome = drive(store, machine, limit_seconds=limit_seconds, watcher=watcher)
        answers = machine.replay.answers.copy()
    page = write_timeline(store, outcome, answers)
    return Ended(outcome, store.status(), page)
