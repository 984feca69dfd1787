"""How long one answer takes: one instance, ONNX Runtime, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ExportFailed

WARM_UP: Final = 200
CALLS: Final = 5_000
LEAST_CALLS: Final = 100
"""Below this a 99th percentile says nothing."""

ROUNDS: Final = 5
"""The calls are cut into so many stretches, and the least disturbed one counts: what else runs on
the machine can only add time, while a model with a slow tail has it in every stretch."""


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
    options.log_severity_level = 3  # errors; warnings about optimisations are not for a user
    try:
        return onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises a family of pybind errors without a base
        reason = str(error).splitlines()[0]
        raise ExportFailed(f"ONNX Runtime does not load the graph: {reason}.") from error


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
    onnx_bytes
        The graph.
    inputs : float32 of shape (n, ...), n >= 1
        Real instances; they are asked in turn.
    calls, seconds
        It stops after so many calls, or so many seconds of them, whichever comes first, but
        not before ``LEAST_CALLS``.
    rounds
        See ``ROUNDS``; fewer where a stretch would hold less than ``LEAST_CALLS``.
    clock
        Nanoseconds that never go back.

    Raises
    ------
    ExportFailed
        If there is no instance to ask about.
    """
    if len(inputs) == 0:
        raise ExportFailed("Latency can't be measured without an instance; name a test split.")
    run = session(onnx_bytes).run
    rows = [{"features": inputs[i : i + 1]} for i in range(min(len(inputs), 512))]
    for i in range(WARM_UP):
        run(None, rows[i % len(rows)])
    calls = max(calls, LEAST_CALLS)
    times = np.empty(calls)
    done = 0
    end = clock() + int(seconds * 1e9)
    while done < calls and (done < LEAST_CALLS or clock() < end):
        row = rows[done % len(rows)]
        start = clock()
        run(None, row)
        times[done] = clock() - start
        done += 1
    stretches = np.array_split(times[:done], max(1, min(rounds, done // LEAST_CALLS)))
    percentiles = [np.percentile(stretch, [50, 99]) / 1e6 for stretch in stretches]
    p50, p99 = min(percentiles, key=lambda pair: float(pair[1]))
    return Latency(float(p50), float(p99), done)
