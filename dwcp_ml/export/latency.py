"""The time of one prediction: one instance, ONNX Runtime, one thread.

It is wall time, so other processes on the machine add to it. It is therefore measured again before
a model is rejected, and a bare loop is timed in turn with the inferences: one that only reads the
clock until the median time of an inference has passed. What its 99th percentile exceeds that median
by is the machine's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import MAX_P99_MS
from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.records import LatencyAttempt

WARM_UP: Final = 200
CALLS: Final = 2_000
MIN_CALLS: Final = 100
"""A 99th percentile needs at least this many calls."""

ATTEMPTS: Final = 5
"""Maximum number of measurements; the first under the limit counts. A slow tail far above the limit
is in each, while other processes seldom disturb them all; near the limit chance decides."""

Clock = Callable[[], int]


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one inference of one instance, in milliseconds.

    They are those of the first attempt under the limit, else of the fastest one.
    """

    p50_ms: float
    p99_ms: float
    attempts: tuple[LatencyAttempt, ...]


def session(onnx_bytes: bytes) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session on one thread, as the server uses it.

    Raises
    ------
    ExportFailed
        If the runtime does not accept the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # errors; warnings about optimisations do not concern the user
    try:
        return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a family of pybind errors without a base
        reason = str(error).splitlines()[0]
        raise ExportFailed(
            f"ONNX Runtime does not load the graph: {reason}.",
            code=ErrorCode.MALFORMED,
            subject="graph",
        ) from error


def measure(
    onnx_bytes: bytes,
    inputs: NDArray[np.float32],
    *,
    limit_ms: float = MAX_P99_MS,
    calls: int = CALLS,
    seconds: float = 8.0,
    clock: Clock = time.perf_counter_ns,
) -> Latency:
    """Time inferences, one instance each, after a warm-up, until a measurement is under the limit.

    Parameters
    ----------
    inputs : float32 of shape (n, ...), n >= 1
        Real instances, which are used in turn.
    limit_ms
        A measurement whose 99th percentile is not under this is repeated, up to ``ATTEMPTS``.
    calls, seconds
        A measurement stops after ``calls`` calls or after ``seconds``, whichever comes first, but
        not before ``MIN_CALLS``.

    Raises
    ------
    ExportFailed
        If there is no instance.
    """
    if len(inputs) == 0:
        raise ExportFailed(
            "Latency can't be measured without an instance; provide a test split.",
            code=ErrorCode.NO_DATA,
        )
    run = session(onnx_bytes).run
    rows = [{"features": inputs[i : i + 1]} for i in range(min(len(inputs), 512))]
    usual = [_timed(partial(run, None, rows[i % len(rows)]), clock) for i in range(WARM_UP)]
    bare = partial(_wait, int(np.median(usual)), clock)
    attempts: list[LatencyAttempt] = []
    while len(attempts) < ATTEMPTS:
        attempts.append(_attempt(run, rows, bare, (max(calls, MIN_CALLS), seconds), clock))
        if attempts[-1].p99_ms < limit_ms or attempts[-1].p50_ms >= limit_ms:
            break  # half of all calls are no noise
    best = min(attempts, key=lambda each: each.p99_ms)
    return Latency(best.p50_ms, best.p99_ms, tuple(attempts))


def _attempt(
    run: Callable[..., Any],
    rows: Sequence[Mapping[str, Any]],
    bare: Callable[[], None],
    most: tuple[int, float],
    clock: Clock,
) -> LatencyAttempt:
    """Time inferences and bare loops in turn, up to a number of calls and of seconds."""
    calls, seconds = most
    times: list[tuple[int, int]] = []
    end = clock() + int(seconds * 1e9)
    while len(times) < calls and (len(times) < MIN_CALLS or clock() < end):
        inference = partial(run, None, rows[len(times) % len(rows)])
        times.append((_timed(inference, clock), _timed(bare, clock)))
    p50, p99 = np.percentile(times, [50, 99], axis=0) / 1e6
    return LatencyAttempt(
        p50_ms=float(p50[0]), p99_ms=float(p99[0]), bare_p99_ms=float(p99[1]), calls=len(times)
    )


def _timed(call: Callable[[], Any], clock: Clock) -> int:
    # A call begins with a new slice of the processor, as that of a server does, which has waited
    # for the request: on a busy machine a loop without pauses would be interrupted within calls.
    os.sched_yield()
    start = clock()
    call()
    return clock() - start


def _wait(nanoseconds: int, clock: Clock) -> None:
    end = clock() + nanoseconds
    while clock() < end:
        pass
