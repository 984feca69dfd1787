"""Latency and throughput of one inference at the client, beside other ways to serve the same graph.

Every server runs on one core, alone, and the load on the other: one row a request, over 1, 8 and
64 connections that each send their next request when the last one is answered. The contestants
take turns on the same machine in one run:

  bare call       ONNX Runtime in Python, no server at all
  Go, in process  the Go client with ONNX Runtime inside
  dwcp-ml         `dwcp-ml serve`, V1 and V2 over HTTP, and through the Go client over HTTP and gRPC
  KServe          the SDK's own server with a custom model, V1
  MLServer        with a custom ONNX runtime, V2, without its worker processes

Prints a Markdown table.

    python -m benchmarks.bench_serving --models runs/latest/models --seconds 4
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_agreement import build, library
from dwcp_ml.contract.models import MODELS, model_spec
from dwcp_ml.export.probes import probe_inputs
from dwcp_ml.serving.repository import find_bundles
from dwcp_ml.serving.served_model import ServedModel

HERE = Path(__file__).resolve().parent
MLSERVER = HERE.parent / ".cache" / "mlserver"
CONNECTIONS = (1, 8, 64)
SERVER_CORE, LOAD_CORE = 0, 1


def on_core(core: int) -> Callable[[], None]:
    """Return a function that pins a child process to one core, if there are several."""
    return lambda: os.sched_setaffinity(0, {core % (os.cpu_count() or 1)})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], ready: str, cwd: Path | None = None, **more: str) -> Iterator[None]:
    """Run a server on its core until the block ends."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **more}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, preexec_fn=on_core(SERVER_CORE),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(ready, timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command} did not become ready")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Load:
    """The load generator; a report of it becomes a row of the table."""

    def __init__(self, program: Path, seconds: float) -> None:
        self.program, self.seconds = program, seconds

    def run(self, *words: str, connections: int) -> dict[str, Any]:
        """Send requests, and return the report."""
        command = [
            str(self.program), *words, "-connections", str(connections),
            "-duration", f"{self.seconds}s", "-warmup", "1s",
        ]  # fmt: skip
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=120,
            preexec_fn=on_core(LOAD_CORE),
        )  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def show(model: str, way: str, connections: int, report: dict[str, Any]) -> None:
    errors = report["requests"] - report["good"]
    cells = [f"{report[key]:.3f}" for key in ("p50_ms", "p99_ms", "p99_9_ms")]
    rate = f"{report['rps']:,.0f}"
    print(
        f"| {model} | {way} | {connections} | {' | '.join(cells)} | {rate} | {errors} |", flush=True
    )


def bare_call(model: str, bundle: Path, seconds: float) -> None:
    """Measure the graph without a server."""
    os.sched_setaffinity(0, {SERVER_CORE})
    deployed = ServedModel.load(bundle)
    row = _rows(model, 1)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        deployed.run(row)
        taken.append((time.perf_counter() - begin) * 1e3)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    p50, p99, p999 = np.quantile(taken[100:], [0.5, 0.99, 0.999])
    rate = f"{1e3 / float(np.mean(taken[100:])):,.0f}"
    print(f"| {model} | bare call | – | {p50:.3f} | {p99:.3f} | {p999:.3f} | {rate} | 0 |")


def measure(model: str, bundle: Path, load: Load, place: Path) -> None:
    """Measure every server for one model."""
    v1, v2 = bodies_of(model, place)
    bare_call(model, bundle, load.seconds)
    only_model = only_bundle(model, bundle, place)
    local = ["-mode", "client", "-bundles", str(only_model), "-library", str(library())]
    report = load.run(*local, "-model", model, "-body", str(v1), connections=1)
    show(model, "Go, in process", 1, report)
    _ours(model, only_model, load, (v1, v2))
    _kserve(model, bundle, load, v1)
    _mlserver(model, bundle, load, v2, place)


def _ours(model: str, models_dir: Path, load: Load, bodies: tuple[Path, Path]) -> None:
    http, grpc = free_port(), free_port()
    command = [
        sys.executable, "-m", "dwcp_ml.cli", "serve", "--model_dir", str(models_dir),
        "--http_port", str(http), "--grpc_port", str(grpc),
    ]  # fmt: skip
    base = f"http://127.0.0.1:{http}"
    v1, v2 = bodies
    ways = {
        "dwcp-ml, V1": ["-url", f"{base}/v1/models/{model}:predict", "-body", str(v1)],
        "dwcp-ml, V2": ["-url", f"{base}/v2/models/{model}/infer", "-body", str(v2)],
    }
    for name, address in (("HTTP", base), ("gRPC", f"grpc://127.0.0.1:{grpc}")):
        ways[f"dwcp-ml, Go client over {name}"] = [
            "-mode", "client", "-address", address, "-model", model, "-body", str(v1),
        ]  # fmt: skip
    with server(command, f"{base}/v2/health/ready"):
        for way, words in ways.items():
            for connections in CONNECTIONS:
                show(model, way, connections, load.run(*words, connections=connections))


def _kserve(model: str, bundle: Path, load: Load, v1: Path) -> None:
    port = free_port()
    script = HERE / "rivals" / "kserve_custom.py"
    command = [sys.executable, str(script), str(bundle), model, str(port)]
    with server(command, f"http://127.0.0.1:{port}/v2/health/ready"):
        url = f"http://127.0.0.1:{port}/v1/models/{model}:predict"
        for connections in CONNECTIONS:
            words = ["-url", url, "-body", str(v1), "-header", "Content-Type: application/json"]
            show(
                model,
                "KServe custom model, V1",
                connections,
                load.run(*words, connections=connections),
            )


def _mlserver(model: str, bundle: Path, load: Load, v2: Path, place: Path) -> None:
    directory = place / f"mlserver-{model}"
    directory.mkdir()
    http, grpc, metrics = free_port(), free_port(), free_port()
    (directory / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": http,
                "grpc_port": grpc,
                "metrics_port": metrics,
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    (directory / "model-settings.json").write_text(
        json.dumps(
            {
                "name": model,
                "implementation": "mlserver_onnx.OnnxRuntime",
                "parameters": {"uri": str(bundle / "model.onnx")},
            }
        )
    )
    command = [str(MLSERVER / "bin" / "mlserver"), "start", str(directory)]
    path = str(HERE / "rivals")
    with server(command, f"http://127.0.0.1:{http}/v2/health/ready", PYTHONPATH=path):
        url = f"http://127.0.0.1:{http}/v2/models/{model}/infer"
        for connections in CONNECTIONS:
            words = ["-url", url, "-body", str(v2), "-header", "Content-Type: application/json"]
            show(model, "MLServer, V2", connections, load.run(*words, connections=connections))


def only_bundle(model: str, bundle: Path, place: Path) -> Path:
    """Return a directory with a copy of only this bundle; the Go client follows no links."""
    directory = place / f"only-{model}"
    shutil.copytree(bundle, directory / model / bundle.name)
    return directory


def _rows(model: str, count: int) -> Any:
    spec = model_spec(model)
    return probe_inputs(spec, np.empty((0, *spec.input.shape), np.float32), n=count, seed=3)


def bodies_of(model: str, place: Path) -> tuple[Path, Path]:
    row = _rows(model, 1)
    v1, v2 = place / f"{model}.v1.json", place / f"{model}.v2.json"
    v1.write_text(json.dumps({"instances": row.tolist()}))
    tensor = {"name": "features", "datatype": "FP32", "shape": row.shape}
    v2.write_text(json.dumps({"inputs": [{**tensor, "data": row.reshape(-1).tolist()}]}))
    return v1, v2


def install_mlserver() -> None:
    """Install MLServer into a separate environment, unless it is there."""
    if (MLSERVER / "bin" / "mlserver").is_file():
        return
    uv = HERE.parent / ".tools" / "bin" / "uv"
    subprocess.run(
        [str(uv), "venv", "--quiet", "--python", sys.executable, str(MLSERVER)], check=True
    )
    subprocess.run(
        [str(uv), "pip", "install", "--quiet", "mlserver==1.7.1", "onnxruntime"],
        env={**os.environ, "VIRTUAL_ENV": str(MLSERVER)}, check=True,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/latest/models"))
    parser.add_argument("--only", default=",".join(MODELS), help="models, comma-separated")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options = parser.parse_args()
    install_mlserver()
    bundles = find_bundles(options.models.resolve())
    print("| model | server | connections | p50 ms | p99 ms | p99.9 ms | requests/s | errors |")
    print(f"|{' --- |' * 8}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        load = Load(build(Path(scratch), "dwcp-load"), options.seconds)
        for model in options.only.split(","):
            measure(model, bundles[model], load, Path(scratch))


if __name__ == "__main__":
    main()
