"""Telemetry as requests to one address, at a fixed rate, until it is stopped.

It runs inside the cluster, in the trainer's image, from a ConfigMap: of this repository only the
package is there. Every ten seconds it prints the number of responses of each class since the
last line, so that a line before a rollout and one after it can be compared.
"""

import argparse
import signal
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.local_rollout.replay import Replay, predict_requests
from dwcp_ml.simulate import SimulatorSettings, generate

_DAYS, _NODES, _SEED = 0.25, 4, 7


def telemetry(directory):
    """Simulate some hours of a small network; return the file."""
    path = Path(directory) / "telemetry.parquet"
    settings = SimulatorSettings(days=_DAYS, nodes=_NODES, seed=_SEED)
    generate(settings).frame.to_parquet(path, index=False)
    return path


def classes(responses):
    """Return class of the status, or ``lost`` -> requests, over all upstreams."""
    counts = Counter()
    for (_, outcome), count in responses.items():
        counts[outcome] += count
    return counts


def send(address, path, *, requests_per_second, answered, stop, say, every=10.0):
    """Send requests until ``stop`` is set.

    Parameters
    ----------
    address
        ``host:port``; the host is also what the request is for.
    path
        Telemetry to replay.
    answered
        A file that is made at the first response of class 2xx.
    stop
        A ``threading.Event``.
    say
        Called with each line of counts.
    every
        Seconds between two lines.
    """
    before = Counter()
    with Replay(
        address, BANDWIDTH, predict_requests(BANDWIDTH, path), requests_per_second
    ) as replay:
        while not stop.wait(min(every, 1.0) if not answered.exists() else every):
            now = classes(dict(replay.responses))
            if now["2xx"] and not answered.exists():
                answered.touch()
            new = now - before
            say(" ".join(f"{name}={new[name]}" for name in ("2xx", "4xx", "5xx", "lost")))
            before = now


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--requests-per-second", type=float, default=100.0)
    parser.add_argument("--answered", type=Path, required=True)
    given = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with tempfile.TemporaryDirectory() as directory:
        send(
            given.address,
            telemetry(directory),
            requests_per_second=given.requests_per_second,
            answered=given.answered,
            stop=stop,
            say=lambda line: print(line, flush=True),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
