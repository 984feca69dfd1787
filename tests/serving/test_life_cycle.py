"""How the server starts, goes down and comes back, with clients at work."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from dwcp_ml.prediction_log.log import read_log
from tests.serving.bundles import VERSION, rows_for
from tests.serving.running import LONGEST, Server, plain, receive, split

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


def test_nobody_listens_before_the_models_are_warm(start):
    """Whoever gets a connection gets an answer: a probe that connects early is refused."""
    port = free_port()
    statuses = []
    stop = threading.Event()

    def probe():
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
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
        thread.join(LONGEST)
    first = statuses.index(200)
    assert first > 5, "probes came before the server"
    assert set(statuses[:first]) == {None}
    assert set(statuses[first:]) == {200}
    assert server.stop() == 0


class Client(threading.Thread):
    """Asks on a keep-alive connection, one request after the other, until told to go."""

    def __init__(self, server, pipelined=1):
        super().__init__()
        self.server = server
        self.whole = plain(PATH, GOOD) * pipelined
        self.pipelined = pipelined
        self.statuses = []
        self.farewell = False
        self.fault = None

    def run(self):
        try:
            address = ("127.0.0.1", self.server.http_port)
            with socket.create_connection(address, LONGEST) as stream:
                while not self.farewell:
                    stream.sendall(self.whole)
                    told = split(receive(stream, self.pipelined))
                    assert told, "a request had no answer"
                    for status, headers, _ in told:
                        self.statuses.append(status)
                        self.farewell = headers.get("connection") == "close"
        except (OSError, AssertionError) as error:
            self.fault = error


def test_nothing_is_lost_when_the_server_goes_down_under_load(start):
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
    assert readiness[-1] == 503, "not ready while it still answers"
    assert headers["retry-after"] == "1"
    for path in (f"/v1/models/{NAME}", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}"):
        assert server.request("GET", path)[0] == 503
    assert server.request("GET", "/v2/health/live")[0] == 200
    assert server.post(PATH, GOOD)[0] == 200, "who has not heard of it is still answered"
    for client in clients:
        client.join(LONGEST)
        assert client.fault is None
        assert client.farewell
        assert set(client.statuses) == {200}
    assert server.wait() == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("lane", ["--fast-lane", "--no-fast-lane"])
def test_half_a_request_is_answered_when_the_server_goes_down(start, lane):
    server = start(lane, "--drain-seconds", "0.2", "--grace-seconds", "5")
    with socket.create_connection(("127.0.0.1", server.http_port), LONGEST) as stream:
        whole = plain(PATH, GOOD)
        stream.sendall(whole[:-10])
        server.answers(whole)
        server.terminate()
        time.sleep(0.6)  # it closes its idle connections meanwhile
        stream.sendall(whole[-10:])
        ((status, headers, _),) = split(receive(stream))
        assert (status, headers["connection"]) == (200, "close")
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def test_a_client_that_hangs_does_not_keep_the_server(start):
    server = start("--grace-seconds", "1")
    with socket.create_connection(("127.0.0.1", server.http_port), LONGEST) as stream:
        stream.sendall(plain(PATH, GOOD)[:-10])
        server.answers(plain(PATH, GOOD))
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
        client.join(LONGEST)
        assert set(client.statuses) == {200}
    again = start(http_port=port, place="again")
    assert again.http_port == port
    status, _, told = again.post(PATH, GOOD)
    assert status == 200
    assert b"next_throughput_mbps" in told
    assert again.stop() == 0


@pytest.mark.parametrize("which", ["http", "grpc"])
def test_a_port_in_use_is_one_sentence(start, server, which):
    port = {"http": server.http_port, "grpc": server.grpc_port}[which]
    with pytest.raises(AssertionError, match="the server did not start") as failed:
        start(f"--{which}_port", str(port))
    text = str(failed.value)
    (sentence,) = [line for line in text.splitlines() if line.startswith("dwcp-ml: ")]
    assert f"port {port} of 127.0.0.1 can't be listened to" in sentence
    assert "Traceback" not in text
    assert "ready on" not in text
    assert server.post(PATH, GOOD)[0] == 200


def test_predictions_are_logged(start, tmp_path):
    directory = tmp_path / "predictions"
    server = start("--log-predictions", str(directory))
    headers = {"X-Request-Id": "r1", "X-DWCP-Link": "n1/n2", "X-DWCP-Observed-At": "1760000000.5"}
    rows = rows_for(NAME, 2)
    body = {"instances": rows.astype(float).tolist()}
    status, _, told = server.post(PATH, body, headers)
    assert status == 200
    server.post(PATH, {"instances": []}, {"X-Request-Id": "refused"})
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
    predictions = json.loads(told)["predictions"]
    for row, record, prediction in zip(rows, (first, second), predictions, strict=True):
        assert record.inputs.tolist() == row.tolist()
        assert record.outputs["next_throughput_mbps"] == pytest.approx(
            prediction["next_throughput_mbps"]
        )
    assert not list(Path(directory).glob("*.part")), "finished when the server went down"
