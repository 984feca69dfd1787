"""Controllers that no program runs here: the gateway's, and the loop of every fake controller."""

import contextlib
import queue
import threading
import time
import traceback
from collections import deque

from tests.cluster.informer import Informer
from tests.cluster.rest import RequestRejected

ROUTES = "/apis/gateway.networking.k8s.io/v1/httproutes"
INGRESSES = "/apis/networking.internal.knative.dev/v1alpha1/ingresses"
GATEWAY_CONTROLLER = "ml.dwcp.io/fake-gateway"
_RETRY_SECONDS = 0.05
_CHANGED_MEANWHILE = (404, 409)
_BUSY = 429  # and above: the API server restarts, or has too much to do
_TERMINATING = "is being terminated"  # of a namespace


class FakeController:
    """One thread that reconciles every object whose watch reports a change, until it is right.

    A subclass defines ``reconcile(key)`` only. It reads the informers and writes at most what is
    missing; it is called again after a conflict. Any other fault is kept in ``errors``, which the
    tests check.
    """

    name = "fake controller"

    def __init__(self, rest):
        self.rest = rest
        self.errors = deque(maxlen=20)
        self.informers = []
        self._keys = queue.Queue()
        self._waiting = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._paused = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def watch(self, path, keys_of=lambda key: [key], selector=""):
        """Return an informer whose changes enqueue ``keys_of(changed key)``."""

        def changed(key):
            for one in keys_of(key):
                self.enqueue(one)

        informer = Informer(self.rest, path, changed, selector)
        self.informers.append(informer)
        return informer

    def enqueue(self, key):
        """Queue a key; one that is queued already is not queued twice."""
        with self._lock:
            if key not in self._waiting:
                self._waiting.add(key)
                self._keys.put(key)

    def start(self):
        for informer in self.informers:
            informer.start()
        self._thread.start()

    def stop(self):
        self._over.set()
        for informer in self.informers:
            informer.stop()
        self._thread.join(10.0)

    @contextlib.contextmanager
    def pause(self):
        """Do nothing for the length of a block, then everything that was queued meanwhile."""
        self._paused.set()
        try:
            yield
        finally:
            self._paused.clear()

    def reconcile(self, key):
        raise NotImplementedError

    def _run(self):
        for informer in self.informers:
            while not informer.synced.wait(0.05):
                if self._over.is_set():
                    return
        while not self._over.is_set():
            try:
                key = self._keys.get(timeout=0.1)
            except queue.Empty:
                continue
            while self._paused.is_set() and not self._over.is_set():
                time.sleep(_RETRY_SECONDS)
            with self._lock:
                self._waiting.discard(key)
            self._reconcile(key)

    def _reconcile(self, key):
        try:
            self.reconcile(key)
        except RequestRejected as error:
            if _TERMINATING in str(error):
                return
            if error.status not in _CHANGED_MEANWHILE and error.status < _BUSY:
                self.errors.append(f"{key}: {error}")
            self._later(key)
        except Exception as error:
            # An API server that restarts refuses connections; everything else is a fault.
            if not type(error).__module__.startswith("urllib3"):
                self.errors.append(f"{key}: {traceback.format_exc(limit=3)}")
            self._later(key)

    def _later(self, key):
        self._over.wait(_RETRY_SECONDS)
        self.enqueue(key)


class FakeGateway(FakeController):
    """Accepts every HTTPRoute that names a parent, as the controller of a gateway would."""

    name = "fake gateway"

    def __init__(self, rest):
        super().__init__(rest)
        self.routes = self.watch(ROUTES)

    def reconcile(self, key):
        route = self.routes.objects.get(key)
        if route is None or "deletionTimestamp" in route["metadata"]:
            return
        parents = [
            _accepted(parent, route["metadata"]["generation"])
            for parent in route["spec"].get("parentRefs", [])
        ]
        if _without_times(route.get("status", {}).get("parents", [])) != _without_times(parents):
            namespace, name = key
            path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{name}"
            self.rest.merge(f"{path}/status", {"status": {"parents": parents}})


class FakeIngress(FakeController):
    """Accepts every ingress that Knative writes, as the controller of its gateway would.

    Nothing is probed and nothing sends traffic.
    """

    name = "fake ingress"

    def __init__(self, rest):
        super().__init__(rest)
        self.ingresses = self.watch(INGRESSES)

    def reconcile(self, key):
        ingress = self.ingresses.objects.get(key)
        if ingress is None or "deletionTimestamp" in ingress["metadata"]:
            return
        generation = ingress["metadata"]["generation"]
        if ingress.get("status", {}).get("observedGeneration") == generation:
            return
        namespace, name = key
        path = f"/apis/networking.internal.knative.dev/v1alpha1/namespaces/{namespace}/ingresses"
        self.rest.merge(f"{path}/{name}/status", {"status": _routed(generation)})


def _routed(generation):
    """Return the status of an ingress whose traffic the gateway has."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    balancer = {"ingress": [{"domainInternal": "fake-gateway.kserve.svc.cluster.local"}]}
    return {
        "observedGeneration": generation,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("LoadBalancerReady", "NetworkConfigured", "Ready")
        ],
        "publicLoadBalancer": balancer,
        "privateLoadBalancer": balancer,
    }


def _accepted(parent, generation):
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "parentRef": parent,
        "controllerName": GATEWAY_CONTROLLER,
        "conditions": [
            {
                "type": kind, "status": "True", "reason": kind, "message": "",
                "observedGeneration": generation, "lastTransitionTime": now,
            }
            for kind in ("Accepted", "ResolvedRefs")
        ],
    }  # fmt: skip


def _without_times(parents):
    return [
        {
            **parent,
            "conditions": [
                {name: value for name, value in one.items() if name != "lastTransitionTime"}
                for one in parent.get("conditions", [])
            ],
        }
        for parent in parents
    ]
