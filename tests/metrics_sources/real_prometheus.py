"""A Prometheus in a process of its own, for what only the real one can tell."""

import contextlib
import subprocess
import time

import yaml

from dwcp_ml.http_client import HttpError, get
from tests.metrics_sources.fakes import LONGEST, FakeServer

START_SECONDS = 20.0


def job(name, servers):
    """Return the part of a configuration that scrapes these servers."""
    return {"job_name": name, "static_configs": [{"targets": [one.address for one in servers]}]}


class Prometheus:
    """A Prometheus that scrapes every 0.2 s, until ``stop``."""

    def __init__(self, binary, place, jobs):
        self._place = place
        settings = {"scrape_interval": "200ms", "scrape_timeout": "200ms"}
        path = place / "prometheus.yml"
        path.write_text(yaml.safe_dump({"global": settings, "scrape_configs": jobs}))
        with FakeServer() as placeholder:
            self.address = f"http://{placeholder.address}"
        command = [
            str(binary), f"--config.file={path}", f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address={self.address.removeprefix('http://')}", "--log.level=warn",
        ]  # fmt: skip
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(HttpError):
                get(f"{self.address}/-/ready", 1.0)
                return self
            log = (self._place / "log").read_text()
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"Prometheus did not start:\n{log}")
            time.sleep(0.05)

    def __exit__(self, *error):
        self.stop()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(LONGEST)
