"""Validation of telemetry against a straightforward pandas + pandera equivalent.

Each run is a process of its own. Wall time is that of the whole process, its imports included;
the call alone is what is left when everything is imported; CPU time and peak RSS are what the
kernel counted for the process. The yardstick and the project take turns, and the fastest run of
each counts, so that a busy machine hurts both alike.

Both sides make the same checks of the same contract: types, ranges, categories, missing values,
duplicates, order, gaps, constant columns, agreement of peers, and the md5 of the file. One file is
clean; in the other one row in a thousand has a defect, which both find, quarantine and count.
Prints a Markdown table.

    python benchmarks/bench_validation.py                      # 52 MB and 520 MB
    python benchmarks/bench_validation.py --sizes-mb 5 --repeat 1
"""

from __future__ import annotations

import argparse
import importlib
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

from dwcp_ml.contract.columns import COLUMNS, ColumnType
from dwcp_ml.contract.models import MODELS

LINKS = 200
NODES = 40
CADENCE_SECONDS = 60
BYTES_PER_ROW = 322
BLOCK_STEPS = 200


def write_telemetry(path: Path, megabytes: float, *, defects: bool = False) -> None:
    """Write a CSV file of the contract's columns, labels apart, of about this size.

    With ``defects`` one row in a thousand holds a negative throughput, no round-trip time, or an
    unknown word.
    """
    rng = np.random.default_rng(7)
    links = [(f"n{k % NODES}", f"n{(k + 1 + k // NODES) % NODES}") for k in range(LINKS)]
    steps = int(megabytes * 1e6 / BYTES_PER_ROW / LINKS)
    writer: Any = None
    with path.open("wb") as file:
        for begin in range(0, steps, BLOCK_STEPS):
            block = np.arange(begin, min(steps, begin + BLOCK_STEPS))
            table = _block(rng, block, links, defects)
            writer = writer or pacsv.CSVWriter(file, table.schema)
            writer.write(table)
        writer.close()


def _block(
    rng: np.random.Generator, block: Any, links: list[tuple[str, str]], defects: bool
) -> pa.Table:
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
        if column.kind is ColumnType.KEY:
            cells[column.name] = pa.array(rng.choice(["one", "two", "three"], rows))
        elif column.kind is ColumnType.CATEGORY:
            cells[column.name] = pa.array(rng.choice(column.categories, rows))
        elif column.kind is ColumnType.INTEGER:
            cells[column.name] = rng.integers(1, 1_000_000, rows)
        else:
            low, high = column.minimum or 0.0, column.maximum or 200.0
            cells[column.name] = rng.uniform(low + 0.001, high, rows)
    if defects:
        cells["throughput_mbps"][::3000] *= -1.0
        cells["rtt_ms"] = pa.array(cells["rtt_ms"], mask=np.arange(rows) % 3000 == 1000)
        words = cells["link_type"].to_pylist()
        words[2000::3000] = ["lan"] * len(words[2000::3000])
        cells["link_type"] = pa.array(words)
    return pa.table(cells)


def ours(path: Path, output: Path | None) -> tuple[int, int]:
    """Validate with the project; returns the rows, and how many of them are quarantined."""
    from dwcp_ml.data.validation import validate

    report = validate(path, specs=tuple(MODELS.values()), output=output)
    return report.rows, report.rows_quarantined


def pandera_equivalent(path: Path, output: Path | None) -> tuple[int, int]:
    """Validate with pandas and pandera in a straightforward way."""
    import hashlib

    import pandas as pd
    import pandera.pandas as pandera

    def checks(column: Any) -> list[Any]:
        checks = []
        if column.codes:
            checks.append(pandera.Check.isin(column.categories))
        if column.minimum is not None:
            strict = pandera.Check.gt if column.exclusive_minimum else pandera.Check.ge
            checks.append(strict(column.minimum))
        if column.maximum is not None:
            checks.append(pandera.Check.le(column.maximum))
        if column.kind is ColumnType.FLOAT:
            checks.append(pandera.Check(np.isfinite))
        if column.kind is ColumnType.TIMESTAMP:
            checks.append(pandera.Check.between(pd.Timestamp("2000"), pd.Timestamp("2100")))
        return checks

    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    frame = pd.read_csv(path, dtype={"node_id": str, "peer_id": str})
    frame["timestamp"] = pd.to_datetime(frame["timestamp"])
    types = {
        ColumnType.TIMESTAMP: "datetime64[ns]",
        ColumnType.FLOAT: float,
        ColumnType.INTEGER: int,
    }
    schema = pandera.DataFrameSchema(
        {
            name: pandera.Column(types.get(COLUMNS[name].kind, str), checks(COLUMNS[name]))
            for name in frame.columns
        },
        unique=["timestamp", "node_id", "peer_id"],
    )
    whole, aside = frame, frame.iloc[:0]
    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        bad = cases["index"].dropna().astype(int).unique()
        counts = cases.groupby(["column", "check"])["index"].agg(["size", "first"])
        print(counts.to_string(), file=sys.stderr)
        aside, frame = frame.loc[bad], frame.drop(index=bad)
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
        aside.to_csv(output / "quarantine.csv")
    if late or constant or (peers > 1).any() or not md5:
        raise SystemExit(f"the file has other defects: {late=} {gaps=} {constant=}")
    return len(whole), len(aside)


def _child(which: str, path: Path, output: Path | None) -> None:
    import resource

    module = "dwcp_ml.data.validation" if which == "ours" else "pandera.pandas"
    importlib.import_module(module)
    begin = time.perf_counter()
    rows, aside = (ours if which == "ours" else pandera_equivalent)(path, output)
    seconds = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "rows": rows,
        "aside": aside,
        "call_seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def measure(which: str, path: Path, write: bool) -> dict[str, float]:
    """Return the figures of one run in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        output = [str(Path(scratch) / "dataset")] if write else []
        command = [sys.executable, __file__, "--child", which, str(path), *output]
        begin = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall = time.perf_counter() - begin
    return {**json.loads(done.stdout), "wall_seconds": wall}


def fastest(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the least of every figure over some runs."""
    return {key: min(run[key] for run in runs) for key in runs[0]}


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
    columns = (
        "file, quarantined, clean copy, by, wall s, call s, CPU s, peak RSS MB, "
        "speed-up: wall (call)"
    )
    print(f"| {' | '.join(columns.split(', '))} |")
    print(f"|{' --- |' * len(columns.split(', '))}")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "telemetry.csv"
        for size in (float(word) for word in options.sizes_mb.split(",")):
            for defects in (False, True):
                write_telemetry(path, size, defects=defects)
                for write in (False, True):
                    _compare(path, write, options, size <= options.yardstick_up_to_mb)


def _compare(path: Path, write: bool, options: argparse.Namespace, yardstick: bool) -> None:
    label = f"{path.stat().st_size / 1e6:.0f} MB"
    runs: dict[str, list[dict[str, float]]] = {"pandera": [], "ours": []}
    for _ in range(options.repeat):
        for which in ("pandera", "ours") if yardstick else ("ours",):
            runs[which].append(measure(which, path, write))
    best = {which: fastest(figures) for which, figures in runs.items() if figures}
    if len({(figures["rows"], figures["aside"]) for figures in best.values()}) > 1:
        raise SystemExit(f"the two sides disagree: {best}")
    for which, figures in best.items():
        speed = ""
        if which == "ours" and yardstick:
            wall, call = (best["pandera"][k] / figures[k] for k in ("wall_seconds", "call_seconds"))
            speed = f"{wall:.1f}x ({call:.1f}x)"
        name = "dwcp_ml" if which == "ours" else "pandas + pandera"
        cells = (
            label,
            f"{figures['aside']:.0f} of {figures['rows']:,.0f} rows",
            "written" if write else "no",
            name,
            f"{figures['wall_seconds']:.2f}",
            f"{figures['call_seconds']:.2f}",
            f"{figures['cpu_seconds']:.2f}",
            f"{figures['peak_mb']:.0f}",
            speed,
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
