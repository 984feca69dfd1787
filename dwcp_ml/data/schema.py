"""The contract as ``dwcp_training_schema.json`` and as tables of the documentation."""

from __future__ import annotations

from typing import Any, Final

from dwcp_ml.contract.columns import COLUMNS, LABEL_COLUMNS, Column, ColumnType
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.models import MODELS, ModelSpec
from dwcp_ml.data.checks import EARLIEST, LATEST, SEGMENT_BYTES
from dwcp_ml.data.defects import DEFECTS, range_of
from dwcp_ml.data.incidents import DEFAULT_WINDOW_MINUTES, Incident

SCHEMA_VERSION: Final = "2.0.0"
"""2: ``packet_loss`` is a fraction, and columns that no model reads are no longer required."""

_TYPES: Final = {
    ColumnType.TIMESTAMP: "datetime",
    ColumnType.KEY: "string",
    ColumnType.CATEGORY: "categorical",
    ColumnType.FLOAT: "float64",
    ColumnType.INTEGER: "int64",
}


def training_schema() -> dict[str, Any]:
    """Return what ``dwcp_training_schema.json`` holds; JSON types only."""
    return {
        "version": SCHEMA_VERSION,
        "description": "Telemetry of DWCP: one row is one observation of one link at one time",
        "schema_type": "training_data",
        "formats": ["csv", "parquet"],
        "columns": {column.name: _column(column) for column in COLUMNS.values()},
        "categorical_values": {
            column.name: dict(column.codes) for column in COLUMNS.values() if column.codes
        },
        "target_variables": {spec.name: _targets(spec) for spec in MODELS.values()},
        "incidents": _incidents(),
        "data_quality": {
            "missing_value_threshold": 0.05,
            "earliest_timestamp": EARLIEST,
            "latest_timestamp": LATEST,
            "gap_in_cadences": GAP_FACTOR,
            "segment_bytes": SEGMENT_BYTES,
            "defects": {
                code: {"verdict": verdict, "meaning": meaning}
                for code, (verdict, meaning) in DEFECTS.items()
            },
        },
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "type": _TYPES[column.kind],
        "unit": column.unit,
        "description": column.description,
        "minimum": column.minimum,
        "exclusive_minimum": column.exclusive_minimum,
        "maximum": column.maximum,
        "needed_by": needed_by(column),
        "optional_label": column.name in LABEL_COLUMNS,
    }


def needed_by(column: Column) -> list[str]:
    """Return the models that can't be trained without a column."""
    return [spec.name for spec in MODELS.values() if column.name in spec.needed_columns]


def _targets(spec: ModelSpec) -> dict[str, Any]:
    return {
        "features": list(spec.features),
        "window": spec.window,
        "series_key": list(spec.series_key),
        "labels": list(spec.labels),
        "forms": {
            form.name: {
                "outputs": [output.name for output in form.outputs],
                "targets": {t.metric: f"{t.direction} {t.value:g}" for t in form.targets},
                "primary_metric": form.primary_metric,
            }
            for form in spec.forms
        },
    }


def _incidents() -> dict[str, Any]:
    return {
        "format": "JSON list of objects",
        "fields": {
            name: "required" if field.is_required() else "optional"
            for name, field in Incident.model_fields.items()
        },
        "window_minutes_without_interval": DEFAULT_WINDOW_MINUTES,
    }


def markdown_table() -> str:
    """Return the columns as a Markdown table."""
    lines = ["| column | type | unit, range | what it is | needed by |", "|" + " --- |" * 5]
    for column in COLUMNS.values():
        unit = ", ".join(part for part in (column.unit, range_of(column)) if part)
        cells = (f"`{column.name}`", _TYPES[column.kind], unit, column.description, _who(column))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _who(column: Column) -> str:
    if column.name in LABEL_COLUMNS:
        return "optional label"
    names = needed_by(column)
    short = ", ".join(MODELS[name].short_name for name in names)
    return "all" if len(names) == len(MODELS) else short or "context"
