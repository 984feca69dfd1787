"""Reads the examples of one model from a dataset directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.examples import DataSettings, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.output import TELEMETRY_NAME
from dwcp_ml.training_run.dataset import CEILINGS_NAME, ORACLES_NAME, REPORT_NAME

if TYPE_CHECKING:
    import pandas as pd

    from dwcp_ml.data.incidents import Incident
    from dwcp_ml.data.training_stream import TrainingStream
    from dwcp_ml.evaluation.ceiling import Oracle


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

    report = _report(dataset)
    frame, incidents, not_drawn = load_frame(dataset, spec, settings, seed)
    return prepare(
        spec,
        frame,
        settings,
        incidents=incidents,
        form=form,
        seed=seed,
        quarantined=report.rows_quarantined if report else 0,
        not_drawn=not_drawn,
    )


def load_stream(
    dataset: Path,
    data: ModelData,
    settings: DataSettings,
    directory: Path,
    progress: Callable[[float], None],
) -> TrainingStream:
    """Return the training examples of all rows, read from a temporary file in ``directory``.

    ``data`` are those of ``load_model_data``, which may be of a sample. For errors see
    ``training_stream.training_stream``.
    """
    from dwcp_ml.data.training_stream import training_stream

    return training_stream(dataset / TELEMETRY_NAME, data, settings, directory, progress)


def load_frame(
    dataset: Path, spec: ModelSpec, settings: DataSettings, seed: int, *, row_number: bool = False
) -> tuple[pd.DataFrame, list[Incident] | None, int]:
    """Return the columns of one model, sorted by time; the incidents if there is a file.

    Of more rows than ``settings.max_rows`` a sample is read; the last value is how many rows are
    not in it.
    """
    from dwcp_ml.data.incidents import read_incidents
    from dwcp_ml.data.reading import Sampling, load_sample

    present, report = load_columns(dataset), _report(dataset)
    columns = [name for name in (*spec.needed_columns, *spec.labels) if name in present]
    step = (report.cadence_seconds if report else None) or 0.0
    sampling = Sampling(settings.max_rows, step, seed)
    telemetry = dataset / TELEMETRY_NAME
    frame, not_drawn = load_sample(telemetry, columns, sampling, row_number=row_number)
    incidents_path = dataset / "incidents.json"
    incidents = read_incidents(incidents_path) if incidents_path.exists() else None
    return frame, incidents, not_drawn


def _report(dataset: Path) -> DataReport | None:
    path = dataset / REPORT_NAME
    return DataReport.read(path) if path.exists() else None


def load_columns(dataset: Path) -> frozenset[str]:
    """Return the names of the columns of the dataset's telemetry."""
    from dwcp_ml.data.partitions import open_telemetry

    return frozenset(open_telemetry(dataset / TELEMETRY_NAME).header)


def load_ceilings(dataset: Path, spec: ModelSpec) -> dict[str, Any] | None:
    """Return the simulator's ceilings of one model; ``None`` for data from a file."""
    path = dataset / CEILINGS_NAME
    if not path.exists():
        return None
    models: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return models.get(spec.name)


def load_oracle(dataset: Path, form: str) -> Oracle | None:
    """Return the predictions of the simulator's oracle of one form; ``None`` without them."""
    from dwcp_ml.evaluation.ceiling import Oracle

    path = dataset / ORACLES_NAME
    return Oracle.read(path, form) if path.exists() else None
