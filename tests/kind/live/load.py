"""A constant load through the gateway, and the weights of the routes over time."""

import contextlib
import json
import math
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from scipy.stats import beta
from urllib3.exceptions import HTTPError

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.data.reading import load
from dwcp_ml.http_client import HttpError as NoAnswer
from dwcp_ml.local_rollout.replay import Replay, predict_requests
from dwcp_ml.simulate import SimulatorSettings, generate
from tests.cluster.rest import RequestRejected

HOST = f"{BANDWIDTH.kubernetes_name}-dwcp-ml.example.com"
"""What KServe calls the address of the model in Standard mode; the gateway routes by it."""

OUTPUT = BANDWIDTH.form().outputs[0].name
RATE = 200.0
_DAYS, _NODES, _SEED = 0.25, 4, 7
SETTLE_SECONDS = 2.0
"""After a change of the weights, before the split is compared with them."""

_POLL_SECONDS = 0.2
_CONFIDENCE = 1.0 - 1e-5


def telemetry(directory):
    """Simulate some hours of a small network; return the file."""
    path = Path(directory) / "telemetry.parquet"
    settings = SimulatorSettings(days=_DAYS, nodes=_NODES, seed=_SEED)
    generate(settings).frame.to_parquet(path, index=False)
    return path


@dataclass(frozen=True)
class Window:
    """A time in which the weights did not change.

    Parameters
    ----------
    percent
        The candidate's weight of 100.
    candidate, total
        Requests that the gateway routed to it, and all requests.
    """

    percent: int
    candidate: int
    total: int

    def interval(self):
        """Return the Clopper-Pearson interval of the candidate's share, percent."""
        tail = (1.0 - _CONFIDENCE) / 2.0
        hits, misses = self.candidate, self.total - self.candidate
        low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, misses + 1))
        high = 1.0 if misses == 0 else float(beta.ppf(1.0 - tail, hits + 1, misses))
        return 100.0 * low, 100.0 * high

    def agrees(self):
        low, high = self.interval()
        return low <= self.percent <= high


class Reporting(Replay):
    """A replay whose caller learns what came true, and reports it through the gateway."""

    BATCH = 20

    def __init__(self, address, spec, requests, rate, *, host, replayed):
        super().__init__(address, spec, requests, rate, host=host)
        self._feedback = f"http://{address}/v1/models/{spec.name}:feedback"
        self._outcomes, self._waiting, self.reported = next_throughput(replayed), [], 0

    def _receive(self, request, response):
        outcome = self._outcomes.get((request.link, round(request.observed_at)))
        if response.status != 200 or outcome is None:
            return
        (prediction,) = json.loads(response.body)["predictions"]
        version = response.headers["x-dwcp-model-version"]
        item = {"version": version, "prediction": prediction[OUTPUT], "outcome": outcome}
        with self._lock:
            self._waiting.append(item)
            if len(self._waiting) < self.BATCH:
                return
            batch, self._waiting = self._waiting, []
        body = json.dumps({"outcomes": batch}).encode()
        headers = {"Host": self._host, "Content-Type": "application/json"}
        with contextlib.suppress(NoAnswer):
            sent = self._http.request("POST", self._feedback, 10.0, headers=headers, body=body)
            with self._lock:
                self.reported += len(batch) if sent.status == 200 else 0


def next_throughput(replayed):
    """Return (link, seconds) -> the throughput of the link's next row."""
    frame = load(replayed, BANDWIDTH.needed_columns).sort_values("timestamp")
    following = frame.groupby(["node_id", "peer_id"])["throughput_mbps"].shift(-1)
    rows = zip(frame["node_id"], frame["peer_id"], frame["timestamp"], following, strict=True)
    return {
        (f"{node}/{peer}", round(time)): value
        for node, peer, time, value in rows
        if not math.isnan(value)  # the last row has none
    }


class Traffic:
    """Requests at a fixed rate, counted by the Service that responded and by status class.

    Parameters
    ----------
    directory
        The telemetry that is replayed is written there.
    service_of
        Returns the Service, given what Envoy reports of the upstream.
    host
        The model's address, to which they are sent.
    model
        The model.
    replayed
        Telemetry to replay; by default some hours are simulated.
    reporting
        Whether callers report what came true; then at a quarter of the rate.
    """

    def __init__(
        self, directory, service_of, host, model=BANDWIDTH, replayed=None, *, reporting=False
    ):
        replayed = replayed or telemetry(directory)
        requests = predict_requests(model, replayed)
        self._service_of = service_of
        address = os.environ["KIND_TEST_GATEWAY"]
        if reporting:
            self._replay = Reporting(
                address, model, requests, RATE / 4, host=host, replayed=replayed
            )
        else:
            self._replay = Replay(address, model, requests, RATE, host=host)

    def __enter__(self):
        self._replay.__enter__()
        return self

    def __exit__(self, *error):
        self._replay.__exit__(*error)

    @property
    def reported(self):
        """How many outcomes were reported and counted."""
        return self._replay.reported

    def responses(self):
        """Return (Service that responded, class of the status) -> requests."""
        counts = Counter()
        for (address, outcome), count in dict(self._replay.responses).items():
            counts[self._service_of(address), outcome] += count
        return counts

    @contextmanager
    def watched(self, weights):
        """Yield ``Watched``: requests, responses and weights while the block runs."""
        before, start = self.responses(), time.monotonic()
        watched = Watched()
        with Shares(weights, self) as watched.shares:
            yield watched
        watched.responses = self.responses() - before
        watched.rate = sum(watched.responses.values()) / (time.monotonic() - start)


class Watched:
    """What clients and the routes show of a rollout.

    Attributes
    ----------
    shares
        ``Shares``.
    responses
        (Service that responded, class of the status) -> requests.
    rate
        Of the responses, per second.
    """

    def failed(self):
        """Return those of ``responses`` that are not 2xx."""
        return {key: count for key, count in self.responses.items() if key[1] != "2xx"}

    def check(self, stable):
        """Compare every measured split with its weight, and the load with its rate.

        Returns
        -------
        list of Window
        """
        found = self.shares.windows(stable)
        print("\nweight -> requests to the candidate, and the interval of its share")
        for one in found:
            low, high = one.interval()
            print(f"  {one.percent:3d} %  {one.candidate} of {one.total}: {low:.2f}-{high:.2f} %")
        for (service, outcome), count in sorted(self.responses.items()):
            print(f"  {service} {outcome}: {count}")
        print(f"  {self.rate:.0f} responses per second")
        assert found, "no split was measured"
        assert [one for one in found if not one.agrees()] == []
        assert self.rate >= 0.75 * RATE, "the load was below its rate"
        return found


class Shares:
    """Polls the weights of a route, and the count of responses up to then.

    Parameters
    ----------
    weights
        Returns Service -> weight, or ``None`` where there is no route.
    traffic
        ``Traffic``.
    """

    def __init__(self, weights, traffic):
        self._weights, self._traffic = weights, traffic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._samples = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join(30.0)
        assert self._samples, "the weights were never read"

    def windows(self, stable):
        """Return a ``Window`` for each time between two changes of the weights.

        The requests in the second after a change are left out, and those after the last
        poll but one: the weights may have changed before the response.
        """
        found = []
        for weights, group in groupby(self._samples, key=lambda one: one[1]):
            samples = list(group)
            settled = [one for one in samples if one[0] - samples[0][0] >= SETTLE_SECONDS][:-1]
            if not weights or len(settled) < 2:
                continue
            counts = settled[-1][2] - settled[0][2]
            total = sum(counts.values())
            share = 100 * (sum(weights.values()) - weights.get(stable, 0)) / sum(weights.values())
            found.append(Window(round(share), total - counts[stable], total))
        return found

    def _run(self):
        while not self._over.wait(_POLL_SECONDS):
            try:
                weights = self._weights()
            except (
                HTTPError,
                RequestRejected,
            ):  # the API server restarts: what stood there still stands
                continue
            by = Counter()
            for (service, _), count in self._traffic.responses().items():
                by[service] += count
            self._samples.append((time.monotonic(), weights, by))
