"""One ModelRollout on a fake cluster; the rules are checked at every write."""

import copy

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, KubeError
from dwcp_ml.operator.lease import GuardedApi
from dwcp_ml.operator.reconcile import Reconciler
from dwcp_ml.operator.settings import Intervals
from tests.operator.fake_kserve import FakeKServe
from tests.operator.fake_kserve_rules import webhook
from tests.operator.fake_servers import (
    NAME,
    NAMESPACE,
    Fleet,
    Time,
    digest_of,
)
from tests.operator.memory_api import MemoryApi
from tests.operator.rules import ENDED, Rules, state_of

KEY = (NAMESPACE, NAME)
SHARES = (1, 5, 25, 50, 100)
BROAD = {
    "warmUpSeconds": 0,
    "errorRate": {"margin": 0.1},
    "latency": {"margin": 0.2},
}
"""Margins so broad that a few hundred requests show something."""


class Crash(BaseException):
    """The process dies here."""


def digest(number):
    return f"{number:064x}"


def candidate(number):
    return {
        "storageUri": f"s3://models/bandwidth_predictor/v{number}",
        "version": f"v{number}",
        "digest": f"sha256:{digest(number)}",
    }


def rollout(number=2, shares=SHARES, *, requests=100, dwell=30, **spec):
    """Return a ModelRollout of candidate ``number``."""
    steps = [
        {"trafficPercent": share, "minimumRequests": requests, "dwellSeconds": dwell}
        for share in shares
    ]
    return {
        "apiVersion": MODEL_ROLLOUT.api_version,
        "kind": "ModelRollout",
        "metadata": {"namespace": NAMESPACE, "name": NAME},
        "spec": {
            "inferenceService": NAME,
            "template": {
                "predictor": {"model": {"modelFormat": {"name": "dwcp-ml-bundle"}}},
            },
            "candidate": candidate(number),
            "steps": steps,
            "analysis": BROAD,
            "watchSeconds": 60,
            **spec,
        },
    }


class Seen:
    """The API as the operator of a scenario sees it at the moment."""

    def __init__(self, scenario):
        self._scene = scenario

    def __getattr__(self, name):
        return getattr(self._scene.view, name)


class Scenario:
    """A cluster with version 1 live, and a ModelRollout that asks for version 2.

    ``first`` leaves version 1 out; ``kserve`` is about the fake KServe, which does all its work
    between two reconciliations, or makes one pass if it is ``slow``. ``view`` is the API as the
    operator sees it.
    """

    def __init__(
        self, resource=None, *, first=False, intervals=None, mode="Standard", slow=False, **kserve
    ):
        self.api = MemoryApi(webhook)
        self.slow = slow
        self.time = Time()
        self.kserve = FakeKServe(self.api, **kserve)
        self.kserve.now = lambda: self.time.now
        self.fleet = Fleet(self.api, self.time)
        self.rules = Rules(self.api, self.fleet.routed)
        self.events = []
        self.intervals = intervals or Intervals()
        self.view = self.api
        self.checked = lambda: None
        self._settled = None
        if not first:
            self.api.create(_service(1, mode))
            self.kserve.settle()
            self.fleet.pass_time(100.0)
        resource = copy.deepcopy(resource or rollout())
        if mode != "Standard":
            resource["spec"]["template"]["deploymentMode"] = mode
        self.api.create(resource)
        self.api.writes.clear()
        self.api.after = self.rules.after
        self.restart()

    def restart(self):
        """Start a new process: what the old one had not stored is lost."""
        api = GuardedApi(Seen(self), self.checked)
        self.operator = Reconciler(
            api, self.fleet, self.time.clock, self.intervals, self,
        )  # fmt: skip

    def record(self, event):
        self.events.append(event)

    def reconcile(self, seconds=10.0):
        """Let time pass, and reconcile once; return ``None`` after an error of the API."""
        self.pass_time(seconds)
        try:
            return self.operator.reconcile(KEY)
        except KubeError:
            return None

    def pass_time(self, seconds):
        self.time.pass_time(seconds)
        self.fleet.pass_time(seconds)
        self.settle()

    def settle(self):
        """Let KServe do its work, if there may be any, or a part of it."""
        if self.slow:
            self.kserve.step()
            return
        knobs = (
            sorted(self.kserve.unready), sorted(self.kserve.crashes.items()),
            str(self.kserve.conditions), str(self.kserve.pod_status), str(self.kserve.scaled),
            self.kserve.gap and self.time.now,
        )  # fmt: skip
        if self._settled != (self.api.version, knobs):
            self.kserve.settle()
            self._settled = (self.api.version, knobs)

    def edit(self, change):
        self.api.edit(MODEL_ROLLOUT, *KEY, change)

    def edit_status(self, change):
        """Let somebody else change the status: ``change`` gets it, and changes it in its place."""
        found = self.resource
        change(found["status"])
        self.api.aside().replace(found, status=True)

    def until(self, *phases, rounds=300, seconds=10.0):
        for _ in range(rounds):
            self.reconcile(seconds)
            if self.phase in phases:
                return self.phase
        raise AssertionError(f"still {self.phase}: {self.status.get('message')}")

    def until_end(self, **how):
        return self.until(*ENDED, **how)

    @property
    def resource(self):
        return self.api.at(MODEL_ROLLOUT, *KEY)

    @property
    def service(self):
        return self.api.at(INFERENCE_SERVICE, *KEY)

    @property
    def status(self):
        return (self.resource or {}).get("status") or {}

    @property
    def phase(self):
        return self.status.get("phase")

    @property
    def conditions(self):
        return {one["type"]: one for one in self.status.get("conditions") or []}

    @property
    def is_stalled(self):
        return self.conditions.get("Stalled", {}).get("status") == "True"

    @property
    def final(self):
        """What is left in the end, without what only tells how it came about."""
        service = self.service
        if service is None:
            return self.phase, None
        spec = service["spec"]
        return (
            self.phase,
            digest_of(spec["predictor"]),
            spec.get("canary") or [],
            sorted(state_of(self.resource)["rollout"]["blocked"]),
        )


def at(share, **how):
    """Return a rollout whose candidate has this share, and has just been seen to have it."""
    scenario = Scenario(**how)
    for _ in range(200):
        scenario.reconcile()
        if scenario.fleet.routed().get(digest(2)) == share:
            return scenario
    raise AssertionError(scenario.status)


def stalled(scenario, rounds=3):
    """Reconcile a stalled rollout a few times; return its conditions."""
    before = scenario.service
    for _ in range(rounds):
        scenario.reconcile()
    assert scenario.service == before, "Nothing is written while it is stalled."
    written = scenario.rules.writes["status"]
    scenario.reconcile()
    assert scenario.rules.writes["status"] == written, "The status is written once."
    return scenario.conditions


def _service(number, mode):
    made = candidate(number)
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": "InferenceService",
        "metadata": {
            "namespace": NAMESPACE,
            "name": NAME,
            "annotations": {"serving.kserve.io/deploymentMode": mode},
        },
        "spec": {
            "predictor": {
                **({"name": f"v{number}"} if mode == "Standard" else {}),
                "annotations": {
                    "ml.dwcp.io/version": made["version"],
                    "ml.dwcp.io/digest": made["digest"],
                },
                "model": {
                    "modelFormat": {"name": "dwcp-ml-bundle"},
                    "storageUri": made["storageUri"],
                },
            }
        },
    }
