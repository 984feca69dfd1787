"""Build the training examples of one model from telemetry.

Everything that is fitted here (a link's reference throughput, a node's latency quantile) is fitted
on rows of the training split; cuts between splits depend on timestamps only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.arrays import Array, Floats, Ints
from dwcp_ml.contract.data_use import DataUse
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed, UsageError
from dwcp_ml.contract.examples import (
    GAP_FACTOR,
    BandwidthData,
    CompressionData,
    DataSettings,
    Examples,
    LatencyData,
    ModelData,
    ReliabilityData,
)
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY, ModelSpec
from dwcp_ml.data.features import (
    REFERENCE_QUANTILE,
    bandwidth_class,
    feature_matrix,
    series_index,
    series_reference,
)
from dwcp_ml.data.incidents import Incident, incident_of_rows, label_source
from dwcp_ml.data.oracle import best_level, compression_gains, compression_type
from dwcp_ml.data.splits import (
    TEST,
    TRAIN,
    Split,
    stratified_split,
    temporal_cuts,
    temporal_split_id,
)
from dwcp_ml.data.use import rows_in_use, windows_in_use, with_unread
from dwcp_ml.data.windows import (
    cadence,
    cadences,
    episodes,
    latest_episode,
    longest_run,
    node_together,
    one_row_a_node,
    window_rows,
)

SETTINGS: Final[dict[str, type[DataSettings]]] = {
    BANDWIDTH.name: BandwidthData,
    COMPRESSION.name: CompressionData,
    RELIABILITY.name: ReliabilityData,
    LATENCY.name: LatencyData,
}
"""The class of each model's data settings."""


def prepare(
    spec: ModelSpec,
    frame: pd.DataFrame,
    settings: DataSettings,
    *,
    incidents: Sequence[Incident] | None = None,
    form: str | None = None,
    seed: int = 42,
    quarantined: int = 0,
    not_drawn: int = 0,
) -> ModelData:
    """Return the examples of one model, split.

    Parameters
    ----------
    frame
        Clean rows, as :func:`dwcp_ml.data.reading.load` returns them; label columns are used where
        present.
    settings
        The model's own settings: ``BandwidthData`` for the bandwidth predictor, and so on.
    incidents
        Labelled incidents; the reliability detector needs them.
    form
        The form of the prediction; ``None`` is the default one.
    seed
        Seed of the stratified split; temporal splits are not random.
    quarantined, not_drawn
        Rows of the file that are not in ``frame``, for the account of what became of all.

    Raises
    ------
    TrainingFailed
        If the data give no examples in a split; the message says why.
    UsageError
        If the settings are another model's, or the model has no such form.
    """
    form_name = spec.form(form).name
    expected = SETTINGS[spec.name]
    if not isinstance(settings, expected):
        raise UsageError(
            f"{spec.name} takes data settings of {expected.__name__}, "
            f"not {type(settings).__name__}.",
            code=ErrorCode.WRONG_TYPE,
            subject=type(settings).__name__,
        )
    if len(frame) == 0:
        raise TrainingFailed(
            f"{spec.name} has no training data: the telemetry has no rows.", code=ErrorCode.NO_DATA
        )
    frame = frame.reset_index(drop=True)
    match settings:
        case BandwidthData():
            data = _bandwidth(spec, frame, settings, form_name)
        case CompressionData():
            data = _compression(spec, frame, settings, form_name, seed)
        case ReliabilityData():
            data = _reliability(spec, frame, settings, incidents, form_name)
        case LatencyData():
            data = _latency(spec, frame, settings, form_name)
        case _:
            raise TypeError(f"There are no examples for {type(settings).__name__}.")
    _check_splits(data, settings)
    return dataclasses.replace(data, use=data.use and with_unread(data.use, quarantined, not_drawn))


def _check_splits(data: ModelData, settings: DataSettings) -> None:
    needed = ["train", "test"] + (["validation"] if settings.validation_fraction else [])
    for name in needed:
        if data.rows[name] == 0:
            counts = ", ".join(f"{split} {rows}" for split, rows in data.rows.items())
            raise TrainingFailed(
                f"{data.spec.name} has no example in its {name} split ({counts}): "
                "provide telemetry of a longer time or of more links.",
                code=ErrorCode.TOO_FEW,
                subject=name,
            )


def _temporal(
    frame: pd.DataFrame, settings: DataSettings
) -> tuple[NDArray[np.int8], dict[str, Any]]:
    """Return the split of every row, and when validation and test start."""
    timestamp = frame["timestamp"].to_numpy(np.float64)
    cuts = temporal_cuts(timestamp, settings.validation_fraction, settings.test_fraction)
    facts = {"validation_starts": cuts[0], "test_starts": cuts[1]}
    return temporal_split_id(timestamp, cuts), facts


@dataclass(frozen=True)
class _Series:
    """The time and the series of each row, (n,); the usual steps over all and of each, seconds."""

    timestamp: Floats
    index: Ints
    names: tuple[str, ...]
    step: float
    cadences: Floats
    gap_factor: float

    @classmethod
    def of(cls, frame: pd.DataFrame, key: Sequence[str], gap_factor: float = GAP_FACTOR) -> _Series:
        timestamp = frame["timestamp"].to_numpy(np.float64)
        index, names = series_index(frame, key)
        step, steps = cadence(timestamp, index), cadences(timestamp, index)
        return cls(timestamp, index, names, step, steps, gap_factor)

    @property
    def max_steps(self) -> Floats:
        """The longest step of each series that is no gap, seconds, (k,)."""
        return self.gap_factor * self.cadences


def _windows(
    spec: ModelSpec,
    of: _Series,
    split_id: NDArray[np.int8],
    length: int,
    gap_factor: float,
) -> Ints:
    """Return the windows of ``length`` rows; none is ``TrainingFailed``."""
    rows = window_rows(of.timestamp, of.index, split_id, length, of.max_steps)
    if len(rows) == 0:
        what = "link" if len(spec.series_key) == 2 else "node"
        longest = longest_run(of.timestamp, of.index, split_id, of.max_steps)
        raise TrainingFailed(
            f"No {what} has {length} consecutive rows inside one split, as {spec.name} needs: "
            f"the longest run is {longest} (a run ends at a gap of more than {gap_factor:g} times "
            f"the usual step, {of.step:g} s over all; data.gap_factor changes it).",
            code=ErrorCode.TOO_FEW,
            subject=f"{length} rows of a {what}",
        )
    return rows


def _bandwidth(
    spec: ModelSpec, frame: pd.DataFrame, settings: BandwidthData, form: str
) -> ModelData:
    """Return windows of a link; the label is the throughput of the row after the window."""
    of = _Series.of(frame, spec.series_key, settings.gap_factor)
    timestamp, series = of.timestamp, of.index
    split_id, facts = _temporal(frame, settings)
    windows = rows = _windows(spec, of, split_id, settings.window + 1, settings.gap_factor)
    known = np.ones(len(rows), np.bool_)
    throughput = frame["throughput_mbps"].to_numpy(np.float64)
    truth: Array = throughput[rows[:, -1]]
    reference: Floats | None = None
    if form != spec.forms[0].name:
        reference = series_reference(
            throughput, series, split_id == TRAIN, len(of.names), REFERENCE_QUANTILE
        )
        known = np.isfinite(reference)[series[rows[:, -1]]]
        facts["windows_of_links_unseen_in_training"] = int((~known).sum())
        rows = rows[known]
        truth = bandwidth_class(
            throughput[rows[:, -1]],
            reference[series[rows[:, -1]]],
            settings.good_share,
            settings.degraded_share,
        )
    features = feature_matrix(frame, spec.features)
    inputs = rows[:, :-1]
    everything = Examples(
        features[inputs],
        truth,
        timestamp[inputs[:, -1]],
        series[inputs[:, -1]],
        np.full(len(rows), -1, np.int64),
        span=timestamp[rows[:, [0, -1]]],
    )
    use = windows_in_use(windows, known, (timestamp, series, split_id, of.max_steps))
    split = Split.of(split_id[rows[:, -1]])
    data = _assembled(spec, form, everything, split, of, None, facts, use)
    return dataclasses.replace(data, references=reference)


def _compression(
    spec: ModelSpec, frame: pd.DataFrame, settings: CompressionData, form: str, seed: int
) -> ModelData:
    """Return rows; the label is the best compression level."""
    of = _Series.of(frame, spec.series_key)
    gains, source = compression_gains(frame)
    truth = best_level(gains)
    if form != spec.forms[0].name:
        hit_rate = frame["hde_delta_hit_rate"].to_numpy(np.float64)
        truth = compression_type(truth, hit_rate, settings.hde_hit_rate_cutoff)
    facts: dict[str, Any] = {}
    if settings.split == "temporal":
        split_id, facts = _temporal(frame, settings)
        split = Split.of(split_id)
    else:
        split = stratified_split(truth, settings.validation_fraction, settings.test_fraction, seed)
    everything = Examples(
        feature_matrix(frame, spec.features),
        truth,
        of.timestamp,
        of.index,
        np.full(len(frame), -1, np.int64),
        gains,
    )
    return _assembled(spec, form, everything, split, of, source, facts, rows_in_use(len(frame)))


def _reliability(
    spec: ModelSpec,
    frame: pd.DataFrame,
    settings: ReliabilityData,
    incidents: Sequence[Incident] | None,
    form: str,
) -> ModelData:
    """Return rows; those inside an incident of their node are positive."""
    if not incidents:
        given = "no incidents were given" if incidents is None else "the list of incidents is empty"
        raise TrainingFailed(
            f"{spec.name} can't be evaluated: {given}; pass labelled ones with --incidents-path.",
            code=ErrorCode.MISSING,
            subject="incidents",
        )
    of = _Series.of(frame, spec.series_key)
    split_id, facts = _temporal(frame, settings)
    event = incident_of_rows(
        of.timestamp, frame["node_id"].to_numpy(), incidents, settings.incident_window_minutes
    )
    if not (event[split_id == TEST] >= 0).any():
        raise TrainingFailed(
            f"{spec.name} can't be evaluated: no row of the test split lies in one of "
            f"{len(incidents)} incidents; check their times and node names.",
            code=ErrorCode.NO_DATA,
            subject="incidents",
        )
    everything = Examples(
        feature_matrix(frame, spec.features), event >= 0, of.timestamp, of.index, event
    )
    facts["incidents_with_rows"] = len(np.unique(event[event >= 0]))
    source, use = label_source(incidents), rows_in_use(len(frame))
    return _assembled(spec, form, everything, Split.of(split_id), of, source, facts, use)


def _latency(spec: ModelSpec, frame: pd.DataFrame, settings: LatencyData, form: str) -> ModelData:
    """Return windows of a node; one with a step in an episode is positive.

    Labels are the column ``is_high_latency``. Without it, or where it has gaps, they are
    derived: a step is high above the ``derived_quantile`` of the node's rows of the training
    split; a node without such rows is left out, because it has no limit.
    """
    spans = node_together(frame)
    frame, labelled = one_row_a_node(frame, spans)
    of = _Series.of(frame, spec.series_key, settings.gap_factor)
    timestamp, series = of.timestamp, of.index
    split_id, facts = _temporal(frame, settings)
    windows = rows = _windows(spec, of, split_id, settings.window, settings.gap_factor)
    known = np.ones(len(rows), np.bool_)
    latency = frame["consensus_latency_ms"].to_numpy(np.float64)
    limit: Floats | None = None
    if labelled:
        high = frame["is_high_latency"].to_numpy(np.float64) > 0
    else:
        quantile = settings.derived_quantile
        limit = series_reference(latency, series, split_id == TRAIN, len(of.names), quantile)
        known = np.isfinite(limit)[series[rows[:, -1]]]
        rows = rows[known]
        high = latency > limit[series]
        facts["derived_quantile"] = quantile
    event = latest_episode(episodes(timestamp, series, high, of.max_steps), rows)
    last = rows[:, -1]
    everything = Examples(
        feature_matrix(frame, spec.features)[rows][:, :, 0],
        event >= 0,
        timestamp[last],
        series[last],
        event,
        span=timestamp[rows[:, [0, -1]]],
    )
    runs = (timestamp, series, split_id, of.max_steps)
    use = windows_in_use(windows, known, runs, frame["observed_rows"].to_numpy(np.int64))
    source = "labelled" if labelled else "derived"
    data = _assembled(spec, form, everything, Split.of(split_id[last]), of, source, facts, use)
    together = np.array([spans[name] for name in of.names])
    return dataclasses.replace(data, references=limit, together=together)


def _assembled(
    spec: ModelSpec,
    form: str,
    everything: Examples,
    split: Split,
    of: _Series,
    source: str | None,
    facts: dict[str, Any],
    use: DataUse,
) -> ModelData:
    train, validation, test = (
        everything.take(rows) for rows in (split.train, split.validation, split.test)
    )
    return ModelData(
        spec,
        form,
        train,
        validation,
        test,
        of.names,
        of.step,
        source,
        facts,
        of.cadences,
        of.gap_factor,
        use,
    )
