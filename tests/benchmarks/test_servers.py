"""The comparison of two servers: its arithmetic, its command line, and its load generator."""

import doctest
import itertools
import json
import os
import socket
import threading
import time

import numpy as np
import pytest

from benchmarks.bench_servers import arguments, requests_for
from benchmarks.servers import http_load, summary, usage
from benchmarks.servers.http_load import HttpLoad, post, whole
from benchmarks.servers.load import Job
from benchmarks.servers.measurement import LoadFailed, Window, poisson
from benchmarks.servers.summary import Case, Rounds
from benchmarks.servers.usage import TICK, Memory, Usage

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("module", [http_load, summary, usage])
def test_the_examples_hold(module):
    assert doctest.testmod(module).failed == 0


def test_exact_processor_time_is_used_unless_a_thread_has_ended():
    before = Usage(100, {1: 10_000_000, 2: 5_000_000}, 0.0)
    assert (
        Usage(101, {1: 12_000_000, 2: 6_000_000, 3: 500_000}, 0.0).seconds_since(before) == 0.0035
    )
    assert Usage(107, {1: 12_000_000}, 0.0).seconds_since(before) == pytest.approx(7 * TICK)
    uncounted = Usage(100, {}, 0.0)
    assert Usage(103, {}, 0.0).seconds_since(uncounted) == pytest.approx(3 * TICK)


def test_the_usage_of_this_process_is_what_it_burns():
    before, own = Usage.now(os.getpid()), time.process_time()
    while time.process_time() - own < 0.1:
        pass
    assert 0.09 < Usage.now(os.getpid()).seconds_since(before) < 1.0
    memory = Memory.now(os.getpid())
    assert 1 < memory.pss <= memory.rss < 100_000


def test_figures_are_those_of_a_request():
    window = Window(started=10.0)
    for number in range(1, 1001):
        window.record(200 if number > 3 else 503, number / 1e3, 12.0)
    figures = window.figures(Usage(0, {1: 1}, 5.0), Usage(0, {1: 500_000_001}, 6.2), 0.4)
    assert (figures["requests"], figures["errors"], figures["rps"]) == (1000, 3, 500.0)
    assert (figures["cpu_us"], figures["server_busy"]) == (500.0, 0.25)
    assert (figures["p50_ms"], figures["p99_ms"]) == pytest.approx((500.5, 990.01))
    assert figures["others_busy"] == pytest.approx((1.2 - 0.5 - 0.4) / 2.0)
    assert figures["load_busy"] == 0.2


def test_the_table_has_medians_spreads_and_the_ratios_of_each_round():
    rounds = Rounds(["this", "other"])
    case = Case("v1", "closed, 64", "CPU µs a request")
    for this, other in ((50.0, 100.0), (80.0, 200.0), (60.0, 120.0)):
        rounds.add("this", case, this)
        rounds.add("other", case, other)
    titles, _, row = rounds.table()
    assert titles.endswith("| this | other | this / other |")
    assert row.endswith("| 60 (50–80) | 120 (100–200) | 0.5 (0.4–0.5) |")
    assert rounds.median("other", case) == 120.0
    alone = Rounds(["this"])
    alone.add("this", case, 7.0)
    assert list(alone.table())[2].endswith("| CPU µs a request | 7 |")


def test_due_times_have_the_rate_and_can_be_repeated():
    gaps = list(itertools.islice(poisson(1000.0, 4), 5000))
    assert np.mean(gaps) == pytest.approx(1e-3, rel=0.1)
    assert gaps == list(itertools.islice(poisson(1000.0, 4), 5000))


@pytest.mark.parametrize("end", range(len(RESPONSE)))
def test_a_part_of_a_response_is_none(end):
    assert whole(RESPONSE[:end]) == (None, 0)


def test_a_response_ends_where_its_length_says():
    assert whole(RESPONSE + b"HTTP") == (200, len(RESPONSE))
    for wrong in (b"HTTP/1.1 200 OK\r\nx: 1\r\n\r\n", b"SSH-2.0\r\n\r\n"):
        with pytest.raises(LoadFailed):
            whole(wrong)


@pytest.mark.parametrize(
    "words",
    [
        ["--connections", "0"], ["--connections", "1,x"], ["--connections", ""],
        ["--protocols", "v3"], ["--rounds", "0"], ["--seconds", "-1"], ["--seconds", "nan"],
        ["--against", "/"], ["--models", "/nothing"], ["--model", "x"], ["--unknown"],
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_sentence_and_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        arguments(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("bench_servers: ")
    assert said.count("\n") == 1


def test_options_are_read():
    options = arguments(["--connections", "8,1", "--protocols", "grpc,v1", "--seconds", "0.5"])
    assert (options.connections, options.protocols) == ((8, 1), ("grpc", "v1"))
    assert (options.rounds, options.seconds, options.against) == (5, 0.5, None)


def test_a_job_survives_as_json():
    job = Job("v2-binary", "127.0.0.1", 1, 2, bytes(range(256)), 64, 3.0, rate=10.5)
    assert Job.from_json(job.to_json()) == job


def test_requests_of_every_http_protocol_hold_the_same_rows():
    requests = requests_for("compression_selector", 2, ("v1", "v2", "v2-binary"))
    bodies = {name: request.partition(b"\r\n\r\n")[2] for name, request in requests.items()}
    v1 = np.array(json.loads(bodies["v1"])["instances"], np.float32)
    v2 = json.loads(bodies["v2"])["inputs"][0]
    assert v1.shape == (2, 6)
    np.testing.assert_array_equal(v1.ravel(), np.array(v2["data"], np.float32))
    assert bodies["v2-binary"].endswith(v1.tobytes())
    assert all(f"Content-Length: {len(bodies[name])}\r\n".encode() in requests[name]
               for name in bodies)  # fmt: skip


class Responder:
    """A server on loopback that answers each request of a known length, in two parts."""

    def __init__(self, length, status=b"200 OK"):
        self.length, self.answered = length, 0
        self.response = RESPONSE.replace(b"200 OK", status)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = self._listening.getsockname()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with stream:
            while True:
                taken = 0
                while taken < self.length:
                    part = stream.recv(self.length - taken)
                    if not part:
                        return
                    taken += len(part)
                stream.sendall(self.response[:10])
                self.answered += 1
                stream.sendall(self.response[10:])

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(10.0)


@pytest.fixture
def respond():
    made = []

    def start(*arguments):
        made.append(Responder(*arguments))
        return made[-1]

    yield start
    for responder in made:
        responder.close()


@pytest.mark.parametrize("size", [10, 4 << 20], ids=["small", "larger than the buffers"])
def test_every_request_is_answered_once_and_counted(respond, size):
    request = post("x", "/", b"x" * size)
    responder = respond(len(request))
    with HttpLoad(responder.address, request, 3) as load:
        window = load.closed(0.2)
        assert window.good == len(window.latencies) == responder.answered
        assert min(window.latencies) > 0
        at_a_rate = load.open(poisson(50.0, 1), 0.4)
    assert at_a_rate.good + window.good == responder.answered
    assert 3 < at_a_rate.good < 60


def test_what_is_no_200_is_an_error(respond):
    request = post("x", "/", b"{}")
    with HttpLoad(respond(len(request), b"503 No").address, request, 1) as load:
        window = load.closed(0.05)
    assert window.good == 0
    assert len(window.latencies) > 0


def test_a_server_that_goes_away_fails_the_load():
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        HttpLoad(listening.getsockname(), b"x", 1) as load,
    ):
        listening.accept()[0].close()
        with pytest.raises((LoadFailed, OSError)):
            load.closed(0.1)
