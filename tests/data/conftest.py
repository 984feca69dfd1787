"""Telemetry for the tests of dwcp_ml.data: valid by construction, small, seeded."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.columns import COLUMNS, ColumnType
from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.validation import validate

START = 1_704_067_200  # 2024-01-01
ALL = tuple(MODELS.values())


def make_telemetry(links=3, steps=40, *, cadence=60, seed=0, labels=True) -> pd.DataFrame:
    """Every column of the contract; links are n0->p0, n0->p1, n1->p0 ... two for each node."""
    rng = np.random.default_rng(seed)
    rows = links * steps
    time = np.repeat(START + cadence * np.arange(steps), links)
    link = np.tile(np.arange(links), steps)
    node = link // 2
    cells = {
        "timestamp": pd.to_datetime(time, unit="s"),
        "node_id": np.char.add("n", node.astype(str)),
        "peer_id": np.char.add("p", (link % 2).astype(str)),
    }
    latency = rng.uniform(2, 5, (steps, node.max() + 1))
    for column in COLUMNS.values():
        if column.name in cells:
            continue
        if column.kind is ColumnType.KEY:
            cells[column.name] = rng.choice(["a", "b"], rows)
        elif column.kind is ColumnType.CATEGORY:
            cells[column.name] = rng.choice(column.categories, rows)
        elif column.name == "is_high_latency":
            cells[column.name] = ((time - START) // cadence % 10 >= 8).astype(int)
        elif column.kind is ColumnType.INTEGER:
            cells[column.name] = rng.integers(1, 1000, rows)
        else:
            low, high = column.minimum or 0.0, column.maximum or 50.0
            cells[column.name] = rng.uniform(low + 0.01, high, rows)
    cells["consensus_latency_ms"] = latency[(time - START) // cadence, node]
    frame = pd.DataFrame(cells)
    dropped = [name for name in frame if name.startswith(("throughput_gain", "is_high"))]
    return frame if labels else frame.drop(columns=dropped)


@pytest.fixture(scope="session")
def make():
    return make_telemetry


@pytest.fixture
def telemetry():
    return make_telemetry()


@pytest.fixture
def write(tmp_path):
    """Write a frame as CSV (or Parquet by the suffix) and return its path."""

    def _write(frame: pd.DataFrame, name="telemetry.csv") -> Path:
        path = tmp_path / name
        if path.suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False)
        return path

    return _write


@pytest.fixture
def check(write):
    """Validate a frame (or a path) for all models and return the report."""

    def _check(frame, *, specs=ALL, **options):
        path = frame if isinstance(frame, Path) else write(frame)
        return validate(path, specs=specs, **options)

    return _check


def found(report, code, column=None):
    """Return the one defect of a code (in a column), or None."""
    hits = [d for d in report.defects if d.code == code and column in (None, d.column)]
    assert len(hits) <= 1, hits
    return hits[0] if hits else None


@pytest.fixture
def defect_of():
    return found


@pytest.fixture
def novacron(tmp_path):
    """A file and incidents with the format and the defects of NovaCron's real ones.

    One row a minute from random links of 100 nodes: no series, 7 rows with negative throughput, 2
    with negative transfer rate, congestion windows in segments; incidents without intervals.
    """
    rng = np.random.default_rng(5)
    rows = 10_000
    frame = make_telemetry(1, rows, labels=False, seed=5).drop(columns=["datacenter_id"])
    frame["node_id"] = rng.integers(1, 101, rows)
    frame["peer_id"] = rng.integers(1, 101, rows)
    frame["timestamp"] = pd.to_datetime(START + 60 * np.arange(rows), unit="s")
    frame["packet_loss"] = rng.uniform(0, 0.05, rows)
    frame["congestion_window"] = rng.integers(10, 1000, rows)
    frame["throughput_mbps"] = rng.uniform(50, 150, rows)
    frame.loc[[17, 99, 500, 1200, 3000, 7000, 9999], "throughput_mbps"] = -2.5
    frame.loc[[18, 4000], "amst_transfer_rate"] = -1.0
    path = tmp_path / "dwcp_metrics.csv"
    frame.to_csv(path, index=False)
    incidents = [
        {
            "timestamp": pd.Timestamp(START + 6000 * k, unit="s").isoformat(),
            "node_id": int(rng.integers(1, 101)),
            "incident_type": "crash",
            "severity": "high",
            "resolved": True,
        }
        for k in range(100)
    ]
    labels = tmp_path / "labeled_incidents.json"
    labels.write_text(json.dumps(incidents))
    return path, labels
