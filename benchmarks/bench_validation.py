"""Validation of telemetry against a straightforward pandas + pandera equivalent.

Each run is a process of its own; wall time includes its imports, and peak RSS is what the kernel
counted. Both sides make the same checks of the same contract: types, ranges, categories, missing
values, duplicates, order, gaps, constant columns, agreement of peers, and the md5 of the file.
Prints a Markdown table.

    python benchmarks/bench_validation.py                      # 52 MB and 520 MB
    python benchmarks/bench_validation.py --sizes-mb 5 --repeat 1
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dwcp_ml.contract.columns import COLUMNS, Kind
from dwcp_ml.contract.models import MODELS

LINKS = 200
NODES = 40
CADENCE_SECONDS = 60
BYTES_PER_ROW = 322
BLOCK_STEPS = 200


def write_telemetry(path: Path, megabytes: float) -> None:
    """Write a clean CSV file of the contract's columns, labels apart, of about this size."""
    rng = np.random.default_rng(7)
    links = [(f"n{k % NODES}", f"n{(k + 1 + k // NODES) % NODES}") for k in range(LINKS)]
    steps = int(megabytes * 1e6 / BYTES_PER_ROW / LINKS)
    writer: Any = None
    with path.open("wb") as file:
        for begin in range(0, steps, BLOCK_STEPS):
            block = np.arange(begin, min(steps, begin + BLOCK_STEPS))
            table = _block(rng, block, links)
            writer = writer or pacsv.CSVWriter(file, table.schema)
            writer.write(table)
        writer.close()


def _block(rng: np.random.Generator, block: Any, links: list[tuple[str, str]]) -> pa.Table:
    rows = len(block) * LINKS
    seconds = np.repeat(1_704_067_200 + block * CADENCE_SECONDS, LINKS)
    latency = rng.lognormal(1.5, 0.3, (len(block), NODES))
    cells: dict[str, Any] = {
        "timestamp": pa.array(seconds).cast(pa.timestamp("s")),
        "node_id": pa.array([node for node, _ in links] * len(block)),
        "peer_id": pa.array([peer for _, peer in links] * len(block)),
        "consensus_latency_ms": latency[:, np.arange(LINKS) % NODES].ravel(),
    }
    for column in COLUMNS.values():
        if column.name in cells or column.name.startswith(("throughput_gain", "is_high")):
            continue
        if column.kind is Kind.KEY:
            cells[column.name] = pa.array(rng.choice(["one", "two", "three"], rows))
        elif column.kind is Kind.CATEGORY:
            cells[column.name] = pa.array(rng.choice(column.categories, rows))
        elif column.kind is Kind.INTEGER:
            cells[column.name] = rng.integers(1, 1_000_000, rows)
        else:
            low, high = column.minimum or 0.0, column.maximum or 200.0
            cells[column.name] = rng.uniform(low + 0.001, high, rows)
    return pa.table(cells)


def ours(path: Path, output: Path | None) -> int:
    """Validate with the project; returns the rows."""
    from dwcp_ml.data.validation import validate

    return validate(path, specs=tuple(MODELS.values()), output=output).rows


def pandera_equivalent(path: Path, output: Path | None) -> int:
    """Validate with pandas and pandera the way one would write it in an afternoon."""
    import hashlib

    import pandas as pd
    import pandera.pandas as pandera

    def checks(column: Any) -> list[Any]:
        found = []
        if column.codes:
            found.append(pandera.Check.isin(column.categories))
        if column.minimum is not None:
            strict = pandera.Check.gt if column.exclusive_minimum else pandera.Check.ge
            found.append(strict(column.minimum))
        if column.maximum is not None:
            found.append(pandera.Check.le(column.maximum))
        if column.kind is Kind.FLOAT:
            found.append(pandera.Check(np.isfinite))
        return found

    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    frame = pd.read_csv(path, dtype={"node_id": str, "peer_id": str})
    frame["timestamp"] = pd.to_datetime(frame["timestamp"])
    types = {Kind.TIMESTAMP: "datetime64[ns]", Kind.FLOAT: float, Kind.INTEGER: int}
    schema = pandera.DataFrameSchema(
        {
            name: pandera.Column(types.get(COLUMNS[name].kind, str), checks(COLUMNS[name]))
            for name in frame.columns
        },
        unique=["timestamp", "node_id", "peer_id"],
    )
    schema.validate(frame, lazy=True)
    link = frame.groupby(["node_id", "peer_id"])["timestamp"]
    step = link.diff().dt.total_seconds().dropna()
    late, gaps = int((step < 0).sum()), int((step > 1.5 * step.median()).sum())
    peers = frame.groupby(["timestamp", "node_id"])["consensus_latency_ms"].nunique()
    constant = [name for name in frame.columns if frame[name].nunique() == 1]
    if output is not None:
        output.mkdir()
        frame.sort_values(["timestamp", "node_id", "peer_id"]).to_parquet(
            output / "telemetry.parquet", compression="zstd"
        )
    if late or gaps or constant or (peers > 1).any() or not md5:
        raise SystemExit(f"the clean file has defects: {late=} {gaps=} {constant=}")
    return len(frame)


def _child(which: str, path: Path, output: Path | None) -> None:
    import resource

    begin = time.perf_counter()
    rows = (ours if which == "ours" else pandera_equivalent)(path, output)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "call_seconds": seconds, "peak_mb": peak}))


def measure(which: str, path: Path, write: bool, repeat: int) -> dict[str, float]:
    """Return the fastest of some runs, each in a process of its own."""
    best: dict[str, float] = {}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as scratch:
            output = [str(Path(scratch) / "dataset")] if write else []
            command = [sys.executable, __file__, "--child", which, str(path), *output]
            begin = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            wall = time.perf_counter() - begin
        found = {**json.loads(done.stdout), "wall_seconds": wall}
        if not best or found["wall_seconds"] < best["wall_seconds"]:
            best = found
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes-mb", default="52,520", help="sizes of the files, MB")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the fastest counts")
    parser.add_argument("--yardstick-up-to-mb", type=float, default=52, help="pandera beyond: no")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        which, path, *output = options.child
        _child(which, Path(path), Path(output[0]) if output else None)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(
        "| file | writes the clean copy | by | wall, s | call alone, s | peak RSS, MB | speed-up |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as directory:
        for size in (float(word) for word in options.sizes_mb.split(",")):
            path = Path(directory) / "telemetry.csv"
            write_telemetry(path, size)
            for write in (False, True):
                _compare(path, write, options, size <= options.yardstick_up_to_mb)


def _compare(path: Path, write: bool, options: argparse.Namespace, yardstick: bool) -> None:
    label = f"{path.stat().st_size / 1e6:.0f} MB"
    mine = measure("ours", path, write, options.repeat)
    theirs = measure("pandera", path, write, options.repeat) if yardstick else None
    for name, found in (("pandas + pandera", theirs), ("dwcp_ml", mine)):
        if found is None:
            continue
        speed = ""
        if found is mine and theirs is not None:
            wall, call = (theirs[key] / mine[key] for key in ("wall_seconds", "call_seconds"))
            speed = f"{wall:.1f}x (call: {call:.1f}x)"
        print(
            f"| {label} | {'yes' if write else 'no'} | {name} | {found['wall_seconds']:.2f} | "
            f"{found['call_seconds']:.2f} | {found['peak_mb']:.0f} | {speed} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
