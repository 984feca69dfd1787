"""A rollout on the real API server, look by look, by an operator in this process.

Like ``tests.operator.faulty.Play``, and with its paths: time is the test's own, so that no dwell is
waited for, and KServe's controller takes the time that it takes.
"""

import copy
import time

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, KubeError
from dwcp_ml.kube.client import KubeApi
from dwcp_ml.operator.lease import GuardedApi
from dwcp_ml.operator.reconcile import Reconciler
from dwcp_ml.operator.settings import Intervals
from tests.cluster.operator.installed import furnish, path_of, resource, service
from tests.cluster.operator.servers import Servers
from tests.cluster.processes import eventually
from tests.operator.fake_servers import NAME, Time, digest_of
from tests.operator.memory_api import WRITES, Call
from tests.operator.rules import ENDED, state_of
from tests.operator.scenario import Crash

_SECONDS = 90.0
_BETWEEN_LOOKS = 0.03


class Hooked:
    """An ``Api`` with ``before`` and ``after`` each call, as ``MemoryApi`` has them."""

    def __init__(self, api):
        self.api = api
        self.before = self.after = lambda call: None

    def get(self, kind, namespace, name):
        return self._call("get", kind, namespace, name, None,
                          lambda: self.api.get(kind, namespace, name))  # fmt: skip

    def list(self, kind, namespace=None, labels=""):
        return self._call("list", kind, namespace or "", "", None,
                          lambda: self.api.list(kind, namespace, labels))  # fmt: skip

    def create(self, obj):
        return self._write("create", obj, lambda: self.api.create(obj))

    def replace(self, obj, *, status=False):
        verb = "replace status" if status else "replace"
        return self._write(verb, obj, lambda: self.api.replace(obj, status=status))

    def apply(self, obj, **how):
        return self._write("apply", obj, lambda: self.api.apply(obj, **how))

    def delete(self, kind, namespace, name, **how):
        return self._call("delete", kind, namespace, name, None,
                          lambda: self.api.delete(kind, namespace, name, **how))  # fmt: skip

    def _write(self, verb, obj, do):
        found = obj["metadata"]
        return self._call(verb, obj["kind"], found.get("namespace", ""), found["name"], obj, do)

    def _call(self, verb, kind, namespace, name, obj, do):
        assert verb in {"get", "list"} | WRITES
        self.before(Call(verb, kind, namespace, name, obj))
        answer = do()
        self.after(Call(verb, kind, namespace, name, obj, answer))
        return answer


class ClusterScenario:
    """One ModelRollout; what a path of ``tests.operator.faulty`` uses is here under its names."""

    def __init__(self, cluster, namespace, *, first=False, **spec):
        self.cluster, self.rest, self.namespace = cluster, cluster.rest, namespace
        self.time = Time()
        self.api = Hooked(KubeApi(cluster.api))
        self.fleet = Servers(KubeApi(cluster.api), self.time, namespace)
        self._done = set()
        furnish(self.rest, namespace)
        if not first:
            self.rest.create(path_of(INFERENCE_SERVICE, namespace), service(namespace, 1))
            eventually(self._is_ready, 60.0, alive=cluster.check)
            self.fleet.pass_time(100.0)
        spec = {"shares": (10, 50, 100), "requests": 10, "dwell": 1, "watchSeconds": 2, **spec}
        self.rest.create(path_of(MODEL_ROLLOUT, namespace), resource(namespace, **spec))
        self.restart()

    def restart(self):
        """Begin a new process: all that the old one had not stored is gone."""
        api = GuardedApi(self.api, lambda: None)
        self.operator = Reconciler(
            api, self.fleet, self.time.clock, Intervals(),
        )  # fmt: skip

    def reconcile(self, seconds=1.0):
        self.time.pass_time(seconds)
        self.fleet.pass_time(seconds)
        try:
            return self.operator.reconcile((self.namespace, NAME))
        except KubeError:
            return None

    def play(self, along=lambda play, number: None, quiet=3):
        """Look until a rollout that has ended is left alone; return what is left."""
        deadline, number, calm = time.monotonic() + _SECONDS, 0, 0
        while time.monotonic() < deadline:
            along(self, number)
            try:
                result = self.reconcile()
            except Crash:
                self.restart()
                result = None
            number += 1
            calm = calm + 1 if result is not None and not result.wrote else 0
            if calm >= quiet and self.phase in ENDED:
                return self.final
            time.sleep(_BETWEEN_LOOKS)
        raise AssertionError(f"still {self.phase}: {self.status}")

    def once(self, name, do):
        if name not in self._done:
            self._done.add(name)
            do()

    def edit(self, change):
        found = copy.deepcopy(self.resource)
        change(found)
        self.rest.merge(path_of(MODEL_ROLLOUT, self.namespace, NAME), {"spec": found["spec"]})

    @property
    def resource(self):
        return self.rest.find(path_of(MODEL_ROLLOUT, self.namespace, NAME))

    @property
    def status(self):
        return (self.resource or {}).get("status") or {}

    @property
    def phase(self):
        return self.status.get("phase")

    @property
    def service(self):
        return self.rest.find(path_of(INFERENCE_SERVICE, self.namespace, NAME))

    @property
    def final(self):
        """What is left in the end, without what only tells how it came about."""
        found = self.service
        left = None if found is None else digest_of(found["spec"]["predictor"])
        beside = [] if found is None else found["spec"].get("canary") or []
        blocked = sorted(state_of(self.resource)["rollout"]["blocked"])
        return self.phase, left, beside, blocked

    def _is_ready(self):
        conditions = (self.service.get("status") or {}).get("conditions") or []
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
