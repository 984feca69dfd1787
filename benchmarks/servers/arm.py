"""One of the servers that are compared: ``dwcp-ml serve`` of a checkout, on a core of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_serving import LOAD_CORE, SERVER_CORE, on_core
from benchmarks.servers.load import Job

HERE = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
STOP_SECONDS = 45.0


class ServerFailed(Exception):
    """A server does not start, or does not survive its load; the message says why."""


@dataclass(frozen=True)
class Checkout:
    """A directory with the package ``dwcp_ml``.

    Parameters
    ----------
    name
        What the table calls it.
    directory
        The checkout; its package is imported, whichever one is installed.
    python
        The interpreter.
    options
        More options of the server.
    """

    name: str
    directory: Path
    python: Path = Path(sys.executable)
    options: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.directory), "OMP_NUM_THREADS": "1"}

    def command(self, models: Path, ports: Path) -> list[str]:
        return [
            str(self.python), "-m", "dwcp_ml.cli", "serve", "--model_dir", str(models),
            "--http_port", "0", "--grpc_port", "0", "--port-file", str(ports), *self.options,
        ]  # fmt: skip

    def check(self) -> None:
        """Find out whether the interpreter runs the package of this checkout.

        Raises
        ------
        ServerFailed
            If it does not.
        """
        done = subprocess.run(
            [str(self.python), "-c", "import dwcp_ml; print(dwcp_ml.__file__)"],
            env=self.environment(), cwd=self.directory, capture_output=True, text=True, check=False,
        )  # fmt: skip
        file = Path(done.stdout.strip() or "nothing").resolve()
        if not file.is_relative_to(self.directory.resolve()):
            raise ServerFailed(f"{self.python} does not import dwcp_ml of {self.directory}.")


@dataclass(frozen=True)
class Floor(Checkout):
    """Granian with nothing behind it (``benchmarks.servers.echo``)."""

    def command(self, models: Path, ports: Path) -> list[str]:
        return [str(self.python), "-m", "benchmarks.servers.echo", "--port-file", str(ports)]


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    pid: int
    ready_seconds: float
    ports: dict[str, int]

    def measure(self, protocol: str, request: bytes, **more: Any) -> dict[str, Any]:
        """Put load on it; return the figures.

        Raises
        ------
        ServerFailed
            If it does not answer.
        """
        port = self.ports["grpc" if protocol == "grpc" else "http"]
        job = Job(protocol, "127.0.0.1", port, self.pid, request, **more)
        command = [sys.executable, "-m", "benchmarks.servers.load"]
        seconds = job.seconds + job.warm_up_seconds + 60.0
        try:
            done = subprocess.run(
                command, input=job.to_json(), cwd=HERE, capture_output=True, text=True,
                env={**os.environ, "PYTHONPATH": str(HERE)}, timeout=seconds, check=False,
                preexec_fn=on_core(LOAD_CORE),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(f"The load did not end within {seconds:.0f} s.") from error
        if done.returncode != 0:
            raise ServerFailed(done.stderr.strip().rpartition("\n")[2] or "The load failed.")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


@contextlib.contextmanager
def running(checkout: Checkout, models: Path) -> Iterator[Running]:
    """Run a server until the block ends.

    Raises
    ------
    ServerFailed
        If it does not become ready, or does not end when asked to.
    """
    with tempfile.TemporaryDirectory() as scratch:
        ports, log = Path(scratch, "ports.json"), Path(scratch, "log")
        started = time.perf_counter()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                checkout.command(models, ports), env=checkout.environment(), cwd=scratch,
                stdout=stream, stderr=stream, preexec_fn=on_core(SERVER_CORE),
            )  # fmt: skip
        try:
            while not _is_ready(ports):
                if process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    last = log.read_text(errors="replace").strip().rpartition("\n")[2]
                    raise ServerFailed(f"The server of {checkout.name} did not start: {last}")
                time.sleep(0.005)
            ready = time.perf_counter() - started
            yield Running(process.pid, ready, json.loads(ports.read_text()))
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_ready(ports: Path) -> bool:
    if not ports.exists():
        return False
    url = f"http://127.0.0.1:{json.loads(ports.read_text())['http']}/v2/health/ready"
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False
