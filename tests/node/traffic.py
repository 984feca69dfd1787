"""A load through the gateway all the time, and what the routes' weights were meanwhile."""

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from scipy.stats import beta
from urllib3.exceptions import HTTPError

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.local_rollout.replay import Replay, questions
from tests.cluster.rest import Refused
from tests.kind.traffic import telemetry
from tests.node.gateway import PORT
from tests.node.inside import HOST

RATE = 200.0
SETTLE_SECONDS = 2.0
"""After a change of the weights, before the split is held against them."""

_LOOK_SECONDS = 0.2
_CONFIDENCE = 1.0 - 1e-5


@dataclass(frozen=True)
class Stretch:
    """A time in which the weights stood still.

    Parameters
    ----------
    percent
        The candidate's weight of 100.
    candidate, total
        Requests that the gateway gave to it, and all.
    """

    percent: int
    candidate: int
    total: int

    def interval(self):
        """Return the bounds of the candidate's share that the counts leave (Clopper-Pearson)."""
        tail = (1.0 - _CONFIDENCE) / 2.0
        hits, misses = self.candidate, self.total - self.candidate
        low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, misses + 1))
        high = 1.0 if misses == 0 else float(beta.ppf(1.0 - tail, hits + 1, misses))
        return 100.0 * low, 100.0 * high

    def agrees(self):
        low, high = self.interval()
        return low <= self.percent <= high


class Traffic:
    """Requests at a fixed rate, each counted by who answered it and how.

    Parameters
    ----------
    directory
        Takes the telemetry that is replayed.
    service_of
        What Envoy says of who answered -> the Service.
    """

    def __init__(self, directory, service_of):
        asked = questions(BANDWIDTH, telemetry(directory))
        self._service_of = service_of
        self._replay = Replay(f"{HOST}:{PORT}", BANDWIDTH, asked, RATE)

    def __enter__(self):
        self._replay.__enter__()
        return self

    def __exit__(self, *error):
        self._replay.__exit__(*error)

    def answers(self):
        """Return (Service that answered, class of the status) -> requests."""
        found = Counter()
        for (address, outcome), count in dict(self._replay.answers).items():
            found[self._service_of(address), outcome] += count
        return found

    @contextmanager
    def watched(self, weights):
        """Yield ``Watched``: what is asked and answered while the block runs."""
        before, began = self.answers(), time.monotonic()
        watched = Watched()
        with Shares(weights, self) as watched.shares:
            yield watched
        watched.answers = self.answers() - before
        watched.rate = sum(watched.answers.values()) / (time.monotonic() - began)


class Watched:
    """What was seen of a rollout from outside.

    Attributes
    ----------
    shares
        ``Shares``.
    answers
        (Service that answered, class of the status) -> requests.
    rate
        Of the answers, for a second.
    """

    def failed(self):
        """Return those of ``answers`` that no user wants."""
        return {key: count for key, count in self.answers.items() if key[1] != "2xx"}

    def check(self, stable):
        """Hold every measured split against its weight, and the load against its rate.

        Returns
        -------
        list of Stretch
        """
        found = self.shares.stretches(stable)
        print("\nweight -> requests to the candidate, and what they leave of its share")
        for one in found:
            low, high = one.interval()
            print(f"  {one.percent:3d} %  {one.candidate} of {one.total}: {low:.2f}-{high:.2f} %")
        for (service, outcome), count in sorted(self.answers.items()):
            print(f"  {service} {outcome}: {count}")
        print(f"  {self.rate:.0f} answers a second")
        assert found, "no split was seen"
        assert [one for one in found if not one.agrees()] == []
        assert self.rate >= 0.75 * RATE, "the load was not what it was to be"
        return found


class Shares:
    """Reads the weights of a route again and again, and what was answered up to then.

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

    def stretches(self, stable):
        """Return a ``Stretch`` for each time between two changes of the weights.

        The requests in the second after a change are left out, and those after the last look but
        one: the weights may have changed before they were answered.
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
            found.append(Stretch(round(share), total - counts[stable], total))
        return found

    def _run(self):
        while not self._over.wait(_LOOK_SECONDS):
            try:
                weights = self._weights()
            except (HTTPError, Refused):  # the API server restarts: what stood there still stands
                continue
            by = Counter()
            for (service, _), count in self._traffic.answers().items():
                by[service] += count
            self._samples.append((time.monotonic(), weights, by))
