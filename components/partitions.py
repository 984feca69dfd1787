"""Validation of a partitioned data set in several tasks: list, validate groups, merge."""

from typing import Dict, List, NamedTuple  # noqa: UP035 - kfp reads these types

from kfp import dsl

from components._component import component


@component
def list_partitions(
    data_path: str,
    data_start: str,
    data_end: str,
    groups: int,
) -> List[Dict]:  # noqa: UP006
    """List the partitions of the telemetry, and divide them into groups.

    Args:
        data_path: A directory, a prefix that ends in ``/``, or a glob.
        data_start: Start of the window of the telemetry that is used; empty for no bound.
        data_end: End of that window, not included; empty for no bound.
        groups: The number of groups, at most.

    Returns:
        ``dwcp_ml.training_run.partition_tasks.Group`` as a mapping, for each group.
    """
    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.partition_tasks import list_groups

    options = run_options(data_path=data_path, data_start=data_start, data_end=data_end)
    return [group.model_dump(mode="json") for group in list_groups(options, groups)]


@component
def validate_partitions(
    partitions: dsl.Output[dsl.Dataset],
    data_path: str,
    data_start: str,
    data_end: str,
    models: str,
    packet_loss_unit: str,
    congestion_window_unit: str,
    group: dict,
):
    """Validate the partitions of one group.

    Args:
        partitions: For each partition its clean and its quarantined rows, and its scan.
        data_path: The telemetry.
        data_start: Start of the window of the telemetry that is used; empty for no bound.
        data_end: End of that window, not included; empty for no bound.
        models: The models whose columns it must have, comma-separated.
        packet_loss_unit: ``fraction`` or ``percent``.
        congestion_window_unit: ``bytes`` or ``segments``.
        group: The group, as ``list_partitions`` returns it.
    """
    from pathlib import Path

    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.partition_tasks import Group, validate_group

    options = run_options(
        data_path=data_path,
        data_start=data_start,
        data_end=data_end,
        models=models,
        packet_loss_unit=packet_loss_unit,
        congestion_window_unit=congestion_window_unit,
    )
    rows = validate_group(options, Group.model_validate(group), Path(partitions.path))
    partitions.metadata["rows"] = rows


@component
def validate_data(
    partitions: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    dataset: dsl.Output[dsl.Dataset],
    data_path: str,
    incidents_path: str,
    data_start: str,
    data_end: str,
    models: str,
    packet_loss_unit: str,
    congestion_window_unit: str,
    groups: list,
    version: str,
) -> NamedTuple("Validated", [("version", str), ("data_digest", str)]):
    """Merge the validated partitions to one dataset, and name the run.

    Args:
        partitions: What the tasks of the groups wrote.
        dataset: The validated telemetry, its report, the quarantined rows.
        data_path: The telemetry; ``#md5=`` and a digest after it state which content it must have.
        incidents_path: Labelled incidents, JSON; empty for none; ``#md5=`` as well.
        data_start: Start of the window of the telemetry that is used; empty for no bound.
        data_end: End of that window, not included; empty for no bound.
        models: The models whose columns the telemetry must have, comma-separated.
        packet_loss_unit: ``fraction`` or ``percent``.
        congestion_window_unit: ``bytes`` or ``segments``.
        groups: All groups, as ``list_partitions`` returns them.
        version: Version of the models; empty for one made of the time in UTC.

    Returns:
        version: The version of every model of this run.
        data_digest: SHA-256 of the validated dataset; an input of every later task, so that cached
            results belong to the same data.
    """
    from collections import namedtuple
    from pathlib import Path

    from dwcp_ml.training_run.dataset import digest_of
    from dwcp_ml.training_run.options import run_options
    from dwcp_ml.training_run.partition_tasks import Group, merge_groups
    from dwcp_ml.training_run.session import session_name

    options = run_options(
        data_path=data_path,
        incidents_path=incidents_path,
        data_start=data_start,
        data_end=data_end,
        models=models,
        packet_loss_unit=packet_loss_unit,
        congestion_window_unit=congestion_window_unit,
    )
    paths = [Path(artifact.path) for artifact in partitions]
    group = Group.model_validate(groups[0])
    report = merge_groups(options, group, paths, Path(dataset.path))
    dataset.metadata.update(
        {"rows": report.rows, "rows_quarantined": report.rows_quarantined, "md5": report.md5}
    )
    validated = namedtuple("Validated", ["version", "data_digest"])
    return validated(version or session_name(), digest_of(Path(dataset.path)))
