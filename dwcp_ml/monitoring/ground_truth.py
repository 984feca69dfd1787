"""What came true: the same labels as those of training and evaluation, for single answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.examples import LatencyData
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY
from dwcp_ml.data.episodes import episodes, latest_episode, one_row_a_node
from dwcp_ml.data.features import series_index, series_reference
from dwcp_ml.data.incidents import (
    DEFAULT_WINDOW_MINUTES,
    Incident,
    incident_of_rows,
    label_source,
)
from dwcp_ml.data.oracle import best_level, compression_gains
from dwcp_ml.data.splits import TRAIN, temporal_cuts, temporal_split_id
from dwcp_ml.data.windows import GAP_FACTOR, cadence, run_lengths
from dwcp_ml.monitoring.lookup import Links, Rows
from dwcp_ml.monitoring.predictions import Answers
from dwcp_ml.monitoring.records import Unmatched

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]

REASONS: Final = tuple(Unmatched)
"""A reason is kept as its position here."""

KNOWN: Final = -1
"""No reason: the truth is known."""


@dataclass(frozen=True)
class TelemetryTable:
    """What answers are held against.

    Parameters
    ----------
    frame
        Clean rows, as :func:`dwcp_ml.data.reading.load` returns them; at least one.
    incidents
        Labelled incidents; None if none were given.
    tolerance_seconds
        How far the observation may lie from the moment of an answer; None is 1.5 cadences for the
        next observation and less than one cadence for the one that the features were taken from.
    incident_window_minutes
        Either side, for incidents without start and end.
    """

    frame: pd.DataFrame
    incidents: Sequence[Incident] | None = None
    tolerance_seconds: float | None = None
    incident_window_minutes: float = DEFAULT_WINDOW_MINUTES

    @property
    def end(self) -> int:
        """The time of the last observation, epoch seconds."""
        return int(self.frame["timestamp"].max())


@dataclass
class GroundTruth:
    """The truth of each answer, (n,); what has a reason has no meaning otherwise.

    ``reason`` is the position in ``REASONS``, or ``KNOWN``.

    ``truth``, ``series``, ``event`` and ``gains`` are those of
    :class:`dwcp_ml.contract.examples.Examples`; ``timestamp`` is that of the last row of the
    features (int64, epoch seconds).
    """

    truth: NDArray[Any]
    timestamp: Indices
    series: Indices
    event: Indices
    reason: Indices
    names: tuple[str, ...]
    cadence_seconds: float
    label_source: str | None = None
    gains: NDArray[np.float64] | None = None
    notes: list[str] = field(default_factory=list)


class _Reasons:
    """The first reason that applies to each answer.

    ``series`` says which of the telemetry each answer is of, -1 for none.
    """

    def __init__(self, answers: Answers, series: Indices) -> None:
        self.found = np.full(len(answers), KNOWN, np.int64)
        self.give(Unmatched.INVALID, ~valid(answers))
        self.give(Unmatched.NO_LINK, np.array([name is None for name in answers.link], bool))
        self.give(Unmatched.UNKNOWN_LINK, series < 0)

    def give(self, reason: Unmatched, where: Flags) -> None:
        self.found[where & (self.found == KNOWN)] = REASONS.index(reason)


class _LinkRows:
    """The rows of the telemetry link by link, and which link each answer is of, -1 for none."""

    def __init__(self, answers: Answers, frame: pd.DataFrame) -> None:
        self.timestamp = frame["timestamp"].to_numpy(np.int64)
        self.links = Links(frame)
        self.step = cadence(self.timestamp, self.links.series)
        self.rows = Rows(self.timestamp, self.links.series, self.links.count)
        self.series = self.links.links(answers.link.tolist())


def valid(answers: Answers) -> Flags:
    """Return which answers are numbers that the model's contract allows."""
    outputs = {output.name: output for output in answers.spec.form().outputs}
    allowed = np.isfinite(answers.prediction)
    level = outputs.get("compression_level")
    if level is not None:
        whole = answers.prediction == np.floor(answers.prediction)
        within = (answers.prediction >= (level.minimum or 0)) & (
            answers.prediction <= (level.maximum or 0)
        )
        allowed &= whole & within
    if "is_anomaly" in outputs or "is_high_latency" in outputs:
        allowed &= np.isfinite(answers.score)
    return allowed


def find_truth(answers: Answers, telemetry: TelemetryTable) -> GroundTruth:
    """Return what came true of the answers of one model version."""
    return _TRUTHS[answers.spec.name](answers, telemetry)


def _bandwidth(answers: Answers, telemetry: TelemetryTable) -> GroundTruth:
    """Return the throughput of the link's next observation, as a window's label is."""
    frame = telemetry.frame
    by_link = _LinkRows(answers, frame)
    reasons = _Reasons(answers, by_link.series)
    place, ahead = by_link.rows.next_row(np.maximum(by_link.series, 0), answers.moment)
    tolerance = telemetry.tolerance_seconds
    tolerance = GAP_FACTOR * by_link.step if tolerance is None else tolerance
    may_come = ~np.isfinite(ahead) & (answers.moment + tolerance > telemetry.end)
    reasons.give(Unmatched.PENDING, may_come)
    reasons.give(Unmatched.NO_OBSERVATION, ahead > tolerance)
    return GroundTruth(
        truth=frame["throughput_mbps"].to_numpy(np.float64)[by_link.rows.order[place]],
        # A clock may say anything; what it says of the joined is not far off.
        timestamp=np.floor(np.clip(answers.moment, 0.0, 1e12)).astype(np.int64),
        series=by_link.series,
        event=np.full(len(answers), -1, np.int64),
        reason=reasons.found,
        names=by_link.links.names,
        cadence_seconds=by_link.step,
    )


def _compression(answers: Answers, telemetry: TelemetryTable) -> GroundTruth:
    """Return the level that an oracle chooses for the row that the features were taken from."""
    by_link = _LinkRows(answers, telemetry.frame)
    reasons = _Reasons(answers, by_link.series)
    place = _row_at(by_link.rows, by_link.series, answers, telemetry, by_link.step, reasons)
    gains, source = compression_gains(telemetry.frame)
    chosen = by_link.rows.order[place]
    return GroundTruth(
        truth=best_level(gains)[chosen],
        timestamp=by_link.timestamp[chosen],
        series=by_link.series,
        event=np.full(len(answers), -1, np.int64),
        reason=reasons.found,
        names=by_link.links.names,
        cadence_seconds=by_link.step,
        label_source=source,
        gains=gains[chosen],
    )


def _reliability(answers: Answers, telemetry: TelemetryTable) -> GroundTruth:
    """Return whether the node is inside an incident at the row the features were taken from."""
    frame, incidents = telemetry.frame, telemetry.incidents
    by_link = _LinkRows(answers, frame)
    timestamp, links, step = by_link.timestamp, by_link.links, by_link.step
    node = links.nodes_of(answers.link.tolist())
    reasons = _Reasons(answers, node)
    if incidents is None:
        reasons.give(Unmatched.NO_LABEL, np.ones(len(answers), bool))
    # What names a node only is held against any link of the node: incidents are the node's.
    of_node = Rows(timestamp, links.node, len(links.nodes))
    named = by_link.series >= 0
    place = _row_at(by_link.rows, by_link.series, answers, telemetry, step, reasons, named)
    chosen = by_link.rows.order[place]
    place = _row_at(of_node, node, answers, telemetry, step, reasons, ~named)
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
        truth=event[chosen] >= 0,
        timestamp=timestamp[chosen],
        series=links.series[chosen],
        event=event[chosen],
        reason=reasons.found,
        names=links.names,
        cadence_seconds=step,
        label_source=source,
        notes=notes,
    )


def _latency(answers: Answers, telemetry: TelemetryTable) -> GroundTruth:
    """Return whether a step of the window lies in an episode of the node."""
    links = Links(telemetry.frame)
    frame, labelled = one_row_a_node(telemetry.frame)
    timestamp = frame["timestamp"].to_numpy(np.int64)
    node, names = series_index(frame, ("node_id",))
    step = cadence(timestamp, node)
    series = links.nodes_of(answers.link.tolist())
    reasons = _Reasons(answers, series)
    rows = Rows(timestamp, node, len(names))
    place = _row_at(rows, series, answers, telemetry, step, reasons)
    if labelled:
        high = frame["is_high_latency"].to_numpy(np.float64) > 0
    else:
        limit = _derived_limit(frame, timestamp, node, len(names))
        high = frame["consensus_latency_ms"].to_numpy(np.float64) > limit[node]
        reasons.give(Unmatched.NO_LABEL, ~np.isfinite(limit)[np.maximum(series, 0)])
    _, lengths = run_lengths(timestamp, node, np.zeros(len(node), np.int64), step)
    reasons.give(Unmatched.WINDOW_GAP, lengths[place] < answers.steps)
    episode = episodes(timestamp, node, high, step)
    event = np.full(len(answers), -1, np.int64)
    known = reasons.found == KNOWN
    for steps in np.unique(answers.steps[known]):
        asked = known & (answers.steps == steps)
        window = rows.order[place[asked][:, np.newaxis] + np.arange(1 - steps, 1)]
        event[asked] = latest_episode(episode, window)
    return GroundTruth(
        truth=event >= 0,
        timestamp=rows.timestamp[place],
        series=series,
        event=event,
        reason=reasons.found,
        names=names,
        cadence_seconds=step,
        label_source="labelled" if labelled else "derived",
    )


def _derived_limit(
    frame: pd.DataFrame, timestamp: Indices, node: Indices, count: int
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
    answers: Answers,
    telemetry: TelemetryTable,
    step: float,
    reasons: _Reasons,
    where: Flags | None = None,
) -> Indices:
    """Return the row that the features were taken from, and give a reason where there is none.

    What is after the end of the telemetry waits even if a row is near: a nearer one may come.
    """
    place, age = rows.row_at(np.maximum(series, 0), answers.moment)
    tolerance = telemetry.tolerance_seconds
    near = age <= tolerance if tolerance is not None else (age == 0) | (age < step)
    asked = np.ones(len(answers), bool) if where is None else where
    reasons.give(Unmatched.PENDING, asked & (answers.moment > telemetry.end))
    reasons.give(Unmatched.NO_OBSERVATION, asked & ~near)
    return place


_TRUTHS: Final[dict[str, Callable[[Answers, TelemetryTable], GroundTruth]]] = {
    BANDWIDTH.name: _bandwidth,
    COMPRESSION.name: _compression,
    RELIABILITY.name: _reliability,
    LATENCY.name: _latency,
}
