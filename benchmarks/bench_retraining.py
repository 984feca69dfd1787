"""A month of retraining without a user, in virtual time.

    python -m benchmarks.bench_retraining [--output DIR] [--days 30]

Real: the telemetry's simulator and its contract, each training with its gate (``dwcp-ml pipeline
run`` on the window of the TrainingRun), the predictions of the bundles that serve, the decisions of
the retraining, the webhook's handler, and both reconcilers of the operator. Fakes: the API server
in memory, KServe's controller, Kubeflow (each run is executed here and takes half an hour of the
virtual time), and the servers' counters, which are made of the real predictions for the live
telemetry. The two alerts are evaluated as the Prometheus rules say, which have tests of their own.

What happens: see ``EVENTS``. Prints Markdown; a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.month_of_traffic import (
    BAD_DAY,
    DAY,
    HOUR,
    ROUTES,
    SHAPER,
    START,
    LiveFleet,
    Served,
    Stream,
)
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN
from dwcp_ml.kube.manifests import model_rollout
from dwcp_ml.kube.publish_candidate import publish
from dwcp_ml.kubeflow.client import RunRequest, RunState, TaskState
from dwcp_ml.operator.reconcile import Reconciler
from dwcp_ml.operator.settings import Intervals
from dwcp_ml.operator.training_reconcile import Trainer
from dwcp_ml.retraining.decide import sentence
from dwcp_ml.retraining.settings import Retraining
from dwcp_ml.retraining.start import start
from dwcp_ml.retraining.webhook import PATH, Webhook
from dwcp_ml.rollout.drift import LARGE_PSI, stability_index
from tests.operator.fake_kserve import FakeKServe
from tests.operator.fake_kserve_rules import webhook as admission
from tests.operator.fake_servers import NAME, NAMESPACE, Time
from tests.operator.memory_api import MemoryApi

TARGET: Final = 0.05
RUN_SECONDS: Final = 1800.0

FIRST_RUN, EVERY = 4.0 + 2 / 24, 3.0
"""The schedule, days: at two in the morning each third day, once there is a whole window."""

WORSE_TRAINING, WORSE_SERVING = 7.0, 25.0

EVENTS: Final = (
    (WORSE_TRAINING, "the run of this day trains one epoch: a worse challenger"),
    (SHAPER, "drift: a traffic shaper lets 12 % more and less through in alternate minutes"),
    (BAD_DAY, "bad data: half of this day's rows have a round trip of -1 ms"),
    (ROUTES, "drift: all routes change, round trips are 2.2 times as long"),
    (WORSE_SERVING, "the next candidate is served 10 % too high: better offline, worse live"),
)


@dataclass
class Execution:
    """A run that is executed: when it ends, and what it has led to."""

    ends_at: float
    state: RunState
    publish: Mapping[str, Any] | None = None


class KubeflowHere:
    """A named fake of Kubeflow: a run is executed at once, and ends after ``RUN_SECONDS``."""

    def __init__(self, month: Month) -> None:
        self._month, self._runs = month, dict[str, Execution]()
        self._names: dict[str, str] = {}

    def check(self, request: RunRequest) -> None:
        """Accept any run."""

    def find(self, name: str, namespace: str) -> str:
        return self._names.get(name, "")

    def submit(self, request: RunRequest) -> str:
        run_id = f"run-{len(self._runs) + 1}"
        self._names[request.name] = run_id
        verdict, rollout = self._month.train(request.arguments)
        if verdict is None:
            state = RunState(run_id, "FAILED", tasks=(TaskState("validate-data", "FAILED"),))
        else:
            states = (TaskState(verdict.lower(), "SUCCEEDED"),)
            state = RunState(run_id, "SUCCEEDED", tasks=states)
        self._runs[run_id] = Execution(self._month.time.now + RUN_SECONDS, state, rollout)
        return run_id

    def run(self, run_id: str) -> RunState:
        one = self._runs[run_id]
        if self._month.time.now < one.ends_at:
            return RunState(run_id, "RUNNING")
        if one.publish is not None:
            self._month.publish(one.publish)
            one.publish = None
        return one.state

    def terminate(self, run_id: str) -> None:
        raise NotImplementedError

    def artifact(self, artifact_id: str) -> bytes:
        raise NotImplementedError


class Month:
    """Everything together."""

    def __init__(self, output: Path, days: int) -> None:
        self.output, self.days = output, days
        self.time = Time()
        self.time.now = START.timestamp()
        self.api = MemoryApi(admission, now=lambda: self._now().strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.stream = Stream(output, days)
        self.kserve = FakeKServe(self.api)
        self.kserve.now = lambda: self.time.now
        self.fleet = LiveFleet(self.api, self.time, self.stream)
        intervals = Intervals()
        self.operator = Reconciler(self.api, self.fleet, self.time.clock, intervals, self)
        self.trainer = Trainer(
            self.api, KubeflowHere(self), lambda _: {}, self.time.clock, intervals, self
        )
        self.retraining = Retraining.model_validate(
            {
                "name": "nightly", "windowDays": 4, "delayMinutes": 0,
                "template": {
                    "spec": {
                        "data": {"uri": f"{self.stream.address}/"},
                        "models": [BANDWIDTH.name], "storagePrefix": "s3://models",
                    }
                },
            }
        )  # fmt: skip
        retrainings = {"nightly": self.retraining}
        self.webhook = Webhook(self.api, NAMESPACE, retrainings, None, self.time.clock)
        self.lines: list[tuple[float, str]] = list(EVENTS)
        self._firing: defaultdict[str, int] = defaultdict(int)
        self._faulty_from = START.timestamp() + WORSE_SERVING * DAY
        self._bundles: dict[str, Path] = {}
        self._said: dict[str, str] = {}

    def record(self, event: Any) -> None:
        """Keep what the operator says of a rollout that ends."""
        if event.reason in ("Promoted", "RolledBack") or "RolledBack" in event.message:
            self._say(f"{event.kind}: {event.message}")

    def run(self) -> None:
        """Let the month pass."""
        end = START.timestamp() + self.days * DAY
        next_cron, next_hour = START.timestamp() + FIRST_RUN * DAY, self.time.now
        while self.time.now < end:
            step = 60.0 if self._is_under_way() else 300.0
            self.time.pass_time(step)
            self.fleet.pass_time(step)
            self.kserve.settle()
            self._reconcile()
            if self.time.now >= next_cron:
                next_cron += EVERY * DAY
                self._start("schedule")
            if self.time.now >= next_hour:
                next_hour += HOUR
                self._alerts()

    def train(self, arguments: Mapping[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
        """Execute a run; return the verdict, None if the data are refused, and what to publish."""
        words = [
            "--models", "bandwidth", "--data-path", arguments["data_path"], "--no-check-api",
            "--data-start", arguments["data_start"], "--data-end", arguments["data_end"],
            "--trigger", arguments["trigger"], "--stable-uri", self._champion(), "--json",
            "--output-dir", str(self.output / "runs" / str(int(self.time.now))),
        ]  # fmt: skip
        if abs(self._day() - WORSE_TRAINING) < 1.0:
            words += ["--epochs", "1"]
        command = [sys.executable, "-m", "dwcp_ml.cli", "pipeline", "run", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            error = done.stderr.strip().splitlines()[-1].replace(f"{self.stream.address}", "data")
            self._say(f"the run failed: {error}")
            return None, None
        report = json.loads(done.stdout)["models"][BANDWIDTH.name]
        mape = report["achieved_metrics"]["mape"]
        self._say(f"the gate: {report['verdict']}, MAPE {mape:.2f} % on the test split")
        if report["verdict"] != "APPROVED":
            self._say("; ".join(report["reasons"]))
            return "REJECTED", None
        (bundle,) = Path(words[-1]).glob(f"2*/models/{BANDWIDTH.name}/*")
        faulty = self.time.now >= self._faulty_from
        if faulty:
            self._faulty_from = float("inf")
        served = Served(bundle, self.stream, 1.1 if faulty else 1.0)
        self.fleet.served[served.digest] = served
        self._bundles[served.digest] = bundle
        uri = f"s3://models/{BANDWIDTH.name}/{arguments['version']}"
        # The version of the run, by which the retraining finds the rollout again.
        served.version = arguments["version"]
        made = model_rollout(BANDWIDTH, arguments["version"], uri, served.digest)
        made["metadata"]["namespace"] = NAMESPACE
        return "APPROVED", made

    def publish(self, rollout: Mapping[str, Any]) -> None:
        """Make a bundle the candidate, as the pipeline's last task does."""
        publish(self.api.aside(), dict(rollout))

        def decide_by_losses(body: dict[str, Any]) -> None:
            body["spec"]["analysis"] = {"reportedLoss": {"enabled": True, "required": True}}

        self.api.edit(MODEL_ROLLOUT, NAMESPACE, NAME, decide_by_losses)

    def _champion(self) -> str:
        status = (self.api.at(MODEL_ROLLOUT, NAMESPACE, NAME) or {}).get("status") or {}
        which = "candidate" if status.get("phase") == "Promoted" else "stable"
        if which not in status:
            return "none"
        return str(self._bundles[status[which]["digest"].removeprefix("sha256:")])

    def _reconcile(self) -> None:
        for body in self.api.list(TRAINING_RUN, NAMESPACE):
            self.trainer.reconcile((NAMESPACE, body["metadata"]["name"]))
        if self.api.at(MODEL_ROLLOUT, NAMESPACE, NAME) is None:
            return
        self.operator.reconcile((NAMESPACE, NAME))
        status = self.api.at(MODEL_ROLLOUT, NAMESPACE, NAME).get("status") or {}
        phase, version = status.get("phase"), (status.get("candidate") or {}).get("version")
        if phase in ("Promoted", "RolledBack") and self._said.get("rollout") != f"{version}{phase}":
            self._said["rollout"] = f"{version}{phase}"
            exposed = status.get("exposedRequests", 0)
            self._say(f"**{phase}**: {status.get('message', '')} ({exposed:,} requests exposed)")

    def _is_under_way(self) -> bool:
        status = (self.api.at(MODEL_ROLLOUT, NAMESPACE, NAME) or {}).get("status") or {}
        return status.get("phase") not in (None, "Promoted", "RolledBack")

    def _start(self, trigger: str) -> None:
        decision = start(self.api, NAMESPACE, self.retraining, trigger, self.time.clock)
        self._say(f"{trigger}: {sentence(decision)}")

    def _alerts(self) -> None:
        """Evaluate both alerts, and notify the webhook of one that fires, each hour."""
        for name, holds, hours in (
            ("DwcpLiveErrorOverTarget", self._live_error() > TARGET, 1),
            ("DwcpFeatureDrift", self._psi() > LARGE_PSI, 6),
        ):
            self._firing[name] = self._firing[name] + 1 if holds else 0
            if self._firing[name] <= hours:
                continue
            alert = {"status": "firing", "labels": {"alertname": name}}
            body = json.dumps({"version": "4", "alerts": [alert]}).encode()
            decided = self.webhook.receive(f"{PATH}nightly", "", body).body
            reason = decided["decision"]["skip"]
            if self._said.get(name) != reason or reason is None:
                self._say(f"{name}: {decided['message']}")
            self._said[name] = reason

    def _live_error(self) -> float:
        hour = int((self.time.now - START.timestamp()) // HOUR)
        means = []
        for version in {version for version, _ in self.fleet.by_version}:
            counted = [self.fleet.by_version[version, one] for one in range(hour - 24, hour)]
            requests, loss = (sum(one[index] for one in counted) for index in (0, 1))
            if requests >= 200:
                means.append(loss / requests)
        return max(means, default=0.0)

    def _psi(self) -> float:
        shares = self.fleet.routed()
        if not shares:
            return 0.0
        served = self.fleet.served[max(shares, key=lambda digest: shares[digest])]
        rows = self.stream.between(self.time.now - DAY, self.time.now)
        newest = self.stream.inputs[rows][:, -1, :]
        found = [0.0]
        for each in served.manifest.training_distribution:
            column = BANDWIDTH.features.index(each.feature)
            places = np.searchsorted(each.edges, newest[:, column])
            counts = np.bincount(places, minlength=len(each.shares)).astype(np.float64)
            reference = np.array(each.shares) * 1e9
            if counts.sum():
                found.append(stability_index(counts, reference)[0])
        return max(found)

    def _day(self) -> float:
        return (self.time.now - START.timestamp()) / DAY

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.time.now, UTC)

    def _say(self, text: str) -> None:
        self.lines.append((self._day(), text))
        sys.stderr.write(f"day {self._day():5.2f}  {text}\n")

    def report(self) -> Iterator[str]:
        """Yield the report as Markdown."""
        yield "| day | time | what |"
        yield "| --- | --- | --- |"
        for day, text in sorted(self.lines, key=lambda line: line[0]):
            moment = START + timedelta(days=day)
            planted = (day, text) in EVENTS
            yield f"| {int(day)} | {moment:%H:%M} | {f'*planted: {text}*' if planted else text} |"
        hours = {hour: loss / requests for hour, (requests, loss) in self.fleet.hours.items()}
        first = next(iter(self.fleet.served.values()), None)
        if first is None:
            yield "\nNo model was approved, so there is no live error."
            return
        yield ""
        yield "| day | mean live MAPE | hours above the target | with the first model all month |"
        yield "| --- | --- | --- | --- |"
        for day in range(self.days):
            of_day = [hours[hour] for hour in range(24 * day, 24 * day + 24) if hour in hours]
            if of_day:
                above = sum(mean > TARGET for mean in of_day)
                began = START.timestamp() + day * DAY
                without = first.losses[self.stream.between(began, began + DAY)].mean()
                yield f"| {day} | {np.mean(of_day):.2%} | {above} | {without:.2%} |"
        over = sum(mean > TARGET for mean in hours.values())
        yield ""
        yield f"Live MAPE above {TARGET:.0%}: {over} of {len(hours)} hours with a model."


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="directory that keeps runs and telemetry")
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        month = Month(options.output or Path(scratch), options.days)
        month.run()
        print("\n".join(month.report()))


if __name__ == "__main__":
    main()
