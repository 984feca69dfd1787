"""The simulator's files: telemetry, incidents, ceilings and oracles, each written atomically."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from dwcp_ml.files import make_directory, write_bytes, write_text
from dwcp_ml.simulate.generation import generate, incident_records
from dwcp_ml.simulate.settings import SimulatorSettings

Progress = Callable[[float, str], object]
"""Called with the finished share, 0 to 1, and the current step."""


@dataclass(frozen=True)
class SimulationResult:
    """The written files, and the number of telemetry rows."""

    telemetry: Path
    incidents: Path
    ceilings: Path
    oracles: Path
    rows: int


def simulate(
    settings: SimulatorSettings, directory: Path, progress: Progress | None = None
) -> SimulationResult:
    """Write `telemetry.csv`, `incidents.json`, `ceilings.json` and `oracles.parquet`.

    The same settings write the same bytes. Raises `DwcpError` if a file can't be written.
    """
    report = progress or _ignore
    make_directory(directory)
    report(0.0, "simulating the network")
    telemetry = generate(settings)
    result = SimulationResult(
        directory / "telemetry.csv",
        directory / "incidents.json",
        directory / "ceilings.json",
        directory / "oracles.parquet",
        len(telemetry.frame),
    )
    report(0.2, f"writing {result.rows:,} rows")
    write_text(result.telemetry, _csv(telemetry.frame))
    write_text(result.incidents, json.dumps(incident_records(telemetry), indent=1) + "\n")
    # Evaluating the oracles needs scikit-learn; simulating does not.
    from dwcp_ml.simulate.ceilings import ceilings

    report(0.4, "computing ceilings and naive baselines")
    described, predictions = ceilings(telemetry)
    write_text(result.ceilings, json.dumps(described, indent=1) + "\n")
    write_bytes(result.oracles, predictions.to_parquet(index=False))
    report(1.0, "done")
    return result


def _ignore(_share: float, _text: str) -> None:
    """Report nothing."""


def _csv(frame: pd.DataFrame) -> str:
    # pyarrow writes the shortest text that reads back as the same number, several times faster
    # than pandas does
    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = io.BytesIO()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="none")
    pyarrow.csv.write_csv(table, sink, options)
    return ",".join(frame.columns) + "\n" + sink.getvalue().decode()
