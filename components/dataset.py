"""Validation: reads or simulates telemetry, and writes a dataset that satisfies the contract."""

from typing import NamedTuple

from kfp import dsl

from components._component import component


@component
def validate_data(
    dataset: dsl.Output[dsl.Dataset],
    data_path: str,
    incidents_path: str,
    data_start: str,
    data_end: str,
    models: str,
    seed: int,
    packet_loss_unit: str,
    congestion_window_unit: str,
    version: str,
) -> NamedTuple("Validated", [("version", str), ("data_digest", str)]):
    """Simulate or read telemetry, validate it, and name the run.

    Args:
        dataset: The validated telemetry, its report, the quarantined rows, the ceilings.
        data_path: Telemetry, CSV or Parquet, a path or a URI; empty to simulate it. ``#md5=`` and
            a digest after it state which content it must have.
        incidents_path: Labelled incidents, JSON; empty for none; ``#md5=`` as well.
        data_start: Start of the window of the telemetry that is used; empty for no bound.
        data_end: End of that window, not included; empty for no bound.
        models: The models whose columns the file must have, comma-separated.
        seed: Seed of the simulator.
        packet_loss_unit: ``fraction`` or ``percent``.
        congestion_window_unit: ``bytes`` or ``segments``.
        version: Version of the models; empty for one made of the time in UTC.

    Returns:
        version: The version of every model of this run.
        data_digest: SHA-256 of the validated dataset; an input of every later task, so that cached
            results belong to the same data.
    """
    from collections import namedtuple
    from pathlib import Path

    from dwcp_ml.training_run.dataset import digest_of, make_dataset
    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.progress import reporter_of
    from dwcp_ml.training_run.session import session_name

    options = run_options(
        data_path=data_path,
        incidents_path=incidents_path,
        data_start=data_start,
        data_end=data_end,
        models=models,
        seed=seed,
        packet_loss_unit=packet_loss_unit,
        congestion_window_unit=congestion_window_unit,
    )
    report = make_dataset(options, Path(dataset.path), reporter_of())
    dataset.metadata.update(
        {"rows": report.rows, "rows_quarantined": report.rows_quarantined, "md5": report.md5}
    )
    validated = namedtuple("Validated", ["version", "data_digest"])
    return validated(version or session_name(), digest_of(Path(dataset.path)))
