"""Reports joined ground truth to the model servers, for callers that can't be asked to report.

What a server logged is joined with later telemetry, and each outcome is reported as a caller would
do it: any replica counts it for the version that predicted. A state file holds the time up to which
everything has been reported, so that a job that runs again and again reports a prediction once. A
job that is killed between a report and the state reports its last predictions again, with the same
ids; a replica that has seen an id does not count it again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
from pydantic import Field

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import COMPARED_OUTPUTS, ModelSpec
from dwcp_ml.contract.record import Record
from dwcp_ml.files import write_text
from dwcp_ml.monitoring.ground_truth import REASONS
from dwcp_ml.monitoring.joining import Sources, Version, join
from dwcp_ml.monitoring.records import Unmatched
from dwcp_ml.serving.client import HttpClient
from dwcp_ml.training_run.progress import Reporter, ignore_event

BATCH: Final = 500
"""Outcomes of one report; a server takes 1,000 and 256 KiB."""


class ReportState(Record):
    """What has been reported already."""

    reported_until: float = Field(
        description="epoch seconds: every prediction for features observed before is done with"
    )


class ReportedVersion(Record):
    """What was reported of one version of one model."""

    model: str
    version: str
    reported: int = Field(ge=0, description="outcomes sent")
    counted: int = Field(ge=0, description="outcomes that a server has counted now")
    unmatched: dict[str, int] = Field(description="reason -> predictions without ground truth")


class OutcomeReport(Record):
    """What one run has reported."""

    versions: tuple[ReportedVersion, ...]
    reported_until: float | None = Field(
        description="epoch seconds; null if the log holds no prediction"
    )


def report_outcomes(
    sources: Sources, address: str, state: Path | None = None, report: Reporter = ignore_event
) -> OutcomeReport:
    """Join, and report every outcome that was not reported before.

    Predictions whose ground truth may still come are left for the next run, and with them all that
    were observed later.

    Parameters
    ----------
    address
        ``http://host:port`` of a server, or of the gateway before several.
    state
        File with the time up to which everything is reported; it replaces ``sources.since``, and is
        written again at the end. ``None`` keeps none.

    Raises
    ------
    DataRefused
        If the log, the telemetry or the incidents can't be used.
    DwcpError
        If a server gives no response or refuses a report; the state stays as it was.
    """
    if state is not None and state.exists():
        known = ReportState.read(state).reported_until
        sources = replace(sources, since=max(sources.since, known))
    versions, _ = join(sources, report)
    until = _until(versions)
    with HttpClient(address) as client:
        reported = [_report(client, version, until) for version in versions]
    if state is not None and until is not None:
        write_text(state, ReportState(reported_until=until).to_json())
    return OutcomeReport(versions=tuple(reported), reported_until=until)


def _until(versions: list[Version]) -> float | None:
    """Return the time before which no prediction waits for telemetry; None without a prediction."""
    pending = REASONS.index(Unmatched.PENDING)
    waiting = [
        float(version.predictions.moment[version.ground_truth.reason == pending].min())
        for version in versions
        if (version.ground_truth.reason == pending).any()
    ]
    if waiting:
        return min(waiting)
    newest = [float(one.predictions.moment.max()) for one in versions if len(one.predictions)]
    return math.nextafter(max(newest), math.inf) if newest else None


def _report(client: HttpClient, version: Version, until: float | None) -> ReportedVersion:
    spec = version.predictions.spec
    frame = version.frame()
    frame = frame[frame["observed_at"] < (math.inf if until is None else until)]
    counted = 0
    for batch in _batches(spec, frame):
        body = json.dumps({"outcomes": batch}).encode()
        response = client.send(
            "POST",
            f"/v1/models/{spec.name}:feedback",
            body,
            {"Content-Type": "application/json"},
        )
        content = response.json()
        if response.status != 200 or not isinstance(content, dict):
            raise DwcpError(
                f"The server refuses outcomes of {spec.name}: {response.status} "
                f"{response.body[:200]!r}.",
                code=ErrorCode.STATUS,
                subject=response.status,
            )
        counted += int(content.get("counted", 0))
    return ReportedVersion(
        model=spec.name,
        version=version.predictions.version,
        reported=len(frame),
        counted=counted,
        unmatched=version.unmatched,
    )


def _batches(spec: ModelSpec, frame: pd.DataFrame) -> Iterator[list[dict[str, Any]]]:
    kind = _kind(spec)
    columns = ("version", "request_id", "row", "prediction", "ground_truth")
    for start in range(0, len(frame), BATCH):
        rows = frame.iloc[start : start + BATCH][list(columns)].itertuples(index=False)
        yield [
            {
                "id": _identity(request, row),
                "version": version,
                "prediction": kind(prediction),
                "outcome": kind(outcome),
            }
            for version, request, row, prediction, outcome in rows
        ]


def _identity(request: str, row: int) -> str:
    """Return an id of at most 128 characters, the same in each run."""
    return hashlib.blake2b(f"{request}\0{row}".encode(), digest_size=16).hexdigest()


def _kind(spec: ModelSpec) -> type[bool] | type[int] | type[float]:
    """Return the type of the output that is compared, as JSON has it."""
    names = COMPARED_OUTPUTS[spec.name]
    output = next(one for one in spec.form().outputs if one.name in names)
    return {"bool": bool, "int64": int}.get(output.dtype, float)
