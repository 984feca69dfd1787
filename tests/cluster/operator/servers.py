"""The model servers of rollouts whose pods no program runs: they count what the routes bring them.

``Servers`` is one InferenceService's. ``FakePrometheus`` answers the operator's queries about all
of them as a Prometheus would: a named fake, because there is no page to scrape.
"""

import json
import re
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube.api import HTTP_ROUTE, INFERENCE_SERVICE, KNATIVE_SERVICE, KubeError
from dwcp_ml.metrics_sources.samples import INFO, REQUESTS, SECONDS, STARTED
from dwcp_ml.operator.settings import Clock
from tests.cluster.informer import Informer
from tests.operator.fake_servers import NAME, Fleet
from tests.operator.scenario import digest

_LEAST_SECONDS = 0.3  # of traffic: an operator asks eight questions at each reconciliation
_MATCHER = re.compile(r'(\w+)="([^"]*)"')


class RealTime:
    """The clock of this machine, where a test's own could stand."""

    clock = Clock()

    @property
    def now(self):
        return time.time()


class _View:
    """What routes traffic, as ``Fleet`` reads it; what can't be read is not there."""

    def __init__(self, api, namespace):
        self.api, self.namespace = api, namespace

    def at(self, kind, namespace, name):
        try:
            return self.api.get(kind, self.namespace, name)
        except KubeError:
            return None


class Routes:
    """What routes traffic, from watches: a thousand rollouts are too many to read each time."""

    def __init__(self, rest):
        self._informers = {
            kind: Informer(rest, f"/apis/{kind.api_version}/{kind.plural}", lambda key: None)
            for kind in (INFERENCE_SERVICE, HTTP_ROUTE, KNATIVE_SERVICE)
        }
        for one in self._informers.values():
            one.start()

    def get(self, kind, namespace, name):
        return self._informers[kind].objects.get((namespace, name))

    def stop(self):
        for one in self._informers.values():
            one.stop()


class Servers(Fleet):
    """One InferenceService's servers.

    ``bad_at`` is a share of traffic from which on version 2 answers 8 of 10 requests with an error;
    ``when`` lists (share, what to do once version 2 has it).
    """

    def __init__(self, api, clock, namespace, requests_per_second=4000.0):
        super().__init__(_View(api, namespace), clock, requests_per_second)
        self.bad_at = None
        self.when = []
        self.seen = []
        self._lock = threading.Lock()
        self._shares = {}

    def pass_time(self, seconds):
        with self._lock:
            self._shares = super().routed()
            share = self._shares.get(digest(2), 0)
            if not self.seen or self.seen[-1] != share:
                self.seen.append(share)
            if self.bad_at is not None and share >= self.bad_at:
                self.errors[digest(2)] = 0.8
            super().pass_time(seconds)
            due = [do for least, do in self.when if share >= least]
            self.when = [one for one in self.when if share < one[0]]
        for do in due:
            do()

    def routed(self):
        return self._shares


class FakePrometheus:
    """Answers instant queries about every ``Servers`` that was added, in real time."""

    def __init__(self):
        self.servers = {}
        self._at = {}
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                body = json.dumps(outer.answer(query["query"][0], query.get("time"))).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, namespace, servers):
        self._at[namespace] = time.time()
        self.servers[namespace] = servers
        return servers

    def end(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, query, moment):
        """Return what ``/api/v1/query`` answers."""
        now = float(moment[0]) if moment else time.time()
        asked = dict(_MATCHER.findall(query))
        servers = self.servers.get(asked.get("namespace"))
        found = []
        if servers is not None and asked.get("inferenceservice") == NAME:
            self._catch_up(asked["namespace"], servers)
            own = self.digest_of(asked["bundle_version"])
            found = list(_series(query, asked, own, servers, now))
        result = [{"metric": labels, "value": [now, repr(float(value))]} for labels, value in found]
        return {"status": "success", "data": {"resultType": "vector", "result": result}}

    def digest_of(self, version):
        """Return the digest of a version; that of ``v2`` is the number 2."""
        return digest(int(version.removeprefix("v")))

    def _catch_up(self, namespace, servers):
        with self._lock:
            passed = time.time() - self._at[namespace]
            if passed < _LEAST_SECONDS:
                return
            self._at[namespace] += passed
        servers.pass_time(passed)


def _series(query, asked, digest_, servers, now):
    version = asked["bundle_version"]
    began, requests, errors, slow = servers.counts.get(digest_, (now - 1.0, 0, 0, 0))
    instance = {"instance": f"{version}-0", **{key: asked[key] for key in (
        "namespace", "inferenceservice", "bundle_version")}}  # fmt: skip
    if query.startswith("up"):
        yield {"__name__": "up", **instance}, 1
    elif query.startswith("timestamp"):
        yield instance, now
    elif query.startswith(STARTED):
        yield {"__name__": STARTED, **instance}, began
    else:
        model = {**instance, "model": BANDWIDTH.name, "version": version}
        yield {"__name__": INFO, **model, "digest": digest_}, 1
        yield {"__name__": REQUESTS, **model, "code": "200"}, requests - errors
        yield {"__name__": REQUESTS, **model, "code": "500"}, errors
        below = {str(Fleet.EDGES[0]): requests - slow, str(Fleet.EDGES[1]): requests}
        for edge, count in (below | {"+Inf": requests}).items():
            yield {"__name__": SECONDS, **model, "le": edge}, count
