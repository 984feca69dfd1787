"""The server starts, shuts down and restarts while clients send requests."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from dwcp_ml.prediction_log.log import read_log
from tests.serving.bundles import VERSION, rows_for
from tests.serving.running import TIMEOUT_SECONDS, Server, plain, receive, split

pytestmark = pytest.mark.server

NAME = "bandwidth_predictor"
PATH = f"/v1/models/{NAME}:predict"
GOOD = json.dumps({"instances": rows_for(NAME, 1).astype(float).tolist()}).encode()


@pytest.fixture
def start(model_dir, tmp_path):
    """Start a server: ``start("--drain-seconds", "1", place="a", http_port=...)``."""
    started = []

    def go(*words, place="server", **more):
        made = Server(model_dir, tmp_path / place, *words, **more)
        started.append(made)
        return made

    yield go
    for made in started:
        made.kill()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_the_port_is_closed_before_the_models_are_warm(start):
    """Every connection that is accepted gets a response; earlier ones are refused."""
    port = free_port()
    statuses = []
    stop = threading.Event()

    def probe():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
            try:
                connection.request("POST", PATH, GOOD)
                statuses.append(connection.getresponse().status)
            except ConnectionRefusedError:
                statuses.append(None)
                time.sleep(0.005)
            finally:
                connection.close()

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        server = start(http_port=port)
        while 200 not in statuses:
            assert thread.is_alive()
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join(TIMEOUT_SECONDS)
    first = statuses.index(200)
    assert first > 5, "probes came before the server"
    assert set(statuses[:first]) == {None}
    assert set(statuses[first:]) == {200}
    assert server.stop() == 0


class Client(threading.Thread):
    """Sends on a keep-alive connection, one request after the other, until the server closes it."""

    def __init__(self, server, pipelined=1):
        super().__init__()
        self.server = server
        self.whole = plain(PATH, GOOD) * pipelined
        self.pipelined = pipelined
        self.statuses = []
        self.closed = False
        self.fault = None

    def run(self):
        try:
            address = ("127.0.0.1", self.server.http_port)
            with socket.create_connection(address, TIMEOUT_SECONDS) as stream:
                while not self.closed:
                    stream.sendall(self.whole)
                    received = split(receive(stream, self.pipelined))
                    assert received, "a request got no response"
                    for status, headers, _ in received:
                        self.statuses.append(status)
                        self.closed = headers.get("connection") == "close"
        except (OSError, AssertionError) as error:
            self.fault = error


def test_nothing_is_lost_when_the_server_shuts_down_under_load(start):
    server = start("--drain-seconds", "1")
    clients = [Client(server) for _ in range(6)]
    for client in clients:
        client.start()
    while not all(client.statuses for client in clients):
        time.sleep(0.01)
    server.terminate()
    readiness = []
    while server.process.poll() is None and 503 not in readiness:
        status, headers, _ = server.request("GET", "/v2/health/ready")
        readiness.append(status)
    assert readiness[-1] == 503, "not ready while it still responds"
    assert headers["retry-after"] == "1"
    for path in (f"/v1/models/{NAME}", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}"):
        assert server.request("GET", path)[0] == 503
    assert server.request("GET", "/v2/health/live")[0] == 200
    assert server.post(PATH, GOOD)[0] == 200, (
        "a client that does not know it yet still gets a response"
    )
    for client in clients:
        client.join(TIMEOUT_SECONDS)
        assert client.fault is None
        assert client.closed
        assert set(client.statuses) == {200}
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def test_a_half_sent_request_is_completed_when_the_server_shuts_down(start):
    server = start("--drain-seconds", "0.2", "--grace-seconds", "5")
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        whole = plain(PATH, GOOD)
        stream.sendall(whole[:-10])
        server.responses(whole)
        server.terminate()
        time.sleep(0.6)  # meanwhile it closes its idle connections
        stream.sendall(whole[-10:])
        ((status, headers, _),) = split(receive(stream))
        assert (status, headers["connection"]) == (200, "close")
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def test_a_client_that_hangs_does_not_keep_the_server(start):
    server = start("--grace-seconds", "1")
    with socket.create_connection(("127.0.0.1", server.http_port), TIMEOUT_SECONDS) as stream:
        stream.sendall(plain(PATH, GOOD)[:-10])
        server.responses(plain(PATH, GOOD))
        assert server.stop() == 0
    assert "Traceback" not in server.log()


def test_a_killed_server_comes_back_on_its_port_under_load(start):
    port = free_port()
    first = start(http_port=port)
    clients = [Client(first, pipelined=5) for _ in range(3)]
    for client in clients:
        client.start()
    while not all(client.statuses for client in clients):
        time.sleep(0.01)
    first.kill()
    for client in clients:
        client.join(TIMEOUT_SECONDS)
        assert set(client.statuses) == {200}
    again = start(http_port=port, place="again")
    assert again.http_port == port
    status, _, received = again.post(PATH, GOOD)
    assert status == 200
    assert b"next_throughput_mbps" in received
    assert again.stop() == 0


@pytest.mark.parametrize("which", ["http", "grpc"])
def test_a_port_in_use_is_one_sentence(start, server, which):
    port = {"http": server.http_port, "grpc": server.grpc_port}[which]
    with pytest.raises(AssertionError, match="the server did not start") as failed:
        start(f"--{which}_port", str(port))
    text = str(failed.value)
    (sentence,) = [line for line in text.splitlines() if line.startswith("dwcp-ml: ")]
    assert f"Port {port} of 127.0.0.1 is not available" in sentence
    assert "Traceback" not in text
    assert "ready on" not in text
    assert server.post(PATH, GOOD)[0] == 200


def test_predictions_are_logged(start, tmp_path):
    directory = tmp_path / "predictions"
    server = start("--log-predictions", str(directory))
    headers = {"X-Request-Id": "r1", "X-DWCP-Link": "n1/n2", "X-DWCP-Observed-At": "1760000000.5"}
    rows = rows_for(NAME, 2)
    body = {"instances": rows.astype(float).tolist()}
    status, _, received = server.post(PATH, body, headers)
    assert status == 200
    server.post(PATH, {"instances": []}, {"X-Request-Id": "rejected"})
    server.post(PATH, GOOD, {"X-Request-Id": "r2", "X-DWCP-Observed-At": "nonsense"})
    large = {"instances": rows_for(NAME, 100).astype(float).tolist()}
    server.post(f"/v1/models/{NAME}/versions/{VERSION}:predict", large, {"X-Request-Id": "r3"})
    assert server.stop() == 0
    records = list(read_log(directory))
    assert sorted(records, key=lambda r: (r.request_id, r.row)) == records
    first, second, third, *others = records
    assert (first.request_id, first.row, second.request_id, second.row) == ("r1", 0, "r1", 1)
    assert (first.model, first.version, first.link) == (NAME, VERSION, "n1/n2")
    assert (first.observed_at, first.protocol) == (1760000000.5, "v1")
    assert (third.request_id, third.link, third.observed_at) == ("r2", None, None)
    assert [(record.request_id, record.row) for record in others] == [("r3", n) for n in range(100)]
    predictions = json.loads(received)["predictions"]
    for row, record, prediction in zip(rows, (first, second), predictions, strict=True):
        assert record.inputs.tolist() == row.tolist()
        assert record.outputs["next_throughput_mbps"] == pytest.approx(
            prediction["next_throughput_mbps"]
        )
    assert not list(Path(directory).glob("*.part")), "completed at the shutdown"
