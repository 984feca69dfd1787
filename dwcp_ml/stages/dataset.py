"""The dataset stage: simulate telemetry or take a file, and validate it against the contract."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.errors import DataRefused, UsageError, did_you_mean
from dwcp_ml.contract.records import DataReport
from dwcp_ml.files import whole_directory, write_text
from dwcp_ml.stages.options import RunOptions
from dwcp_ml.stages.progress import Reporter, Task, silent

if TYPE_CHECKING:
    from dwcp_ml.simulate import SimulatorSettings

REPORT_NAME = "validation.json"
CEILINGS_NAME = "ceilings.json"


def make_dataset(options: RunOptions, output: Path, report: Reporter = silent) -> DataReport:
    """Write a validated dataset to the directory ``output``.

    Without ``options.data_path`` the telemetry is simulated first, and the ceilings that the
    simulator computed are kept beside it.

    Raises
    ------
    DataRefused
        If the telemetry or the incidents break the contract; ``output`` is then not written.
    """
    if options.data_path is not None:
        return _validate(options, Path(options.data_path), options.incidents_path, output, report)
    with whole_directory(output) as staging:
        simulated = staging / "simulated"
        with Task("simulate", report) as task:
            from dwcp_ml.simulate import simulate

            settings = simulator_settings(options.simulator_seed, options.simulator)
            result = simulate(settings, simulated, progress=task.advance)
            task.finish(f"{result.rows:,} rows, seed {settings.seed}")
        telemetry, incidents = simulated / "telemetry.csv", simulated / "incidents.json"
        found = _validate(options, telemetry, str(incidents), staging, report)
        # The files still lie in a staging directory: the report names where they are going to be.
        home = output / simulated.name
        data_report = found.model_copy(
            update={
                "source": "simulated",
                "path": str(home / telemetry.name),
                "incidents_path": str(home / incidents.name),
            }
        )
        write_text(staging / REPORT_NAME, data_report.to_json())
        ceilings = simulated / CEILINGS_NAME
        shutil.copyfile(ceilings, staging / CEILINGS_NAME)
        return data_report


def _validate(
    options: RunOptions,
    data_path: Path,
    incidents_path: str | None,
    output: Path,
    report: Reporter,
) -> DataReport:
    from dwcp_ml.data.validation import validate

    with Task("validate", report) as task:
        if any(spec.short_name == "reliability" for spec in options.specs()) and not incidents_path:
            task.advance(0.0, "no incidents file: reliability can't be judged")
        found = validate(
            data_path,
            specs=options.specs(),
            incidents_path=None if incidents_path is None else Path(incidents_path),
            output=output,
            packet_loss_unit=options.packet_loss_unit,
            congestion_window_unit=options.congestion_window_unit,
            now=time.time(),
            progress=task.advance,
        )
        task.finish(f"{found.rows:,} rows, {found.rows_quarantined:,} set aside")
    if found.refused:
        raise DataRefused(next(d.message for d in found.defects if d.verdict == "error"))
    return found


def simulator_settings(seed: int, values: Mapping[str, Any]) -> SimulatorSettings:
    """Return the simulator's settings with ``values`` in place of the defaults.

    Raises
    ------
    UsageError
        If there is no such setting, or a value is out of its range.
    """
    from pydantic import ValidationError

    from dwcp_ml.simulate import SimulatorSettings

    for key in values:
        if key not in SimulatorSettings.model_fields:
            allowed = did_you_mean(key, SimulatorSettings.model_fields)
            raise UsageError(f"the simulator has no setting '{key}': {allowed}.")
    try:
        return SimulatorSettings(**{"seed": seed, **values})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise UsageError(f"the simulator's {where} is wrong: {first['msg']}.") from error
