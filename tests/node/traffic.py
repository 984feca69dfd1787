"""A load through the gateway all the time, and what the routes' weights were meanwhile."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from scipy.stats import beta

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.stages.local_rollout.replay import Replay, questions
from tests.kind.traffic import telemetry
from tests.node.gateway import PORT
from tests.node.inside import HOST

RATE = 200.0
SETTLE_SECONDS = 1.0
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
    """

    def __init__(self, directory):
        asked = questions(BANDWIDTH, telemetry(directory))
        self._replay = Replay(f"{HOST}:{PORT}", BANDWIDTH, asked, RATE)

    def __enter__(self):
        self._replay.__enter__()
        return self

    def __exit__(self, *error):
        self._replay.__exit__(*error)

    def answers(self):
        """Return (Service that answered, class of the status) -> requests."""
        return Counter(dict(self._replay.answers))

    def by(self, service):
        """Return all that one Service answered."""
        return sum(count for (arm, _), count in self.answers().items() if arm == service)


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
            except Exception:  # the API server restarts: its weights stand where they stood
                continue
            by = Counter()
            for (service, _), count in self._traffic.answers().items():
                by[service] += count
            self._samples.append((time.monotonic(), weights, by))
