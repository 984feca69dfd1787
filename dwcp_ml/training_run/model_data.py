"""Reads the examples of one model from a dataset directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.examples import DataSettings, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport
from dwcp_ml.training_run.dataset import CEILINGS_NAME, REPORT_NAME

if TYPE_CHECKING:
    import pandas as pd

    from dwcp_ml.data.incidents import Incident


def load_model_data(
    dataset: Path, spec: ModelSpec, settings: DataSettings, form: str, seed: int
) -> ModelData:
    """Return the split examples of one model.

    Raises
    ------
    TrainingFailed
        If the dataset has no example for this model; the message says why.
    """
    from dwcp_ml.data.examples import prepare

    frame, incidents = load_frame(dataset, spec)
    report_path = dataset / REPORT_NAME
    quarantined = DataReport.read(report_path).rows_quarantined if report_path.exists() else 0
    return prepare(
        spec,
        frame,
        settings,
        incidents=incidents,
        form=form,
        seed=seed,
        quarantined=quarantined,
    )


def load_frame(
    dataset: Path, spec: ModelSpec, *, row_number: bool = False
) -> tuple[pd.DataFrame, list[Incident] | None]:
    """Return the columns of one model, sorted by time, and the incidents if there is a file."""
    from dwcp_ml.data.incidents import read_incidents
    from dwcp_ml.data.reading import load

    present = load_columns(dataset)
    columns = [name for name in (*spec.needed_columns, *spec.labels) if name in present]
    frame = load(dataset / "telemetry.parquet", columns, row_number=row_number)
    incidents_path = dataset / "incidents.json"
    return frame, read_incidents(incidents_path) if incidents_path.exists() else None


def load_columns(dataset: Path) -> frozenset[str]:
    """Return the names of the columns of the dataset's telemetry."""
    from dwcp_ml.data.partitions import open_telemetry

    return frozenset(open_telemetry(dataset / "telemetry.parquet").header)


def load_ceilings(dataset: Path, spec: ModelSpec) -> dict[str, Any] | None:
    """Return the simulator's ceilings of one model; ``None`` for data from a file."""
    path = dataset / CEILINGS_NAME
    if not path.exists():
        return None
    models: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return models.get(spec.name)
