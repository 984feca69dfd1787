"""Peak memory of a data set of daily partitions: its validation, and two ways to train on it.

The telemetry is random within the ranges of the contract: 200 links polled once a minute, one
Parquet file a day in a hive directory; throughput and latency follow an autoregression. Its size as
CSV is that of its first rows, written as CSV. Each measurement is a process of its own, training by
a stream on one core; the peak RSS is what the kernel counted for it, all libraries and mapped files
included, and the anonymous part of it is read from /proc every 20 ms. The count beside a step is
that of the rows validated, of the examples in memory, or of those that the stream holds, of which
each of its two epochs takes 500,000. Prints a Markdown table.

    python -m benchmarks.bench_partitions                        # 1 and 10 GB of CSV
    python -m benchmarks.bench_partitions --gigabytes 0.2 --directory /data/scratch
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from dwcp_ml.contract.columns import COLUMNS, Column, ColumnType
from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.contract.records import TrainingRecord

LINKS, NODES = 200, 40
STEPS = 1440
FIRST_DAY = np.datetime64("2024-01-01")


def write_day(directory: Path, day: int) -> Path:
    """Write the rows of one day, and return the file."""
    date = FIRST_DAY + day
    path = directory / f"date={date}" / "part-0.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(_day(day), path, compression="zstd")
    return path


def _day(day: int) -> pa.Table:
    rng, rows = np.random.default_rng([7, day]), LINKS * STEPS
    nodes = np.arange(LINKS) % NODES
    peers = (nodes + 1 + np.arange(LINKS) // NODES) % NODES
    names = pa.array([f"n{node}" for node in range(NODES)])
    moments = (FIRST_DAY + day).astype("datetime64[ms]") + 60_000 * np.arange(STEPS)
    cells: dict[str, Any] = {
        "timestamp": pa.array(np.repeat(moments, LINKS)),
        "node_id": pa.DictionaryArray.from_arrays(np.tile(nodes, STEPS).astype(np.int32), names),
        "peer_id": pa.DictionaryArray.from_arrays(np.tile(peers, STEPS).astype(np.int32), names),
        "consensus_latency_ms": np.exp(1.5 + 0.3 * _series(rng, NODES))[:, nodes].ravel(),
        "throughput_mbps": np.exp(4.0 + 0.3 * _series(rng, LINKS)).ravel(),
    }
    for column in COLUMNS.values():
        if column.name not in cells and not column.name.startswith(("throughput_gain", "is_high")):
            cells[column.name] = _column(rng, column, rows)
    return pa.table({name: _rounded(values) for name, values in cells.items()})


def _series(rng: np.random.Generator, count: int) -> Any:
    """Return AR(1) series of unit variance, (steps, count)."""
    noise = rng.normal(size=(STEPS, count))
    for step in range(1, STEPS):
        noise[step] = 0.98 * noise[step - 1] + 0.2 * noise[step]
    return noise


def _column(rng: np.random.Generator, column: Column, rows: int) -> Any:
    if column.kind in (ColumnType.KEY, ColumnType.CATEGORY):
        words = column.categories or ("one", "two", "three")
        return pa.DictionaryArray.from_arrays(
            rng.integers(0, len(words), rows).astype(np.int32), pa.array(words)
        )
    if column.kind is ColumnType.INTEGER:
        return rng.integers(1, 1_000_000, rows)
    low, high = column.minimum or 0.0, column.maximum or 200.0
    return rng.uniform(low + 0.001, high, rows)


def _rounded(values: Any) -> Any:
    return np.round(values, 3) if getattr(values, "dtype", None) == np.float64 else values


def csv_bytes_of_a_row(path: Path, directory: Path) -> float:
    """Return the size of a row as CSV, from the first rows of a partition."""
    table, sample = pq.read_table(path).slice(0, 20_000), directory / "sample.csv"
    pacsv.write_csv(table, sample)
    size = sample.stat().st_size / len(table)
    sample.unlink()
    return size


def validate(data: Path, dataset: Path) -> int:
    """Validate a data set, and return the number of rows."""
    from dwcp_ml.training_run.dataset import validate_at

    return validate_at(str(data), specs=tuple(MODELS.values()), output=dataset).rows


def one_epoch(data: Path, dataset: Path) -> int:  # noqa: ARG001 - the validated copy is read
    """Train the bandwidth predictor for one epoch, and return the number of examples it saw."""
    return _train(dataset, epochs=1, settings={}).rows["train"]


def stream(data: Path, dataset: Path) -> int:  # noqa: ARG001 - the validated copy is read
    """Train it on all rows for two bounded epochs, and return the examples of the stream."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    record = _train(dataset, epochs=2, settings={"training": {"examples_per_epoch": 500_000}})
    if record.data_use is None or record.data_use.streamed_examples is None:
        raise SystemExit("The training has read no stream.")
    return record.data_use.streamed_examples


def _train(dataset: Path, epochs: int, settings: dict[str, Any]) -> TrainingRecord:
    from dwcp_ml.training_run.options import ModelOptions
    from dwcp_ml.training_run.progress import ProgressEvent
    from dwcp_ml.training_run.training_step import train_model

    started = time.perf_counter()

    def show(event: ProgressEvent) -> None:
        seconds = time.perf_counter() - started
        print(f"{seconds:.0f} s, {_anonymous_mb():.0f} MB: {event.text}", file=sys.stderr)

    output, options = dataset.with_name("model"), ModelOptions(epochs=epochs, settings=settings)
    record = train_model(dataset, output, BANDWIDTH, options, version="1", seed=42, report=show)
    if not record.success:
        raise SystemExit(record.reason)
    return record


STEPS_MEASURED: dict[str, Callable[[Path, Path], int]] = {
    "validation": validate,
    "one epoch": one_epoch,
    "stream": stream,
}


def _anonymous_mb() -> float:
    """Return the memory of this process that no file holds, MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) / 1024


class _PeakMemory(threading.Thread):
    """Watches the anonymous memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous_mb = 0.0

    def run(self) -> None:
        while True:
            self.anonymous_mb = max(self.anonymous_mb, _anonymous_mb())
            time.sleep(0.02)


def measure(step: str, data: Path, dataset: Path) -> dict[str, float]:
    """Return the figures of one step in a process of its own."""
    words = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    words += ["--child", step, str(data), str(dataset)]
    started = time.perf_counter()
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "wall_seconds": time.perf_counter() - started}


def _child(step: str, data: str, dataset: str) -> None:
    peak = _PeakMemory()
    peak.start()
    count = STEPS_MEASURED[step](Path(data), Path(dataset))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime
    memory = {"peak_mb": usage.ru_maxrss / 1024, "anonymous_mb": peak.anonymous_mb}
    print(json.dumps({"count": count, "cpu_seconds": cpu, **memory}))


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", default="1,10", help="sizes as CSV, GB")
    parser.add_argument("--directory", help="where the data are written, and removed again")
    parser.add_argument("--steps", default=",".join(STEPS_MEASURED), help="what is measured")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(*options.child)
        return
    columns = "as CSV, rows, days, Parquet, step, wall s, CPU s, peak RSS MB, of it anonymous MB"
    print(f"| {' | '.join(columns.split(', '))} |")
    print(f"|{' --- |' * len(columns.split(', '))}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        data, days, parquet = Path(scratch) / "telemetry", 0, 0
        for size in sorted(float(word) for word in options.gigabytes.split(",")):
            row_bytes = 0.0
            while not days or days * LINKS * STEPS * row_bytes < size * 1e9:
                path = write_day(data, days)
                row_bytes = row_bytes or csv_bytes_of_a_row(path, Path(scratch))
                parquet, days = parquet + path.stat().st_size, days + 1
            rows = days * LINKS * STEPS
            for step in options.steps.split(","):
                found = measure(step, data, Path(scratch) / "dataset")
                cells = (
                    f"{rows * row_bytes / 1e9:.1f} GB", f"{rows:,}", str(days),
                    f"{parquet / 1e9:.2f} GB", f"{step}: {found['count']:,.0f}",
                    f"{found['wall_seconds']:.0f}", f"{found['cpu_seconds']:.0f}",
                    f"{found['peak_mb']:.0f}",
                    f"{found['anonymous_mb']:.0f}",
                )  # fmt: skip
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
