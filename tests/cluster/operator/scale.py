"""A thousand rollouts at once: what the operator as a process costs, and how fast it is.

KServe's status is fake (``fake_kserve``), or its real controller runs.
"""

import contextlib
import json
import os
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from tests.cluster.operator.fake_kserve import FakeKServeController
from tests.cluster.operator.installed import USER, Installed, begin
from tests.cluster.operator.servers import FakePrometheus, Routes
from tests.cluster.processes import eventually
from tests.operator.rules import ENDED

_TICKS = os.sysconf("SC_CLK_TCK")
_BUCKET = re.compile(
    r'dwcp_operator_reconcile_seconds_bucket\{kind="ModelRollout",le="([^"]+)"\} (\S+)'
)


@dataclass(frozen=True)
class Measured:
    """What came of it.

    Parameters
    ----------
    rollouts, promoted, rolled_back
        How many there were, and how they ended.
    seconds
        From the first ModelRollout to the last end.
    reconciliations, below
        Looks at ModelRollouts, and bound in seconds -> how many took no longer.
    writes
        Of InferenceServices and statuses of ModelRollouts, for each rollout: the mean and the most.
    cpu_seconds, idle_cpu_percent
        Of the operator's process: until the last end, and for a minute after everything has ended.
    peak_mebibytes
        Of its memory.
    """

    rollouts: int
    promoted: int
    rolled_back: int
    seconds: float
    reconciliations: int
    below: dict
    writes: tuple
    cpu_seconds: float
    idle_cpu_percent: float
    peak_mebibytes: float

    def p99_below(self):
        """Return the lowest bound that 99 % of the reconciliations kept, seconds."""
        return next(
            bound for bound, number in self.below.items() if number >= 0.99 * self.reconciliations
        )


def measure(cluster, directory, number, *, real, every=10, idle_seconds=60.0):
    """Run ``number`` rollouts at once, one in ``every`` of them bad; return ``Measured``."""
    installed, prometheus = Installed(cluster, directory), FakePrometheus()
    with contextlib.ExitStack() as stack:
        if not real:
            stack.enter_context(cluster.kserve.pause())
            controller = FakeKServeController(cluster.rest, cluster.api)
            controller.start()
            stack.callback(controller.stop)
        plots = {one: {"bad_at": 25} if one % every == 0 else {} for one in range(number)}
        name, port = installed.start("scale", prometheus.address, reconcile_seconds=10.0)
        process_id = cluster.processes.ids()[name]
        began = time.monotonic()
        routes = Routes(cluster.rest)
        stack.callback(routes.stop)
        stories = begin(plots, cluster, prometheus, routes=routes)
        ends = [eventually(lambda one=one: _ended(one), 1800.0, every=0.5, alive=cluster.check)
                for one in stories.values()]  # fmt: skip
        seconds, cpu = time.monotonic() - began, _cpu_seconds(process_id)
        reconciliations, below = _looks(port)
        time.sleep(idle_seconds)
        idle = _cpu_seconds(process_id) - cpu
        peak = _peak(process_id)
        installed.stop(name)
    writes = _writes(cluster, [one.namespace for one in stories.values()])
    prometheus.end()
    return Measured(
        rollouts=number, promoted=ends.count("Promoted"), rolled_back=ends.count("RolledBack"),
        seconds=seconds, reconciliations=reconciliations, below=below,
        writes=(sum(writes) / len(writes), max(writes)), cpu_seconds=cpu,
        idle_cpu_percent=100.0 * idle / idle_seconds, peak_mebibytes=peak,
    )  # fmt: skip


def _ended(story):
    phase = story.status.get("phase")
    return phase if phase in ENDED else None


def _looks(port):
    """Return how many looks at ModelRollouts there were, and bound -> how many were faster."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    below = {float(bound): int(float(number)) for bound, number in _BUCKET.findall(text)}
    return below[float("inf")], below


def _writes(cluster, namespaces):
    """Return how many writes the operator made for each rollout."""
    made = dict.fromkeys(namespaces, 0)
    with cluster.control_plane.audit_log.open() as log:
        for line in log:
            if f'"username":"{USER}"' not in line:  # a thousand rollouts leave a gigabyte
                continue
            call = json.loads(line)
            about = call.get("objectRef", {})
            if (
                about.get("namespace") in made
                and call["verb"] in ("create", "update", "delete")
                and about["resource"] in (INFERENCE_SERVICE.plural, MODEL_ROLLOUT.plural)
                and call["responseStatus"]["code"] < 300
            ):
                made[about["namespace"]] += 1
    return list(made.values())


def _cpu_seconds(process_id):
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
