"""Leaks that are planted in simulated telemetry, of every kind that the evaluation searches for.

A case changes honest telemetry so that a column, the order of the rows, the split, the incidents or
the quarantine tells a model what it has to predict. The tests and ``bench_leaks`` use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.contract.evaluation import Leak
from dwcp_ml.contract.examples import (
    BandwidthData,
    CompressionData,
    DataSettings,
    LatencyData,
    ReliabilityData,
)
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY, ModelSpec
from dwcp_ml.data.incidents import Incident, incident_of_rows
from dwcp_ml.data.oracle import best_level, compression_gains
from dwcp_ml.data.reading import ROW_NUMBER
from dwcp_ml.evaluation.leaks import find_leaks
from dwcp_ml.simulate import SimulatorSettings, generate
from dwcp_ml.simulate.generation import incident_records
from dwcp_ml.training_run.leak_data import leak_data

SETTINGS: dict[str, DataSettings] = {
    BANDWIDTH.name: BandwidthData(),
    COMPRESSION.name: CompressionData(),
    RELIABILITY.name: ReliabilityData(),
    LATENCY.name: LatencyData(),
}
SPOILT = {
    BANDWIDTH.name: "jitter_ms",
    COMPRESSION.name: "rtt_ms",
    RELIABILITY.name: "failure_rate",
    LATENCY.name: "consensus_latency_ms",
}
"""The column that a case of each model overwrites."""

LINK = ["node_id", "peer_id"]


@dataclass(frozen=True)
class Telemetry:
    """Rows in the order of the file, the incidents, and the rows that were quarantined."""

    frame: pd.DataFrame
    incidents: list[Incident]
    quarantined: pd.DataFrame | None = None


def honest(seed: int, **settings: float) -> Telemetry:
    """Return simulated telemetry as it is."""
    simulated = generate(SimulatorSettings(seed=seed, **settings))
    frame = simulated.frame.copy()
    frame["timestamp"] = frame["timestamp"].to_numpy("datetime64[s]").astype(np.float64)
    records = incident_records(simulated)
    return Telemetry(frame, [Incident.model_validate(record) for record in records])


def found(telemetry: Telemetry, spec: ModelSpec) -> tuple[Leak, ...]:
    """Search the data of one model."""
    frame = telemetry.frame.reset_index(drop=True)
    frame[ROW_NUMBER] = np.arange(len(frame))
    frame = frame.sort_values(["timestamp", *LINK], kind="stable", ignore_index=True)
    settings = SETTINGS[spec.name]
    return find_leaks(leak_data(spec, frame, settings, telemetry.incidents, telemetry.quarantined))


def outcome(telemetry: Telemetry, spec: ModelSpec, ahead: int = 0) -> pd.Series:
    """Return what the model has to predict at each row, or ``ahead`` rows of its link later."""
    frame = telemetry.frame
    if spec == BANDWIDTH:
        values, ahead = frame["throughput_mbps"], ahead + 1
    elif spec == COMPRESSION:
        values = pd.Series(best_level(compression_gains(frame)[0]), frame.index)
    elif spec == RELIABILITY:
        event = incident_of_rows(
            frame["timestamp"].to_numpy(), frame["node_id"].to_numpy(), telemetry.incidents
        )
        values = pd.Series(event >= 0, frame.index)
    else:
        values = frame["is_high_latency"]
    ordered = frame.sort_values([*LINK, "timestamp"]).index
    grouped = values[ordered].astype(float).groupby([frame.loc[ordered, name] for name in LINK])
    return grouped.shift(-ahead).ffill().reindex(frame.index)


def copied(telemetry: Telemetry, spec: ModelSpec, noise: float, ahead: int = 0) -> Telemetry:
    """Overwrite a column with what is to be predicted, times noise."""
    frame = telemetry.frame.copy()
    values = outcome(telemetry, spec, ahead)
    if spec != BANDWIDTH:
        values = 1.0 + 9.0 * values
    factor = pd.Series(np.random.default_rng(0).standard_normal(len(frame)), frame.index)
    if spec == LATENCY:  # the rows of a node's peers agree
        factor = factor.groupby([frame["timestamp"], frame["node_id"]]).transform("first")
    frame[SPOILT[spec.name]] = values * np.exp(noise * factor)
    return replace(telemetry, frame=frame)


def category(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Overwrite a category with the range in which lies what is to be predicted."""
    column = "network_tier" if spec == BANDWIDTH else "link_type"
    words = np.array(COLUMNS[column].categories)
    values = outcome(telemetry, spec)
    share = values.groupby([telemetry.frame[name] for name in LINK]).rank(pct=True)
    if spec == COMPRESSION:
        share = values / 10.0
    code = np.minimum((share * len(words)).astype(int), len(words) - 1)
    return replace(telemetry, frame=telemetry.frame.assign(**{column: words[code]}))


def sorted_by_outcome(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Write the file in the order of what is to be predicted."""
    order = outcome(telemetry, spec).sort_values(kind="stable").index
    return replace(telemetry, frame=telemetry.frame.loc[order])


def row_number(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Write a column that numbers the rows of a sorted file."""
    frame = sorted_by_outcome(telemetry, spec).frame
    return replace(
        telemetry, frame=frame.assign(**{SPOILT[spec.name]: 1.0 + np.arange(len(frame))})
    )


def next_row(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Copy the next row's throughput in a file in the order of links: the link's next value."""
    frame = telemetry.frame.sort_values([*LINK, "timestamp"])
    values = frame["throughput_mbps"].shift(-1).ffill()
    return replace(telemetry, frame=frame.assign(**{SPOILT[spec.name]: values}))


def across_split(telemetry: Telemetry, _: ModelSpec, noise: float = 0.0) -> Telemetry:
    """Copy the last fifth of the rows to a time before the first row."""
    frame = telemetry.frame
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    copies = frame[frame["timestamp"] > last - (last - first) / 5].copy()
    copies["timestamp"] -= np.ceil((last - first) / 3600) * 3600 + 3600
    if noise:
        measured = [name for name in COLUMNS if name in frame and frame[name].dtype == float]
        measured = [name for name in measured if COLUMNS[name].unit != "UTC"]
        size = (len(copies), len(measured))
        copies[measured] *= np.exp(noise * np.random.default_rng(0).standard_normal(size))
    return replace(telemetry, frame=pd.concat([copies, frame], ignore_index=True))


def incidents_from_column(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Write incidents wherever a column of the node exceeds a threshold."""
    column = SPOILT[spec.name]
    frame = telemetry.frame.drop_duplicates(["timestamp", "node_id"])
    high = frame[column] > frame[column].quantile(0.95)
    incidents = []
    for node, rows in frame[high].groupby("node_id"):
        moments = rows["timestamp"].sort_values().to_numpy()
        runs = np.split(moments, np.flatnonzero(np.diff(moments) > 60) + 1)
        incidents += [
            Incident(timestamp=r[0], node_id=node, incident_type="x", start=r[0], end=r[-1])
            for r in runs
        ]
    return replace(telemetry, incidents=incidents)


def steps_with_incidents(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Raise a column exactly while an incident lasts, by another amount in each."""
    frame = telemetry.frame
    event = incident_of_rows(
        frame["timestamp"].to_numpy(), frame["node_id"].to_numpy(), telemetry.incidents
    )
    height = np.random.default_rng(0).uniform(10, 100, len(telemetry.incidents))
    values = np.where(event >= 0, height[event], 1.0)
    noise = np.exp(0.3 * np.random.default_rng(1).standard_normal(len(frame)))
    return replace(telemetry, frame=frame.assign(**{SPOILT[spec.name]: values * noise}))


def quarantined(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Make most rows invalid that are positive, or hard to predict."""
    values = outcome(telemetry, spec)
    if spec == BANDWIDTH:
        now = telemetry.frame["throughput_mbps"]
        before = now.groupby([telemetry.frame[name] for name in LINK]).shift(1)
        hard = (np.log(now / before)).abs()
        chosen = hard > hard.quantile(0.97)
    elif spec == COMPRESSION:
        gains = np.sort(compression_gains(telemetry.frame)[0], axis=1)
        margin = gains[:, -1] - gains[:, -2]
        chosen = pd.Series(margin < np.quantile(margin, 0.25), telemetry.frame.index)
        chosen &= np.random.default_rng(0).random(len(chosen)) < 0.2
    else:
        chosen = (values > 0) & (np.random.default_rng(0).random(len(values)) < 0.7)
    lost = telemetry.frame[chosen]
    return replace(telemetry, frame=telemetry.frame[~chosen], quarantined=lost)


def digits(telemetry: Telemetry, spec: ModelSpec) -> Telemetry:
    """Write a column with fewer decimals where the answer is positive."""
    values = outcome(telemetry, spec)
    usual = telemetry.frame["throughput_mbps"] if spec == BANDWIDTH else values.median()
    column = SPOILT[spec.name]
    plain = telemetry.frame[column]
    rounded = plain.round(4).where(values <= usual, plain.round(2))
    return replace(telemetry, frame=telemetry.frame.assign(**{column: rounded}))


Plant = Callable[[Telemetry, ModelSpec], Telemetry]


def cases() -> Iterator[tuple[str, ModelSpec, Plant, str]]:
    """Yield the name of each case, its model, how it is planted, and where it must be found."""
    everywhere = (BANDWIDTH, COMPRESSION, RELIABILITY, LATENCY)
    for spec in everywhere:
        column = SPOILT[spec.name]
        for noise in (0.0, 0.01, 0.08, 0.3):
            name = f"copy with {noise:.0%} noise" if noise else "exact copy"
            yield name, spec, lambda t, s, noise=noise: copied(t, s, noise), column
        yield "copy of a later step", spec, lambda t, s: copied(t, s, 0.0, 1), column
        yield "copy of a later step, 8% noise", spec, lambda t, s: copied(t, s, 0.08, 1), column
        yield "file sorted by the outcome", spec, sorted_by_outcome, "row_order"
        yield "rows of the sorted file numbered", spec, row_number, column
        yield "test rows copied to the training split", spec, across_split, "split"
        yield "the same, 0.1% noise", spec, lambda t, s: across_split(t, s, 0.001), "split"
        yield "rows quarantined by the outcome", spec, quarantined, "quarantine"
        yield "digits tell the outcome", spec, digits, column
    yield "category of the outcome", BANDWIDTH, category, "network_tier"
    yield "category of the outcome", COMPRESSION, category, "link_type"
    yield "next row of the file", BANDWIDTH, next_row, "jitter_ms"
    yield "incidents made from a column", RELIABILITY, incidents_from_column, "failure_rate"
    yield "column steps with the incidents", RELIABILITY, steps_with_incidents, "failure_rate"
