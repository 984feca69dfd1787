"""The telemetry of the month of ``bench_retraining``, what serves it, and the counters."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import Manifest
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.data.features import feature_matrix
from dwcp_ml.data.windows import cadences, window_rows
from dwcp_ml.rollout.observation import BucketCounts
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.sketches import FINE_BUCKETS, edges_between
from dwcp_ml.simulate import SimulatorSettings, simulate
from tests.operator.fake_servers import Fleet, Time
from tests.operator.memory_api import MemoryApi

Floats = NDArray[np.float64]

START: Final = datetime(2026, 3, 2, tzinfo=UTC)
DAY: Final = 86_400.0
HOUR: Final = 3600.0
REQUESTS_PER_SECOND: Final = 20.0
OUTPUT: Final = "next_throughput_mbps"

SHAPER, ROUTES = 10.5, 20.5
BAD_DAY: Final = 15
"""Days of the drifts and of the bad data, from 0."""


class Stream:
    """The telemetry of the month, and the live requests that it leads to.

    Parameters
    ----------
    directory
        Takes the files that runs are trained on, one a day.
    """

    def __init__(self, directory: Path, days: int) -> None:
        settings = SimulatorSettings(days=days, nodes=4, start=START.replace(tzinfo=None))
        simulate(settings, directory / "simulated")
        frame = pd.read_csv(directory / "simulated" / "telemetry.csv")
        seconds = self._epoch(frame)
        day = (seconds - START.timestamp()) / DAY
        sign = np.where(seconds // 60 % 2 == 0, 1.0, -1.0)
        shaped = np.where(day >= SHAPER, 1.0 + 0.12 * sign, 1.0)
        for column in ("throughput_mbps", "bytes_tx"):
            frame[column] = frame[column] * shaped
        frame["bytes_tx"] = frame["bytes_tx"].round().astype(np.int64)
        frame["rtt_ms"] *= np.where(day >= ROUTES, 2.2, 1.0)
        self._live(frame, seconds)
        bad = (np.floor(day) == BAD_DAY) & (np.arange(len(frame)) % 2 == 0)
        frame.loc[bad, "rtt_ms"] = -1.0
        self.address = directory / "telemetry"
        for date, rows in frame.groupby(frame["timestamp"].str[:10]):
            path = self.address / f"date={date}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            rows.to_parquet(path, index=False)

    @staticmethod
    def _epoch(frame: pd.DataFrame) -> Floats:
        moments = pd.to_datetime(frame["timestamp"], format="ISO8601", utc=True)
        seconds: Floats = moments.map(pd.Timestamp.timestamp).to_numpy(np.float64)
        return seconds

    def _live(self, frame: pd.DataFrame, seconds: Floats) -> None:
        """Make the requests: each window of ten steps, whose truth is the step after it."""
        order = np.lexsort((seconds, frame["peer_id"], frame["node_id"]))
        sorted_frame, times = frame.iloc[order].reset_index(drop=True), seconds[order]
        keys = sorted_frame["node_id"].astype(str) + "/" + sorted_frame["peer_id"].astype(str)
        series, _ = pd.factorize(keys)
        length = BANDWIDTH.window + 1
        whole = np.zeros(len(times), np.int8)
        windows = window_rows(times, series, whole, length, 2.5 * cadences(times, series))
        windows = windows[np.argsort(times[windows[:, -2]], kind="stable")]
        cells = feature_matrix(sorted_frame, BANDWIDTH.features)
        self.inputs = cells[windows[:, :-1]].reshape(-1, *BANDWIDTH.input.shape).astype(np.float32)
        self.truth = sorted_frame["throughput_mbps"].to_numpy(np.float64)[windows[:, -1]]
        self.times = times[windows[:, -2]]

    def between(self, start: float, end: float) -> slice:
        """Return the requests of a time, epoch seconds."""
        first, last = np.searchsorted(self.times, (start, end))
        return slice(int(first), int(last))


class Served:
    """One bundle that serves: its predictions for the whole month, and the losses of each."""

    def __init__(self, bundle: Path, stream: Stream, factor: float) -> None:
        model = ServedModel.load(bundle)
        self.manifest: Manifest = model.manifest
        self.digest, self.version = model.digest, model.version
        parts = [
            model.run(stream.inputs[start : start + 4096])[OUTPUT]
            for start in range(0, len(stream.inputs), 4096)
        ]
        self.predictions: Floats = np.concatenate(parts).astype(np.float64) * factor
        self.losses: Floats = np.abs(self.predictions / stream.truth - 1.0)


class LiveFleet(Fleet):
    """The fake servers, whose counters are made of real predictions for the live telemetry."""

    EDGES_OF: Final = np.array(edges_between(0.0, None, whole=False, buckets=FINE_BUCKETS))

    def __init__(self, api: MemoryApi, time: Time, stream: Stream) -> None:
        super().__init__(api, time, REQUESTS_PER_SECOND)
        self.stream = stream
        self.served: dict[str, Served] = {}
        self.hours: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.by_version: defaultdict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._counts: defaultdict[tuple[str, str], Floats] = defaultdict(
            lambda: np.zeros(len(self.EDGES_OF) + 1)
        )

    def pass_time(self, seconds: float) -> None:
        """Count the requests of the time that has passed, as they were routed."""
        super().pass_time(seconds)
        rows = self.stream.between(self.time.now - seconds, self.time.now)
        if rows.stop == rows.start:
            return
        hour = int((self.time.now - START.timestamp()) // HOUR)
        for digest, percent in self.routed().items():
            one = self.served[digest]
            requests = REQUESTS_PER_SECOND * seconds * percent / 100
            each = requests / (rows.stop - rows.start)
            for kind, values in (("p", one.predictions[rows]), ("l", one.losses[rows])):
                places = np.searchsorted(self.EDGES_OF, values)
                counts = self._counts[digest, kind]
                counts += each * np.bincount(places, minlength=len(counts))
            loss = each * float(one.losses[rows].sum())
            for total in (self.hours[hour], self.by_version[one.version, hour]):
                total[0] += requests
                total[1] += loss

    def _predictions(self, digest: str, requests: int) -> BucketCounts:
        return self._bucket_counts(digest, "p")

    def _losses(self, arm: str) -> dict[str, BucketCounts]:
        if arm != "stable":  # callers report through the gateway, here to the stable's replica
            return {}
        return {
            self.served[digest].version: self._bucket_counts(digest, "l")
            for digest, kind in list(self._counts)
            if kind == "l"
        }

    def _bucket_counts(self, digest: str, kind: str) -> BucketCounts:
        bounds = [f"{edge:g}" for edge in self.EDGES_OF] + ["+Inf"]
        counts = self._counts[digest, kind]
        filled = {name: int(count) for name, count in zip(bounds, counts, strict=True) if count}
        return BucketCounts(buckets=kind, counts=filled)
