"""What the server does when the machine gives it no more: a full disk, no file descriptor left.

The disk is a real one of 64 KiB, and the limit of descriptors the kernel's. Nothing is lost but
what the metrics say, and the server recovers by itself.
"""

import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.prediction_log.reader import read_log
from tests.serving.bundles import rows_for
from tests.serving.running import TIMEOUT_SECONDS, Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

NAME = BANDWIDTH.name
PATH = f"/v1/models/{NAME}:predict"
BODY = json.dumps({"instances": rows_for(NAME, 20).astype(float).tolist()}).encode()

DISK = 'mount -t tmpfs -o size=64k none "$0" && exec "$@"'


@pytest.fixture
def started(model_dir, tmp_path):
    """Start a server that is stopped after the test."""
    servers = []

    def start(*words, within=()):
        servers.append(Server(model_dir, tmp_path / "server", *words, within=within))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def metric(server, name):
    _, _, content = server.request("GET", "/metrics")
    return float(re.search(rf"^{name}\S* (\S+)$", content.decode(), re.MULTILINE)[1])


def until(question, seconds=20.0):
    ends = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_full_disk_of_the_prediction_log_costs_records_and_no_response(started, tmp_path):
    own = ["--user", "--map-root-user"] if os.geteuid() else []
    unshare = [shutil.which("unshare") or "unshare", *own, "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace for a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    server = started("--log-predictions", str(disk), within=[*unshare, "sh", "-c", DISK, str(disk)])
    seen = Path(f"/proc/{server.process.pid}/root{disk}")
    sent = 0
    while not (sent and metric(server, "dwcp_prediction_log_dropped")):
        status, _, content = server.post(PATH, BODY)
        assert (status, len(json.loads(content)["predictions"])) == (200, 20)
        sent += 20
        assert sent < 20_000, "the disk should be full"
    until(lambda: _counted(server) == sent)
    dropped = metric(server, "dwcp_prediction_log_dropped")
    written = metric(server, "dwcp_prediction_log_written")
    assert len(list(read_log(seen))) == written, "whole records, and as many as it says"
    assert server.log().count("No space left") + server.log().count("no space left") == 1
    for segment in seen.iterdir():
        segment.unlink()
    server.post(PATH, BODY)
    until(lambda: metric(server, "dwcp_prediction_log_written") > written)
    assert metric(server, "dwcp_prediction_log_dropped") == dropped
    assert server.stop() == 0
    assert "Traceback" not in server.log()


def _counted(server):
    names = ("dwcp_prediction_log_written", "dwcp_prediction_log_dropped")
    return sum(metric(server, name) for name in names)


def test_without_a_file_descriptor_left_open_connections_are_served_and_it_recovers(started):
    server = started()
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_SECONDS)
    with contextlib.closing(connection), contextlib.ExitStack() as clients:
        assert _predict(connection) == 200
        limit = _descriptors(server) + 10
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        for _ in range(40):
            address = "127.0.0.1", server.http_port
            clients.enter_context(socket.create_connection(address, TIMEOUT_SECONDS))
        until(lambda: _descriptors(server) >= limit)
        before = _processor_seconds(server)
        for _ in range(20):
            assert _predict(connection) == 200
            time.sleep(0.1)
        assert _processor_seconds(server) - before < 1.0, "it does not ask for them all the time"
    until(lambda: _answers(server))
    assert server.log().count("\n") < 200, "it does not fill the log either"
    assert server.stop() == 0


def _predict(connection):
    connection.request("POST", PATH, BODY)
    response = connection.getresponse()
    response.read()
    return response.status


def _answers(server):
    with contextlib.suppress(OSError):
        return server.post(PATH, BODY)[0] == 200
    return False


def _processor_seconds(server):
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descriptors(server):
    return sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())
