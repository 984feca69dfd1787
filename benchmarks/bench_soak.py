"""The server under ten minutes of load, and when it is killed.

First its capacity is measured over 8 connections; then 80 % of it is offered at fixed times for
``--minutes``, and every ten seconds the memory of the server and the latency of that window are
printed: errors must be 0, memory and latency must not grow. Latency runs from the time at which a
request was due, so a stall is not hidden. Then the Go client calls while the server is killed with
SIGKILL and restarted on the same port: the errors of the client are counted by kind.

    python -m benchmarks.bench_soak --models runs/latest/models --minutes 10
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bench_agreement import build
from benchmarks.bench_serving import (
    LOAD_CORE,
    SERVER_CORE,
    Load,
    bodies_of,
    free_port,
    on_core,
    only_bundle,
)
from dwcp_ml.serving.repository import find_bundles

MODEL = "bandwidth_predictor"


def start(models_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """Start a server on its core and wait until it is ready."""
    import urllib.request

    process = subprocess.Popen(
        [sys.executable, "-m", "dwcp_ml.cli", "serve", "--model_dir", str(models_dir),
         "--http_port", str(port), "--no-grpc"],
        preexec_fn=on_core(SERVER_CORE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1):
                return process
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The server did not become ready.")


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process, MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("The server has ended.")


def soak(program: Path, models_dir: Path, body: Path, minutes: float) -> None:
    """Offer 80 % of the capacity, and print a row every ten seconds."""
    port = free_port()
    server = start(models_dir, port)
    words = ["-url", f"http://127.0.0.1:{port}/v1/models/{MODEL}:predict", "-body", str(body)]
    capacity = Load(program, 5).run(*words, connections=8)["rps"]
    rate = 0.8 * capacity
    print(f"Capacity {capacity:,.0f} requests/s over 8 connections; offered {rate:,.0f}.\n")
    print("| after s | requests | errors | p50 ms | p99 ms | p99.9 ms | memory MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    started = time.monotonic()
    load = Load(program, 10)
    while time.monotonic() - started < 60 * minutes:
        report = load.run(*words, "-rate", str(rate), connections=32)
        show_window(time.monotonic() - started, report, resident_mb(server))
    server.terminate()
    print(f"\nThe server ended with exit code {server.wait(30)}.\n")


def show_window(after: float, report: dict[str, Any], memory: float) -> None:
    errors = report["requests"] - report["good"]
    latency = " | ".join(f"{report[key]:.3f}" for key in ("p50_ms", "p99_ms", "p99_9_ms"))
    print(
        f"| {after:.0f} | {report['requests']:,} | {errors} | {latency} | {memory:.1f} |",
        flush=True,
    )


def kill_and_restart(program: Path, models_dir: Path, body: Path) -> None:
    """Kill the server during calls of the Go client, restart it, and count the client's errors."""
    port = free_port()
    server = start(models_dir, port)
    command = [
        str(program), "-mode", "client", "-address", f"http://127.0.0.1:{port}", "-model", MODEL,
        "-body", str(body), "-connections", "8", "-duration", "20s", "-timeout", "15s",
        "-attempts", "12", "-rate", "400",
    ]  # fmt: skip
    load = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(LOAD_CORE)
    )
    time.sleep(5)
    server.kill()
    server.wait()
    server = start(models_dir, port)
    output, _ = load.communicate(timeout=90)
    server.terminate()
    server.wait(30)
    import json

    report = json.loads(output)
    print(
        "Killed with SIGKILL after 5 s of 20 and started again, the Go client calling 400 times a "
        f"second: {report['requests']:,} calls, {report['good']:,} succeeded, "
        f"errors by kind: {report['errors'] or 'none'}; slowest {report['max_ms']:,.0f} ms."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/latest/models"))
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        program = build(place, "dwcp-load")
        models_dir = only_bundle(MODEL, find_bundles(options.models.resolve())[MODEL], place)
        body, _ = bodies_of(MODEL, place)
        soak(program, models_dir, body, options.minutes)
        kill_and_restart(program, models_dir, body)


if __name__ == "__main__":
    main()
