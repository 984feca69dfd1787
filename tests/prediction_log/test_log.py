"""An offer never delays or fails a request; the log is complete, bounded and readable."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.prediction_log import segments
from dwcp_ml.prediction_log.log import PredictionLog, is_sampled, read_log
from tests.errors import about

pytestmark = pytest.mark.slow

INPUTS = np.arange(70, dtype=np.float32).reshape(1, 10, 7) / 3
OUTPUTS = {"next_throughput_mbps": np.array([12.5], np.float32)}


def offer(log, request_id="r", *, inputs=INPUTS, outputs=OUTPUTS, link="a/b", observed_at=5.0):
    log.offer(
        "bandwidth_predictor", "1", "d" * 64, request_id, link, observed_at, inputs, outputs,
        protocol="v1",
    )  # fmt: skip


def total_size(directory):
    return sum(path.stat().st_size for path in directory.iterdir())


def test_a_record_comes_back_as_it_was(tmp_path):
    log = PredictionLog(tmp_path, clock=lambda: 1234.5)
    two = np.concatenate([INPUTS, INPUTS + 1])
    outputs = {
        "anomaly_score": np.array([0.1, np.nan], np.float32),
        "is_anomaly": np.array([True, False]),
        "probabilities": np.array([[0.25, 0.75], [1.0, np.inf]], np.float32),
        "compression_level": np.array([3, 9]),
    }
    offer(log, "ü-1", inputs=two, outputs=outputs)
    offer(log, "r-2", link=None, observed_at=None)
    log.close(30)
    first, second, third = read_log(tmp_path)
    assert (first.model, first.version, first.digest) == ("bandwidth_predictor", "1", "d" * 64)
    assert (first.request_id, first.row, second.row, third.row) == ("ü-1", 0, 1, 0)
    assert (first.link, first.observed_at, first.received_at) == ("a/b", 5.0, 1234.5)
    assert (first.moment, first.protocol) == (5.0, "v1")
    assert first.inputs.dtype == np.float32
    np.testing.assert_array_equal(first.inputs, two[0])
    np.testing.assert_array_equal(second.inputs, two[1])
    assert first.outputs["is_anomaly"] is True
    assert first.outputs["compression_level"] == 3
    assert first.outputs["probabilities"] == [0.25, 0.75]
    assert np.float32(first.outputs["anomaly_score"]) == np.float32(0.1)
    assert np.isnan(second.outputs["anomaly_score"])
    assert np.isnan(second.outputs["probabilities"][1])
    assert (third.link, third.observed_at, third.moment) == (None, None, 1234.5)
    assert (log.written, log.dropped) == (3, 0)


def test_only_a_finished_segment_has_a_final_name(tmp_path):
    log = PredictionLog(tmp_path)
    offer(log)
    while not log.written:
        threading.Event().wait(0.01)
    assert [path.name.endswith(".jsonl.part") for path in segments.segments(tmp_path)] == [True]
    assert len(list(read_log(tmp_path))) == 1, "what is being written can be read"
    log.close(30)
    (path,) = segments.segments(tmp_path)
    assert path.suffix == ".jsonl"
    assert path.stat().st_mode & 0o777 == 0o640
    header, line = path.read_text().splitlines()
    assert json.loads(header) == {"format": "dwcp-prediction-log", "schema_version": 1}
    assert json.loads(line)["inputs"][0][1] == pytest.approx(1 / 3)


def test_the_server_may_reuse_its_buffers(tmp_path):
    log = PredictionLog(tmp_path)
    inputs, outputs = INPUTS.copy(), {"next_throughput_mbps": np.array([1.0], np.float32)}
    offer(log, inputs=inputs, outputs=outputs)
    inputs[:] = -1
    outputs["next_throughput_mbps"][:] = -1
    log.close(30)
    (record,) = read_log(tmp_path)
    np.testing.assert_array_equal(record.inputs, INPUTS[0])
    assert record.outputs == {"next_throughput_mbps": 1.0}


@given(st.text(max_size=20), st.floats(0, 1))
def test_the_sample_is_the_same_everywhere_and_grows_with_the_share(request_id, share):
    assert is_sampled(request_id, share) == is_sampled(str(request_id), share)
    assert is_sampled(request_id, 1.0)
    assert not is_sampled(request_id, 0.0)
    if is_sampled(request_id, share):
        assert is_sampled(request_id, min(1.0, share + 0.1))


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_sample_has_its_share(share):
    n = 20_000
    taken = sum(is_sampled(f"request-{i}", share) for i in range(n))
    assert abs(taken - n * share) < 5 * (n * share * (1 - share)) ** 0.5


def test_the_sample_is_the_same_in_every_version_of_this_project():
    """Pinned: a rollout compares servers of two versions."""
    assert [i for i in range(20) if is_sampled(f"request-{i}", 0.25)] == [0, 13]


def test_stable_and_candidate_log_the_same_requests(tmp_path):
    logs = [PredictionLog(tmp_path / name, sample=0.3) for name in ("stable", "candidate")]
    for i in range(300):
        for log in logs:
            offer(log, f"r{i}")
    for log in logs:
        log.close(30)
    ours, theirs = ([r.request_id for r in read_log(tmp_path / n)] for n in ("stable", "candidate"))
    assert ours == theirs
    assert 0 < len(ours) < 300
    assert logs[0].dropped == 0, "what is not in the sample is not dropped"


def block_writes(monkeypatch):
    """Make every write wait until the returned event is set."""
    go, usual = threading.Event(), segments.LogSegment.append

    def append(self, content):
        go.wait(60)
        usual(self, content)

    monkeypatch.setattr(segments.LogSegment, "append", append)
    return go


def test_a_full_queue_drops_and_counts(tmp_path, monkeypatch):
    go = block_writes(monkeypatch)
    log = PredictionLog(tmp_path, queue_length=10)
    for i in range(100):
        offer(log, f"r{i}")
    # What the writer dequeued before it was blocked left space for the same number.
    assert 100 - 2 * 16 - 10 <= log.dropped <= 90
    go.set()
    log.close(30)
    assert log.written + log.dropped == 100
    assert len(list(read_log(tmp_path))) == log.written


def test_a_request_is_queued_whole_or_not_at_all(tmp_path):
    log = PredictionLog(tmp_path, queue_length=10)
    outputs = {"next_throughput_mbps": np.zeros(11, np.float32)}
    offer(log, inputs=np.repeat(INPUTS, 11, axis=0), outputs=outputs)
    assert log.dropped == 11
    offer(log, inputs=np.repeat(INPUTS, 10, axis=0), outputs=outputs)
    log.close(30)
    assert (log.written, log.dropped) == (10, 11)


def test_close_keeps_its_deadline_and_counts_what_is_left(tmp_path, monkeypatch):
    go = block_writes(monkeypatch)
    log = PredictionLog(tmp_path)
    for i in range(100):
        offer(log, f"r{i}")
    log.close(0.3)
    assert log._thread.is_alive()
    go.set()
    log._thread.join(30)
    assert log.written + log.dropped == 100
    assert log.dropped > 0
    offer(log)
    assert log.written + log.dropped == 101, "a closed log drops"
    log.close(1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": 3.0},
        {"outputs": None},
        {"request_id": None},
        {"outputs": {"x": np.array([object()])}},
        {"outputs": {"x": np.zeros(0)}},
        {"observed_at": object()},
        {"request_id": "\ud800"},
    ],
    ids=[
        "inputs a number",
        "outputs none",
        "id none",
        "output an object",
        "output empty",
        "time an object",
        "id a surrogate",
    ],
)
def test_an_offer_never_raises(tmp_path, wrong, caplog):
    log = PredictionLog(tmp_path, sample=0.999999)
    offer(log, **wrong)
    offer(log, "good")
    log.close(30)
    assert (log.written, log.dropped) == (1, 1)
    assert [record.request_id for record in read_log(tmp_path)] == ["good"]


def test_a_long_name_is_cut(tmp_path):
    log = PredictionLog(tmp_path)
    offer(log, "i" * 10_000, link="l" * 10_000)
    log.close(30)
    (record,) = read_log(tmp_path)
    assert (len(record.request_id), len(record.link)) == (256, 256)


def test_the_directory_is_bounded_and_keeps_the_newest(tmp_path):
    log = PredictionLog(tmp_path, max_bytes=100_000, queue_length=100_000)
    for i in range(2_000):
        offer(log, f"r{i}")
    log.close(60)
    assert log.written == 2_000
    assert log.removed_segments > 0
    assert total_size(tmp_path) <= 100_000
    kept = [int(record.request_id[1:]) for record in read_log(tmp_path)]
    assert len(kept) > 50
    assert kept == list(range(2_000 - len(kept), 2_000))


def test_a_record_larger_than_a_segment_is_dropped_alone(tmp_path):
    log = PredictionLog(tmp_path, max_bytes=100_000)
    offer(log, "large", outputs={"x": np.zeros((1, 10_000))})
    offer(log, "small")
    log.close(30)
    assert (log.written, log.dropped) == (1, 1)
    assert [record.request_id for record in read_log(tmp_path)] == ["small"]


def test_an_old_segment_is_finished(tmp_path):
    log = PredictionLog(tmp_path, segment_seconds=0.0)
    offer(log)
    while not any(path.suffix == ".jsonl" for path in segments.segments(tmp_path)):
        threading.Event().wait(0.01)
    offer(log, "later")
    log.close(30)
    assert len(segments.segments(tmp_path)) == 2
    assert [record.request_id for record in read_log(tmp_path)] == ["r", "later"]


def test_a_full_disk_is_counted_and_logged_once_and_recovered_from(tmp_path, monkeypatch, caplog):
    full, usual = threading.Event(), os.write

    def write(file, content):
        if full.is_set():
            if len(content) > 10:
                return usual(file, content[:10])  # the last bytes that fit
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(file, content)

    log = PredictionLog(tmp_path)
    monkeypatch.setattr(segments.os, "write", write)
    with caplog.at_level(logging.WARNING):
        offer(log, "before")
        while log.written < 1:
            threading.Event().wait(0.01)
        for round_ in (1, 2):
            full.set()
            offer(log, f"during {round_}")
            while log.dropped < round_:
                threading.Event().wait(0.01)
            full.clear()
        offer(log, "after")
        log.close(30)
    assert (log.written, log.dropped) == (2, 2)
    assert [record.request_id for record in read_log(tmp_path)] == ["before", "after"]
    (warning,) = caplog.records
    assert "no space left on device" in warning.getMessage()


def test_a_directory_that_vanishes_comes_back(tmp_path):
    log = PredictionLog(tmp_path / "log", segment_seconds=0.0)
    (tmp_path / "log").rmdir()
    offer(log)
    log.close(30)
    assert len(list(read_log(tmp_path / "log"))) == 1


@pytest.mark.parametrize(
    "wrong", [{"sample": 1.5}, {"sample": -0.1}, {"max_bytes": 10}, {"queue_length": 0}], ids=str
)
def test_parameters_have_ranges(tmp_path, wrong):
    with pytest.raises(UsageError, match="prediction log"):
        PredictionLog(tmp_path, **wrong)


def test_a_directory_that_cannot_be_written_is_rejected_at_once(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "log")):
        PredictionLog(tmp_path / "file" / "log")


WRITER = """
import sys, itertools, numpy as np
from pathlib import Path
from dwcp_ml.prediction_log.log import PredictionLog
log = PredictionLog(Path(sys.argv[1]), queue_length=1000, max_bytes=int(sys.argv[3]))
x, y = np.ones((1, 10, 7), np.float32), {"next_throughput_mbps": np.ones(1, np.float32)}
for i in itertools.count():
    before = log.written
    log.offer("bandwidth_predictor", "1", "d", f"{sys.argv[2]}-{i}", "a/b", 1.0, x, y)
    if i % 200 == 0:
        while log.written <= before and i:
            pass
        print(log.written, flush=True)
"""


def start_writer(directory, name, max_bytes=10_000_000):
    words = [sys.executable, "-c", WRITER, str(directory), name, str(max_bytes)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def kill_after(process, records):
    """Wait until a writer reports ``records`` records, kill it, and return its last report."""
    reported = 0
    while reported < records:
        reported = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    last = [reported, *(int(line) for line in process.stdout if line.endswith("\n"))]
    process.wait()
    process.stdout.close()
    return max(last)


def test_a_killed_writer_loses_nothing_that_it_wrote(tmp_path):
    reported = kill_after(start_writer(tmp_path, "w"), 2_000)
    assert any(path.name.endswith(".part") for path in segments.segments(tmp_path))
    numbers = [int(record.request_id[2:]) for record in read_log(tmp_path)]
    assert len(numbers) >= reported
    assert numbers == sorted(set(numbers))
    # The next server finishes what the killed one left.
    log = PredictionLog(tmp_path)
    offer(log, "w-10000000")
    log.close(30)
    assert all(path.suffix == ".jsonl" for path in segments.segments(tmp_path))
    again = [int(record.request_id[2:]) for record in read_log(tmp_path)]
    assert sorted(again) == [*numbers, 10_000_000]


def test_servers_share_a_directory_and_its_bound(tmp_path):
    writers = [start_writer(tmp_path, name, 400_000) for name in ("one", "two")]
    for writer in writers:
        kill_after(writer, 1_000)
    names = {record.request_id.split("-")[0] for record in read_log(tmp_path)}
    assert names <= {"one", "two"}
    assert names
    assert total_size(tmp_path) <= 400_000


def test_a_writer_that_lives_keeps_its_segment(tmp_path):
    first, second = PredictionLog(tmp_path), PredictionLog(tmp_path)
    offer(first, "1")
    while not first.written:
        threading.Event().wait(0.01)
    offer(second, "2")
    while not second.written:
        threading.Event().wait(0.01)
    parts = [path for path in segments.segments(tmp_path) if path.name.endswith(".part")]
    assert len(parts) == 2
    for log in (first, second):
        log.close(30)
    assert sorted(record.request_id for record in read_log(tmp_path)) == ["1", "2"]


def test_the_limit_of_a_file_cuts_no_line(tmp_path):
    """A real short write: the system ends the file in the middle of a line."""
    program = (
        "import resource, sys, numpy as np; from pathlib import Path\n"
        "from dwcp_ml.prediction_log.log import PredictionLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "log = PredictionLog(Path(sys.argv[1]))\n"
        "for i in range(100):\n"
        "    log.offer('m', '1', 'd', str(i), 'a', 1.0, np.ones((1, 70)), {'y': np.ones(1)})\n"
        "log.close(30); print(log.written, log.dropped)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    written, dropped = map(int, done.stdout.split())
    assert written + dropped == 100
    assert dropped > 0
    assert len(list(read_log(tmp_path))) == written
