"""The server under floods: other clients are answered throughout, and no memory is lost.

Each flood is one that has brought down servers of HTTP. What is sent is bounded, a thousand
requests or some megabytes; it must not stop other clients, and its second time must take no more
memory than the first. The kernel limits the server's memory to that of its pod, where it lets this
user do so.
"""

import contextlib
import gzip
import json
import resource
import selectors
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.serving import http2
from tests.serving.bundles import rows_for
from tests.serving.flooding import LIVE, SLOWEST_SECONDS, Flooded, closes, pour
from tests.serving.http2 import CONTINUATION, END_HEADERS, END_STREAM, Closed, frame
from tests.serving.running import TIMEOUT_SECONDS, plain, receive, split
from tests.serving.wire import BODY, PATH

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(300)]

THOUSAND = 1000
MOST_BODY = 8 << 20
BODIES = 75
MOST_HELD_MB = 256.0
"""What bodies that have not arrived whole may take together; ``BODIES`` of them are 600 MB."""

LARGE_NAME = "compression_selector"
LARGE_PATH = f"/v1/models/{LARGE_NAME}:predict"
LARGE = json.dumps({"instances": rows_for(LARGE_NAME, 1000).astype(float).tolist()}).encode()
"""Its response is some 250 KB."""


@pytest.fixture(scope="module", autouse=True)
def enough_descriptors():
    """This process opens more than a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this user may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def flooded(model_dir, tmp_path_factory):
    running = Flooded(model_dir, tmp_path_factory.mktemp("flooded"))
    try:
        yield running
    finally:
        running.close()


# HTTP/1.1


@pytest.mark.parametrize("share", [0.1, 0.6], ids=["in the head", "in the body"])
def test_a_thousand_half_sent_requests(flooded, share):
    whole = plain(PATH, BODY + b" " * 2000)
    half = whole[: int(share * len(whole))]

    def flood(witness):
        with contextlib.ExitStack() as stack:
            for _ in range(THOUSAND):
                stack.enter_context(flooded.connect()).sendall(half)
            witness.sees(10)

    flooded.withstands(flood)


def test_a_thousand_pipelined_requests_are_answered_in_order(flooded):
    requests = b"".join(plain(PATH, BODY, [("X-Request-Id", f"r{n}")]) for n in range(THOUSAND))

    def flood(witness):
        with flooded.connect() as stream:
            sender = threading.Thread(target=pour, args=(stream, requests, 1, TIMEOUT_SECONDS))
            sender.start()
            with stream.makefile("rb") as received:
                responses = [read_response(received) for _ in range(THOUSAND)]
            sender.join()
        assert responses == [(200, f"r{n}") for n in range(THOUSAND)]

    flooded.withstands(flood)


def read_response(received):
    """Return status and identifier of the next response."""
    status = int(received.readline().split()[1])
    headers = dict(
        iter(lambda: received.readline().lower().rstrip().partition(b": ")[::2], (b"", b""))
    )
    received.read(int(headers[b"content-length"]))
    return status, headers[b"x-request-id"].decode()


def test_clients_that_do_not_read_their_responses(flooded):
    """Each pipelines 100 requests whose responses are 25 MB in all, and reads nothing."""
    request = plain(LARGE_PATH, LARGE)

    def flood(witness):
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(flooded.connect(4096)) for _ in range(40)]
            senders = [
                threading.Thread(target=pour, args=(stream, request, 100)) for stream in streams
            ]
            for sender in senders:
                sender.start()
            witness.sees(5)
            for sender in senders:
                sender.join(60.0)
            witness.sees(10)

    flooded.withstands(flood)


# HTTP/2


def test_streams_that_are_half_sent(flooded):
    def flood(witness):
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(flooded.http2())
                with contextlib.suppress(Closed):
                    for _ in range(50):
                        number = client.start("POST", PATH, ("content-length", "4000"), end=False)
                        client.send(frame(http2.DATA, 0, number, b" " * 1000))
            witness.sees(10)

    flooded.withstands(flood)


@pytest.mark.parametrize("body", [False, True], ids=["no body", "body"])
def test_rapid_reset(flooded, body):
    """CVE-2023-44487: requests are started and reset at once, beside the limit of streams."""
    cancel = struct.pack(">I", http2.CANCEL)

    def flood(witness):
        left = 20 * THOUSAND
        for _ in range(200):
            with flooded.http2() as client, contextlib.suppress(Closed):
                while left > 0:
                    batch = []
                    for number in range(client.next, client.next + 200, 2):
                        batch += _request(number, body)
                        batch.append(frame(http2.RST_STREAM, 0, number, cancel))
                    client.next += 200
                    left -= 100
                    client.send(*batch)
            if left <= 0:
                break
            left -= 100  # the server has closed the connection: another one

    flooded.withstands(flood)


def _request(number, body):
    head = http2.head("POST", PATH, ("content-length", str(len(BODY))))
    frames = [frame(http2.HEADERS, END_HEADERS | (0 if body else END_STREAM), number, head)]
    if not body:
        head = http2.head("GET", LIVE)
        frames = [frame(http2.HEADERS, END_HEADERS | END_STREAM, number, head)]
    return [*frames, frame(http2.DATA, END_STREAM, number, BODY)] if body else frames


def test_a_head_that_never_ends(flooded):
    """CVE-2024-27316 and others: CONTINUATION frames without END_HEADERS, up to 64 MB."""
    more = http2.hpack([(f"x-{n}", "x" * 1000) for n in range(16)])[: http2.FRAME_BYTES]

    def flood(witness):
        for _ in range(5):
            with flooded.http2() as client:
                begin = frame(http2.HEADERS, 0, 1, http2.head("GET", LIVE))
                client.send(begin)
                sent = pour(client.stream, frame(CONTINUATION, 0, 1, more), 4096)
                assert sent < 1024, "the server reads 16 MB of a head"
                assert closes(client.stream), "the server keeps the connection"

    flooded.withstands(flood)


@pytest.mark.parametrize("payload", [b"", b"\x00" * 8], ids=["no payload", "payload"])
def test_continuations_that_bring_nothing(flooded, payload):
    """The same without any bytes that a limit of bytes would count."""

    def flood(witness):
        for _ in range(3):
            with flooded.http2() as client:
                client.send(frame(http2.HEADERS, 0, 1, http2.head("GET", LIVE)))
                pour(client.stream, frame(CONTINUATION, 0, 1, payload) * 1000, 500)

    flooded.withstands(flood)


@pytest.mark.parametrize(
    "wave",
    [
        http2.settings(INITIAL_WINDOW_SIZE=65_535),
        http2.settings(),
        frame(http2.PING, payload=b"12345678"),
        frame(http2.PRIORITY, 0, 1, struct.pack(">IB", 3, 16)),
        frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        frame(99, 0, 0, b"unknown"),
    ],
    ids=["SETTINGS", "empty SETTINGS", "PING", "PRIORITY", "WINDOW_UPDATE", "unknown frames"],
)
def test_frames_that_cost_nothing_to_send(flooded, wave):
    """CVE-2019-9512, 9515 and others: 200,000 frames, none of whose answers is read."""

    def flood(witness):
        for _ in range(2):
            with flooded.http2() as client:
                pour(client.stream, wave * 1000, 100)
                witness.sees(3)

    flooded.withstands(flood)


def test_data_frames_that_are_empty(flooded):
    """CVE-2019-9518: they take nothing of the window and never end."""

    def flood(witness):
        for target in (PATH, LIVE):
            with flooded.http2() as client:
                number = client.start("POST", target, end=False)
                pour(client.stream, frame(http2.DATA, 0, number) * 1000, 200)
                witness.sees(3)

    flooded.withstands(flood)


def test_streams_whose_window_stays_closed(flooded):
    """CVE-2019-9517: responses of 250 KB are asked for and none is taken."""

    def flood(witness):
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                client = stack.enter_context(flooded.http2(INITIAL_WINDOW_SIZE=0))
                for _ in range(50):
                    number = client.start("POST", LARGE_PATH, end=False)
                    client.upload(number, LARGE)
            witness.sees(10)

    flooded.withstands(flood)


# Bodies


def gzipped(content):
    return gzip.compress(content, 9, mtime=0)


@pytest.mark.parametrize("megabytes", [7.0, 8.1, 100.0])
def test_a_gzip_bomb_is_rejected_without_being_unpacked(flooded, megabytes):
    packed = gzipped(b" " * int(megabytes * (1 << 20)))
    assert megabytes * (1 << 20) / len(packed) > 1000
    used, calls = flooded.processor_seconds(), 5
    for _ in range(calls):
        status, _, _ = flooded.server.post(PATH, packed, {"Content-Encoding": "gzip"})
        assert status in (400, 413)
    assert used() / calls < 0.2


def test_a_flood_of_gzip_bombs(flooded):
    packed = plain(PATH, gzipped(b" " * (100 << 20)), [("Content-Encoding", "gzip")])

    def flood(witness):
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(flooded.connect()) for _ in range(100)]
            for stream in streams:
                stream.sendall(packed)
            for stream in streams:
                ((status, _, _),) = split(receive(stream, 1))
                assert status in (400, 413, 503)

    flooded.withstands(flood)


def test_packed_bodies_do_not_block_other_requests(flooded):
    """Real numbers, 2 MB of text in 1 MB, of sixteen clients at once."""
    rows = rows_for(LARGE_NAME, 4096, seed=5).astype(float)
    content = json.dumps({"instances": (rows / 7).tolist()}).encode()
    packed = plain(LARGE_PATH, gzipped(content), [("Content-Encoding", "gzip")])

    def flood(witness):
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(flooded.connect()) for _ in range(16)]
            for stream in streams:
                stream.sendall(packed)
            witness.sees(5)
            statuses = [split(receive(stream, 1))[0][0] for stream in streams]
        assert set(statuses) <= {200, 503}
        assert 200 in statuses

    flooded.withstands(flood)


class Uploads:
    """Bodies of 8 MB that are sent at the same time, each without its last byte at first."""

    def __init__(self, flooded, number):
        content = b" " * (MOST_BODY - len(BODY)) + BODY
        self._head = plain(PATH, content)[: -len(content)]
        self._content = memoryview(content)
        self._left = {}
        self.answered = {}
        self._selector = selectors.DefaultSelector()
        self._streams = contextlib.ExitStack()
        for _ in range(number):
            stream = self._streams.enter_context(flooded.connect())
            stream.sendall(self._head)
            stream.setblocking(False)
            self._left[stream] = self._content[:-1]
            self._selector.register(
                stream, selectors.EVENT_READ | selectors.EVENT_WRITE, bytearray()
            )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._selector.close()
        self._streams.close()

    def run(self, seconds=30.0, quiet_seconds=0.5):
        """Send and receive until nothing moves for that long, or each has a response."""
        ends, moved = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < min(ends, moved + quiet_seconds):
            if len(self.answered) == len(self._left):
                return
            for key, events in self._selector.select(0.1):
                if self._move(key.fileobj, key.data, events):
                    moved = time.monotonic()

    def _move(self, stream, received, events):
        try:
            if events & selectors.EVENT_READ:
                part = stream.recv(1 << 16)
                received += part
                if not part or split(bytes(received)):
                    self._done(stream, received)
                return True
            left = self._left[stream]
            self._left[stream] = left[stream.send(left[: 1 << 18]) :]
            if not self._left[stream]:
                self._selector.modify(stream, selectors.EVENT_READ, received)
        except BlockingIOError:
            return False
        except OSError:
            self._done(stream, received)
        return True

    def _done(self, stream, received):
        responses = split(bytes(received))
        self.answered[stream] = responses[0][0] if responses else None
        self._selector.unregister(stream)

    def finish(self):
        """Send the rest of those that have no response yet, and take all responses."""
        for stream in self._left:
            if stream not in self.answered:
                self._left[stream] = self._content[
                    len(self._content) - len(self._left[stream]) - 1 :
                ]
                events = selectors.EVENT_READ | selectors.EVENT_WRITE
                key = self._selector.get_key(stream)
                self._selector.modify(stream, events, key.data)
        self.run(quiet_seconds=TIMEOUT_SECONDS)


def test_bodies_in_flight_are_bounded_over_all_connections(flooded):
    """75 of 8 MB are 600 MB, most of what the pod has: beyond a bound, 503."""
    peaks = []

    def flood(witness):
        before = flooded.memory_mb()
        with Uploads(flooded, BODIES) as uploads:
            uploads.run()
            peaks.append(flooded.memory_mb() - before)
            witness.sees(5)
            uploads.finish()
            peaks.append(flooded.memory_mb() - before)
        statuses = list(uploads.answered.values())
        assert len(statuses) == BODIES, "each gets a response"
        assert set(statuses) <= {200, 503, None}
        assert statuses.count(200) > 0
        assert statuses.count(503) > 0
        assert statuses.count(None) <= statuses.count(503), "closed before it was read"

    flooded.withstands(flood)
    assert max(peaks) < MOST_HELD_MB, peaks


def test_bodies_in_flight_over_http2_are_bounded_too(flooded):
    content = memoryview(b" " * (MOST_BODY - len(BODY)) + BODY)

    def upload(_):
        with flooded.http2() as client:
            number = client.start("POST", PATH, ("content-length", str(MOST_BODY)), end=False)
            client.upload(number, content)
            client.take(lambda: client.is_over(number), 60.0)
            return client.statuses[number]

    peaks = []

    def flood(witness):
        before = flooded.memory_mb()
        with ThreadPoolExecutor(BODIES) as pool:
            calls = [pool.submit(upload, n) for n in range(BODIES)]
            while not all(call.done() for call in calls):
                peaks.append(flooded.memory_mb() - before)
                time.sleep(0.2)
        statuses = [call.result() for call in calls]
        assert set(statuses) <= {200, 503}
        assert 200 in statuses

    flooded.withstands(flood)
    assert max(peaks) < MOST_HELD_MB


def test_the_server_serves_as_before_after_all_floods(flooded):
    for number in range(100):
        status, _, content = flooded.server.post(PATH, BODY)
        assert status == 200, number
        assert json.loads(content)["predictions"]
    started = time.monotonic()
    assert flooded.server.request("GET", "/v2/health/ready")[0] == 200
    assert time.monotonic() - started < SLOWEST_SECONDS
