"""The time of one prediction: one instance, ONNX Runtime, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode, ExportFailed

WARM_UP: Final = 200
CALLS: Final = 5_000
MIN_CALLS: Final = 100
"""A 99th percentile needs at least this many calls."""

ROUNDS: Final = 5
"""The calls are split into this many windows, and the fastest one counts: other processes on the
machine can only add time, while a model with a slow tail has it in every window."""


@dataclass(frozen=True)
class Latency:
    """Percentiles of the time of one inference of one instance, in milliseconds."""

    p50_ms: float
    p99_ms: float
    calls: int


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
    calls: int = CALLS,
    seconds: float = 20.0,
    rounds: int = ROUNDS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Latency:
    """Time ``calls`` inferences, one instance each, after a warm-up.

    Parameters
    ----------
    inputs : float32 of shape (n, ...), n >= 1
        Real instances, which are used in turn.
    calls, seconds
        It stops after ``calls`` calls or after ``seconds``, whichever comes first, but not
        before ``MIN_CALLS``.
    rounds
        See ``ROUNDS``; fewer where a window would hold less than ``MIN_CALLS``.

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
    for i in range(WARM_UP):
        run(None, rows[i % len(rows)])
    calls = max(calls, MIN_CALLS)
    times = np.empty(calls)
    done = 0
    end = clock() + int(seconds * 1e9)
    while done < calls and (done < MIN_CALLS or clock() < end):
        row = rows[done % len(rows)]
        start = clock()
        run(None, row)
        times[done] = clock() - start
        done += 1
    windows = np.array_split(times[:done], max(1, min(rounds, done // MIN_CALLS)))
    percentiles = [np.percentile(window, [50, 99]) / 1e6 for window in windows]
    p50, p99 = min(percentiles, key=lambda pair: float(pair[1]))
    return Latency(float(p50), float(p99), done)
