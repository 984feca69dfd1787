"""Ground truth of single predictions: the same labels as in training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.examples import GAP_FACTOR, LatencyData
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY
from dwcp_ml.data.features import series_index, series_reference
from dwcp_ml.data.incidents import (
    DEFAULT_WINDOW_MINUTES,
    Incident,
    incident_of_rows,
    label_source,
)
from dwcp_ml.data.oracle import best_level, compression_gains
from dwcp_ml.data.splits import TRAIN, temporal_cuts, temporal_split_id
from dwcp_ml.data.windows import (
    cadence,
    cadences,
    episodes,
    latest_episode,
    one_row_a_node,
    run_lengths,
)
from dwcp_ml.monitoring.lookup import Links, Rows
from dwcp_ml.monitoring.predictions import Predictions
from dwcp_ml.monitoring.records import Unmatched

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

REASONS: Final = tuple(Unmatched)
"""A reason is stored as its position here."""

KNOWN: Final = -1
"""No reason: the ground truth is known."""


@dataclass(frozen=True)
class TelemetryTable:
    """The telemetry that predictions are compared with.

    Parameters
    ----------
    frame
        Clean rows, as :func:`dwcp_ml.data.reading.load` returns them; at least one.
    incidents
        Labelled incidents; None if none were given.
    tolerance_seconds
        How far the observation may be from the time of a prediction; None is ``gap_factor``
        usual steps of its link for the next observation, and less than one for the one that the
        features were taken from.
    incident_window_minutes
        Either side, for incidents without start and end.
    gap_factor
        A longer step than this many usual ones of its link or node is a gap; the models' own
        setting ``data.gap_factor``.
    """

    frame: pd.DataFrame
    incidents: Sequence[Incident] | None = None
    tolerance_seconds: float | None = None
    incident_window_minutes: float = DEFAULT_WINDOW_MINUTES
    gap_factor: float = GAP_FACTOR

    @property
    def end(self) -> float:
        """The time of the last observation, epoch seconds."""
        return float(self.frame["timestamp"].max())


@dataclass
class GroundTruth:
    """The ground truth of each prediction, (n,); meaningless where there is a reason.

    ``reason`` is the position in ``REASONS``, or ``KNOWN``.

    ``values`` is ``truth`` of :class:`dwcp_ml.contract.examples.Examples`; ``series``, ``event``,
    and ``gains`` are its fields of the same name; ``timestamp`` is that of the last row of the
    features (int64, epoch seconds). ``cadences`` is the usual step of each series, seconds; a step
    longer than ``gap_factor`` of them is a gap.
    """

    values: NDArray[Any]
    timestamp: NDArray[np.float64]
    series: Indices
    event: Indices
    reason: Indices
    names: tuple[str, ...]
    cadence_seconds: float
    cadences: NDArray[np.float64]
    gap_factor: float
    label_source: str | None = None
    gains: NDArray[np.float64] | None = None
    notes: list[str] = field(default_factory=list)


class _Reasons:
    """The first reason that applies to each prediction.

    ``series`` is the series of the telemetry that each prediction belongs to, -1 for none.
    """

    def __init__(self, predictions: Predictions, series: Indices) -> None:
        self.code = np.full(len(predictions), KNOWN, np.int64)
        self.set_where(Unmatched.INVALID, ~valid(predictions))
        self.set_where(
            Unmatched.NO_LINK, np.array([name is None for name in predictions.link], bool)
        )
        self.set_where(Unmatched.UNKNOWN_LINK, series < 0)

    def set_where(self, reason: Unmatched, where: Flags) -> None:
        self.code[where & (self.code == KNOWN)] = REASONS.index(reason)


class _LinkRows:
    """The rows of the telemetry by link, and the link of each prediction, -1 for none."""

    def __init__(self, predictions: Predictions, frame: pd.DataFrame) -> None:
        self.timestamp = frame["timestamp"].to_numpy(np.float64)
        self.links = Links(frame)
        self.step = cadence(self.timestamp, self.links.series)
        self.steps = cadences(self.timestamp, self.links.series)
        self.rows = Rows(self.timestamp, self.links.series, self.links.count)
        self.series = self.links.links(predictions.link.tolist())


def valid(predictions: Predictions) -> Flags:
    """Return which predictions are numbers that the model's contract allows."""
    outputs = {output.name: output for output in predictions.spec.form().outputs}
    allowed = np.isfinite(predictions.prediction)
    level = outputs.get("compression_level")
    if level is not None:
        whole = predictions.prediction == np.floor(predictions.prediction)
        within = (predictions.prediction >= (level.minimum or 0)) & (
            predictions.prediction <= (level.maximum or 0)
        )
        allowed &= whole & within
    if "is_anomaly" in outputs or "is_high_latency" in outputs:
        allowed &= np.isfinite(predictions.score)
    return allowed


def find_ground_truth(predictions: Predictions, telemetry: TelemetryTable) -> GroundTruth:
    """Return the ground truth of the predictions of one model version.

    Moments are compared to the millisecond, as the telemetry's times are kept.
    """
    moment = np.rint(1000.0 * predictions.moment) / 1000.0
    return _FINDERS[predictions.spec.name](replace(predictions, moment=moment), telemetry)


def _bandwidth(predictions: Predictions, telemetry: TelemetryTable) -> GroundTruth:
    """Return the throughput of the link's next observation, as a window's label is."""
    frame = telemetry.frame
    by_link = _LinkRows(predictions, frame)
    reasons = _Reasons(predictions, by_link.series)
    place, ahead = by_link.rows.next_row(np.maximum(by_link.series, 0), predictions.moment)
    max_steps = telemetry.gap_factor * by_link.steps
    tolerance: float | Floats = max_steps[np.maximum(by_link.series, 0)]
    if telemetry.tolerance_seconds is not None:
        tolerance = telemetry.tolerance_seconds
    may_come = ~np.isfinite(ahead) & (predictions.moment + tolerance > telemetry.end)
    reasons.set_where(Unmatched.PENDING, may_come)
    reasons.set_where(Unmatched.NO_OBSERVATION, ahead > tolerance)
    return GroundTruth(
        values=frame["throughput_mbps"].to_numpy(np.float64)[by_link.rows.order[place]],
        # A client's clock may be wrong; for joined predictions it is within the tolerance.
        timestamp=np.clip(predictions.moment, 0.0, 1e12),
        series=by_link.series,
        event=np.full(len(predictions), -1, np.int64),
        reason=reasons.code,
        names=by_link.links.names,
        cadence_seconds=by_link.step,
        cadences=by_link.steps,
        gap_factor=telemetry.gap_factor,
    )


def _compression(predictions: Predictions, telemetry: TelemetryTable) -> GroundTruth:
    """Return the level that an oracle chooses for the row that the features were taken from."""
    by_link = _LinkRows(predictions, telemetry.frame)
    reasons = _Reasons(predictions, by_link.series)
    place = _row_at(by_link.rows, by_link.series, predictions, telemetry, by_link.steps, reasons)
    gains, source = compression_gains(telemetry.frame)
    chosen = by_link.rows.order[place]
    return GroundTruth(
        values=best_level(gains)[chosen],
        timestamp=by_link.timestamp[chosen],
        series=by_link.series,
        event=np.full(len(predictions), -1, np.int64),
        reason=reasons.code,
        names=by_link.links.names,
        cadence_seconds=by_link.step,
        cadences=by_link.steps,
        gap_factor=telemetry.gap_factor,
        label_source=source,
        gains=gains[chosen],
    )


def _reliability(predictions: Predictions, telemetry: TelemetryTable) -> GroundTruth:
    """Return whether the node is inside an incident at the row the features were taken from."""
    frame, incidents = telemetry.frame, telemetry.incidents
    by_link = _LinkRows(predictions, frame)
    timestamp, links, steps = by_link.timestamp, by_link.links, by_link.steps
    node = links.nodes_of(predictions.link.tolist())
    reasons = _Reasons(predictions, node)
    if incidents is None:
        reasons.set_where(Unmatched.NO_LABEL, np.ones(len(predictions), bool))
    # A prediction that names only a node is compared with any link of it: incidents are per node.
    of_node = Rows(timestamp, links.node, len(links.nodes))
    named = by_link.series >= 0
    place = _row_at(by_link.rows, by_link.series, predictions, telemetry, steps, reasons, named)
    chosen = by_link.rows.order[place]
    of_nodes = np.full(len(links.nodes), np.inf)
    np.minimum.at(of_nodes, links.node, steps[links.series])
    place = _row_at(of_node, node, predictions, telemetry, of_nodes, reasons, ~named)
    chosen = np.where(named, chosen, of_node.order[place])
    nodes = frame["node_id"].to_numpy()
    event = incident_of_rows(timestamp, nodes, incidents or (), telemetry.incident_window_minutes)
    source = None if incidents is None else label_source(incidents)
    notes = []
    if source == "window" and incidents:
        minutes = telemetry.incident_window_minutes
        notes.append(
            f"Incidents without start and end count {minutes:g} min either side: those that come "
            f"after the telemetry may still change its last {minutes:g} min."
        )
    return GroundTruth(
        values=event[chosen] >= 0,
        timestamp=timestamp[chosen],
        series=links.series[chosen],
        event=event[chosen],
        reason=reasons.code,
        names=links.names,
        cadence_seconds=by_link.step,
        cadences=steps,
        gap_factor=telemetry.gap_factor,
        label_source=source,
        notes=notes,
    )


def _latency(predictions: Predictions, telemetry: TelemetryTable) -> GroundTruth:
    """Return whether a step of the window lies in an episode of the node."""
    links = Links(telemetry.frame)
    frame, labelled = one_row_a_node(telemetry.frame)
    timestamp = frame["timestamp"].to_numpy(np.float64)
    node, names = series_index(frame, ("node_id",))
    steps_of_node = cadences(timestamp, node)
    max_steps = telemetry.gap_factor * steps_of_node
    series = links.nodes_of(predictions.link.tolist())
    reasons = _Reasons(predictions, series)
    rows = Rows(timestamp, node, len(names))
    place = _row_at(rows, series, predictions, telemetry, steps_of_node, reasons)
    if labelled:
        high = frame["is_high_latency"].to_numpy(np.float64) > 0
    else:
        limit = _derived_limit(frame, timestamp, node, len(names))
        high = frame["consensus_latency_ms"].to_numpy(np.float64) > limit[node]
        reasons.set_where(Unmatched.NO_LABEL, ~np.isfinite(limit)[np.maximum(series, 0)])
    _, lengths = run_lengths(timestamp, node, np.zeros(len(node), np.int64), max_steps)
    reasons.set_where(Unmatched.WINDOW_GAP, lengths[place] < predictions.steps)
    episode = episodes(timestamp, node, high, max_steps)
    event = np.full(len(predictions), -1, np.int64)
    known = reasons.code == KNOWN
    for steps in np.unique(predictions.steps[known]):
        selected = known & (predictions.steps == steps)
        window = rows.order[place[selected][:, np.newaxis] + np.arange(1 - steps, 1)]
        event[selected] = latest_episode(episode, window)
    return GroundTruth(
        values=event >= 0,
        timestamp=rows.timestamp[place],
        series=series,
        event=event,
        reason=reasons.code,
        names=names,
        cadence_seconds=cadence(timestamp, node),
        cadences=steps_of_node,
        gap_factor=telemetry.gap_factor,
        label_source="labelled" if labelled else "derived",
    )


def _derived_limit(
    frame: pd.DataFrame, timestamp: NDArray[np.float64], node: Indices, count: int
) -> NDArray[np.float64]:
    """Return above which latency each node's rows count as high, by the rule of training."""
    rule = LatencyData()
    cuts = temporal_cuts(timestamp, rule.validation_fraction, rule.test_fraction)
    trained = temporal_split_id(timestamp, cuts) == TRAIN
    latency = frame["consensus_latency_ms"].to_numpy(np.float64)
    return series_reference(latency, node, trained, count, rule.derived_quantile)


def _row_at(
    rows: Rows,
    series: Indices,
    predictions: Predictions,
    telemetry: TelemetryTable,
    steps: Floats,
    reasons: _Reasons,
    where: Flags | None = None,
) -> Indices:
    """Return the row that the features were taken from, and set a reason where there is none.

    After the end of the telemetry a prediction is pending even if a row is near: a nearer one may
    come.
    """
    known = np.maximum(series, 0)
    place, age = rows.row_at(known, predictions.moment)
    tolerance = telemetry.tolerance_seconds
    near = age <= tolerance if tolerance is not None else (age == 0) | (age < steps[known])
    selected = np.ones(len(predictions), bool) if where is None else where
    reasons.set_where(Unmatched.PENDING, selected & (predictions.moment > telemetry.end))
    reasons.set_where(Unmatched.NO_OBSERVATION, selected & ~near)
    return place


_FINDERS: Final[dict[str, Callable[[Predictions, TelemetryTable], GroundTruth]]] = {
    BANDWIDTH.name: _bandwidth,
    COMPRESSION.name: _compression,
    RELIABILITY.name: _reliability,
    LATENCY.name: _latency,
}
