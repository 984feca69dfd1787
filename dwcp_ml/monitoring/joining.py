"""Joins a prediction log with telemetry that came later."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.examples import GAP_FACTOR, Examples, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.incidents import DEFAULT_WINDOW_MINUTES, read_incidents
from dwcp_ml.data.output import INCIDENTS_NAME
from dwcp_ml.data.reading import load
from dwcp_ml.monitoring.ground_truth import (
    KNOWN,
    REASONS,
    GroundTruth,
    TelemetryTable,
    find_ground_truth,
)
from dwcp_ml.monitoring.losses import COLUMNS, regrets
from dwcp_ml.monitoring.predictions import Predictions, collect
from dwcp_ml.monitoring.records import Unmatched
from dwcp_ml.prediction_log.log import read_log
from dwcp_ml.prediction_log.loss import losses
from dwcp_ml.storage.addresses import without_query
from dwcp_ml.storage.fetch import fetched_directory
from dwcp_ml.training_run.dataset import validate_at
from dwcp_ml.training_run.model_data import load_columns
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event


@dataclass(frozen=True)
class Sources:
    """What is joined, and how.

    Parameters
    ----------
    log, data_path, incidents_path
        Addresses: a path or a URI.
    models
        The models to include; empty for all that the log holds.
    since, until
        Epoch seconds; includes predictions for features of ``since`` <= moment < ``until``.
    tolerance_seconds
        See :class:`dwcp_ml.monitoring.ground_truth.TelemetryTable`.
    incident_window_minutes
        Either side, for incidents without start and end.
    gap_factor
        See :class:`dwcp_ml.monitoring.ground_truth.TelemetryTable`.
    """

    log: str
    data_path: str
    incidents_path: str = ""
    models: Sequence[ModelSpec] = ()
    since: float = float("-inf")
    until: float = float("inf")
    tolerance_seconds: float | None = None
    incident_window_minutes: float = DEFAULT_WINDOW_MINUTES
    gap_factor: float = GAP_FACTOR
    packet_loss_unit: Literal["fraction", "percent"] = "fraction"
    congestion_window_unit: Literal["bytes", "segments"] = "bytes"


@dataclass(frozen=True)
class Version:
    """The predictions of one model version, and their ground truth where it is known.

    Parameters
    ----------
    predictions, ground_truth
        Of every prediction, joined or not.
    rows : int64 of shape (n,)
        Which of them are joined, in the order of time and series.
    """

    predictions: Predictions
    ground_truth: GroundTruth
    rows: NDArray[np.int64]

    @property
    def examples(self) -> Examples:
        """The joined predictions as a test split; the features themselves are not needed again."""
        ground_truth, rows, spec = self.ground_truth, self.rows, self.predictions.spec
        steps = int(self.predictions.steps.max(initial=1))
        width = (len(spec.features),) if len(spec.features) > 1 else ()
        shape = (len(rows), steps, *width) if spec.window > 1 else (len(rows), *width)
        return Examples(
            inputs=np.broadcast_to(np.float32(np.nan), shape),
            truth=ground_truth.values[rows],
            timestamp=ground_truth.timestamp[rows],
            series=ground_truth.series[rows],
            event=ground_truth.event[rows],
            gains=None if ground_truth.gains is None else ground_truth.gains[rows],
        )

    @property
    def data(self) -> ModelData:
        """The same as the evaluation reads it; there is no other split."""
        examples, spec = self.examples, self.predictions.spec
        return ModelData(
            spec=spec,
            form=spec.form().name,
            train=examples,
            validation=examples,
            test=examples,
            series_names=self.ground_truth.names,
            cadence_seconds=self.ground_truth.cadence_seconds or 1.0,
            label_source=self.ground_truth.label_source,
            cadences=self.ground_truth.cadences if self.ground_truth.cadence_seconds else None,
            gap_factor=self.ground_truth.gap_factor,
        )

    @property
    def unmatched(self) -> dict[str, int]:
        """Reason -> predictions without ground truth; only reasons that occur."""
        counts = {
            str(reason): int(np.sum(self.ground_truth.reason == code))
            for code, reason in enumerate(REASONS)
        }
        counts[str(Unmatched.OTHER_FORM)] += self.predictions.other_form
        return {reason: count for reason, count in counts.items() if count}

    def frame(self) -> pd.DataFrame:
        """Return the joined predictions with their losses, the columns of :func:`joined`."""
        predictions, rows, examples = self.predictions, self.rows, self.examples
        prediction = predictions.prediction[rows]
        ground_truth = examples.truth.astype(np.float64)
        columns = {
            "model": predictions.spec.name,
            "version": predictions.version,
            "request_id": predictions.request_id[rows],
            "row": predictions.row[rows],
            "link": predictions.link[rows],
            "observed_at": predictions.moment[rows],
            "prediction": prediction,
            "score": predictions.score[rows],
            "ground_truth": ground_truth,
            "loss": losses(predictions.spec.name, prediction, ground_truth),
            "regret": regrets(examples, prediction),
        }
        return pd.DataFrame(columns, columns=list(COLUMNS))


def join(
    sources: Sources, report: Reporter = ignore_event
) -> tuple[list[Version], DataReport | None]:
    """Return the joined predictions of each model version, and the telemetry's validation report.

    Without a matching prediction in the log the telemetry is not read, and there is no report.

    Raises
    ------
    DataRefused
        If the log can't be read, or the telemetry or the incidents break the contract.
    UsageError
        If the tolerance is negative or the incidents' window is not positive.
    """
    if sources.tolerance_seconds is not None and not sources.tolerance_seconds >= 0:
        raise UsageError(
            f"the tolerance must be 0 s or more, not {sources.tolerance_seconds:g}.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="tolerance",
        )
    if not sources.incident_window_minutes > 0:
        raise UsageError(
            "the window of an incident must be more than 0 min.",
            code=ErrorCode.OUT_OF_RANGE,
            subject="incident_window",
        )
    with ProgressTask("read the log", report) as task:
        with fetched_directory(sources.log) as log:
            predictions = collect(read_log(log), sources.models, sources.since, sources.until)
        task.finish(f"{sum(map(len, predictions)):,} predictions")
    if not predictions:
        return [], None
    telemetry, data = _telemetry(sources, [each.spec for each in predictions], report)
    return [_matched(each, telemetry) for each in predictions], data


def joined(sources: Sources, report: Reporter = ignore_event) -> pd.DataFrame:
    """Return every joined prediction of every version, one row each, in the order of time.

    Returns
    -------
    DataFrame
        Columns ``COLUMNS``: ``model``, ``version``, ``request_id``, ``row`` (of the instance in
        its request), ``link``, ``observed_at`` (epoch seconds; the server's own clock where the
        request named none), ``prediction`` and ``ground_truth`` (Mbit/s; level; 0 or 1), ``score``
        (of the detectors, else NaN), ``loss`` (see :func:`losses`), ``regret`` (compression, else
        NaN).
    """
    versions, _ = join(sources, report)
    frames = [version.frame() for version in versions if len(version.rows)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def _telemetry(
    sources: Sources, specs: Sequence[ModelSpec], report: Reporter
) -> tuple[TelemetryTable, DataReport]:
    distinct = tuple({spec.name: spec for spec in specs}.values())
    with tempfile.TemporaryDirectory() as scratch, ProgressTask("validate", report) as task:
        clean = Path(scratch) / "clean"
        data = validate_at(
            sources.data_path,
            sources.incidents_path,
            specs=distinct,
            output=clean,
            packet_loss_unit=sources.packet_loss_unit,
            congestion_window_unit=sources.congestion_window_unit,
            now=time.time(),
            progress=task.advance,
        )
        written = load_columns(clean)
        columns = [c for s in distinct for c in (*s.needed_columns, *s.labels) if c in written]
        frame = load(clean / "telemetry.parquet", columns)
        incidents = None
        if sources.incidents_path:
            incidents = read_incidents(clean / INCIDENTS_NAME)
        task.finish(f"{data.rows:,} rows, {data.rows_quarantined:,} quarantined")
    if frame.empty:
        raise DataRefused(
            f"{without_query(sources.data_path)} has no row that satisfies the data contract.",
            code=ErrorCode.NO_DATA,
        )
    return (
        TelemetryTable(
            frame,
            incidents,
            sources.tolerance_seconds,
            sources.incident_window_minutes,
            sources.gap_factor,
        ),
        data,
    )


def _matched(predictions: Predictions, telemetry: TelemetryTable) -> Version:
    ground_truth = find_ground_truth(predictions, telemetry)
    rows = np.flatnonzero(ground_truth.reason == KNOWN)
    order = np.lexsort((ground_truth.series[rows], ground_truth.timestamp[rows]))
    return Version(predictions, ground_truth, rows[order])
