"""Measure zstd on generated payloads and write the table that the simulator's gains come from.

    python -m benchmarks.measure_codec [--output FILE]

By default FILE is `dwcp_ml/simulate/codec.json`; the committed one is one run of this script.
Ratios depend on the payload only. Speeds depend on the machine, so they are kept relative to zstd
level 1 on log text and rounded to two digits; `SimulatorSettings` says how fast that reference is.
Needs the `zstandard` package (extra `dev`); the simulator only reads the table.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dwcp_ml.simulate.compression import CODEC_PATH

PAYLOAD_BYTES = 4 << 20
REPEATS = 5
LEVELS = range(1, 10)
REFERENCE_CLASS = "log_text"


def _log_text(rng: random.Random) -> bytes:
    """Service log: a few dozen templates with identifiers, addresses and durations."""
    parts = ("accepted", "replicated", "snapshot", "heartbeat", "timeout", "migrating", "ballot")
    lines: list[str] = []
    size = 0
    clock = 0
    while size < PAYLOAD_BYTES:
        clock += rng.randrange(1, 900)
        line = (
            f"2025-01-06T{clock // 3600000 % 24:02d}:{clock // 60000 % 60:02d}:"
            f"{clock // 1000 % 60:02d}.{clock % 1000:03d}Z {rng.choice(('INFO', 'WARN', 'DEBUG'))} "
            f"shard={rng.randrange(64)} {rng.choice(parts)} entry={rng.randrange(10**6)} "
            f"peer=10.{rng.randrange(4)}.{rng.randrange(256)}.{rng.randrange(256)} "
            f"took={rng.expovariate(0.2):.3f}ms\n"
        )
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()


def _json_state(rng: random.Random) -> bytes:
    """State of virtual machines as JSON records: long repeated keys, short changing values."""
    records: list[str] = []
    size = 0
    while size < PAYLOAD_BYTES:
        record = json.dumps(
            {
                "vm_id": f"vm-{rng.randrange(5000):05d}",
                "state": rng.choice(("running", "running", "running", "paused", "migrating")),
                "cpu_usage_percent": round(rng.gauss(40, 15), 1),
                "memory_resident_mib": rng.randrange(256, 16384),
                "dirty_pages": rng.randrange(100_000),
                "placement": {
                    "region": rng.choice(("eu-west", "us-east")),
                    "rack": rng.randrange(40),
                },
            }
        )
        records.append(record)
        size += len(record) + 1
    return "\n".join(records).encode()


def _memory_pages(rng: random.Random) -> bytes:
    """Pages of 4 KiB: zero pages, heaps of pointers, small integers and unstructured bytes."""
    pages: list[bytes] = []
    numpy_rng = np.random.default_rng(rng.randrange(2**32))
    base = 0x7F0000000000
    for _ in range(PAYLOAD_BYTES // 4096):
        kind = rng.random()
        if kind < 0.15:
            pages.append(bytes(4096))
        elif kind < 0.55:
            pages.append((base + 16 * numpy_rng.integers(0, 1 << 18, 512)).astype("<u8").tobytes())
        elif kind < 0.80:
            pages.append(numpy_rng.poisson(20, 1024).astype("<u4").tobytes())
        else:
            pages.append(numpy_rng.bytes(4096))
    return b"".join(pages)


def _sensor_columns(rng: random.Random) -> bytes:
    """Columns of float32 measurements: random walks, whose mantissas hardly compress."""
    numpy_rng = np.random.default_rng(rng.randrange(2**32))
    columns = np.cumsum(numpy_rng.normal(0, 0.05, (256, PAYLOAD_BYTES // 1024)), axis=1) + 50
    return np.round(columns, 2).astype("<f4").tobytes()


def _encrypted(rng: random.Random) -> bytes:
    """Bytes that are encrypted or compressed already."""
    return rng.randbytes(PAYLOAD_BYTES)


PAYLOADS: dict[str, Callable[[random.Random], bytes]] = {
    "log_text": _log_text,
    "json_state": _json_state,
    "memory_pages": _memory_pages,
    "sensor_columns": _sensor_columns,
    "encrypted": _encrypted,
}


def _best_seconds(call: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def measure() -> dict[str, object]:
    """Compress and decompress every payload at every level.

    Returns
    -------
    dict
        `classes[name]` holds `ratio`, `compress_speed`, `decompress_speed`: lists of 9 numbers,
        levels 1 to 9; ratio = original size / compressed size, speeds in bytes of original
        data a CPU second, relative to compressing `log_text` at level 1.
    """
    import zstandard

    raw: dict[str, dict[str, list[float]]] = {}
    for name, build in PAYLOADS.items():
        payload = build(random.Random(42))
        rows: dict[str, list[float]] = {"ratio": [], "compress_speed": [], "decompress_speed": []}
        for level in LEVELS:
            compressor = zstandard.ZstdCompressor(level=level)
            packed = compressor.compress(payload)
            unpack = zstandard.ZstdDecompressor().decompress
            rows["ratio"].append(len(payload) / len(packed))
            rows["compress_speed"].append(
                len(payload) / _best_seconds(lambda c=compressor, p=payload: c.compress(p))  # type: ignore[misc]
            )
            rows["decompress_speed"].append(
                len(payload) / _best_seconds(lambda u=unpack, p=packed: u(p))  # type: ignore[misc]
            )
        raw[name] = rows
    reference = raw[REFERENCE_CLASS]["compress_speed"][0]
    return {
        "codec": f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}, one thread",
        "payload_bytes": PAYLOAD_BYTES,
        "reference": f"compressing {REFERENCE_CLASS} at level 1 = 1.0",
        "reference_mbps_when_measured": _two_digits(reference * 8 / 1e6),
        "levels": list(LEVELS),
        "classes": {
            name: {
                "ratio": [round(value, 3) for value in rows["ratio"]],
                "compress_speed": [_two_digits(v / reference) for v in rows["compress_speed"]],
                "decompress_speed": [_two_digits(v / reference) for v in rows["decompress_speed"]],
            }
            for name, rows in raw.items()
        },
    }


def main() -> None:
    """Write the table to `--output` (default: the `codec.json` that the simulator reads)."""
    parser = argparse.ArgumentParser(description="Measure zstd on generated payloads.")
    parser.add_argument("--output", type=Path, default=CODEC_PATH)
    output: Path = parser.parse_args().output
    output.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {output}\n")


if __name__ == "__main__":
    main()
