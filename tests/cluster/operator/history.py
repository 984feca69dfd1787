"""Everything that happened to some kinds of objects, in the API server's own order.

Two watches are merged by resource version, which rises over all objects. So the rules of every
write, which the tests without a cluster hold at each call, are held here afterwards, whoever wrote.
"""

import contextlib
import copy
import json
import threading
from collections import defaultdict

from dwcp_ml.kube.api import HTTP_ROUTE, INFERENCE_SERVICE, KNATIVE_SERVICE, MODEL_ROLLOUT
from tests.cluster.processes import eventually
from tests.cluster.rest import RequestRejected
from tests.operator.fake_servers import Fleet
from tests.operator.memory_api import Change
from tests.operator.rules import Rules

KINDS = (INFERENCE_SERVICE, MODEL_ROLLOUT, HTTP_ROUTE, KNATIVE_SERVICE)
_WATCH_SECONDS = 300
_AGAIN_SECONDS = 0.1
_SETTLED_SECONDS = 30.0


class History:
    """Watches until ``stop``."""

    def __init__(self, rest, kinds=KINDS):
        self.rest = rest
        self.events = defaultdict(list)
        self._over = threading.Event()
        for kind in kinds:
            path = f"/apis/{kind.api_version}/{kind.plural}"
            begin = rest.get(path)["metadata"]["resourceVersion"]
            threading.Thread(target=self._run, args=(kind, path, begin), daemon=True).start()

    def stop(self):
        self._over.set()

    def of(self, namespace, kind=None):
        """Return (version, type, kind, object) of one namespace, in order."""
        self._catch_up(namespace)
        found = sorted(self.events[namespace], key=lambda event: event[0])
        return [event for event in found if kind is None or event[2] is kind]

    def check(self, namespace):
        """Hold the rules at every change; return the ``Rules``."""
        replay = _Replay()
        for event in self.of(namespace):
            replay.take(*event)
        return replay.rules

    def weights(self, namespace, name):
        """Return every split that the HTTPRoute of this name had, as lists of weights."""
        return [
            [one.get("weight", 1) for one in found["spec"]["rules"][0]["backendRefs"]]
            for _, kind_of_event, _, found in self.of(namespace, HTTP_ROUTE)
            if found["metadata"]["name"] == name and kind_of_event != "DELETED"
        ]

    def _catch_up(self, namespace):
        """Wait until the watches have seen what is there now."""
        for kind in (INFERENCE_SERVICE, MODEL_ROLLOUT, HTTP_ROUTE):
            path = f"/apis/{kind.api_version}/namespaces/{namespace}/{kind.plural}"
            listed = self.rest.get(path)["items"]
            newest = max((_version(one) for one in listed), default=0)
            eventually(
                lambda kind=kind, newest=newest: self._seen(namespace, kind) >= newest,
                _SETTLED_SECONDS,
            )

    def _seen(self, namespace, kind):
        versions = [event[0] for event in list(self.events[namespace]) if event[2] is kind]
        return max(versions, default=0)

    def _run(self, kind, path, reached):
        while not self._over.is_set():
            try:
                for event in self._watch(path, reached):
                    reached = event["object"]["metadata"]["resourceVersion"]
                    self._note(kind, int(reached), event)
            except (
                RequestRejected
            ):  # 410: an API server that was restarted knows no earlier versions
                with contextlib.suppress(Exception):
                    reached = self._list(kind, path, int(reached))
            except Exception:  # it restarts: on from where it was
                self._over.wait(_AGAIN_SECONDS)

    def _list(self, kind, path, reached):
        listed = self.rest.get(path)
        for one in listed["items"]:
            if _version(one) > reached:
                self._note(kind, _version(one), {"type": "MODIFIED", "object": one})
        return listed["metadata"]["resourceVersion"]

    def _watch(self, path, version):
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        answer = self.rest.stream(path + query, _WATCH_SECONDS + 5.0)
        rest = b""
        try:
            while part := answer.read1():
                *whole, rest = (rest + part).split(b"\n")
                for line in whole:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise RequestRejected(410, "the watch ended")
                    yield event
        finally:
            answer.close()

    def _note(self, kind, version, event):
        found = event["object"]
        space = found["metadata"].get("namespace", "")
        self.events[space].append((version, event["type"], kind, found))


class _Replay:
    """What ``Rules`` asks of an API in memory, told event by event."""

    def __init__(self):
        self.changes, self.version = [], 0
        self._fleet = Fleet(self, None)
        self.rules = Rules(self, self._fleet.routed)
        self._now = {}

    def at(self, kind, namespace, name):
        return self._now.get((kind, name), self._now.get(kind))

    def take(self, version, what, kind, found):
        before = self.at(kind, "", found["metadata"]["name"])
        after = None if what == "DELETED" else found
        self._now[kind, found["metadata"]["name"]] = after
        if kind in (INFERENCE_SERVICE, MODEL_ROLLOUT):
            self._now[kind] = after
        self._fleet.routed()  # it learns what each revision serves
        if kind is MODEL_ROLLOUT:
            self._take_rollout(before, after)
        if kind is INFERENCE_SERVICE and self.rules.asked is not None:
            same = before and after and before["spec"] == after["spec"]
            if not same:
                self.changes.append(Change(version, what, kind, copy.deepcopy(found), before))
                self.version = version
                self.rules._check()

    def _take_rollout(self, before, after):
        if after is None:
            return
        told = (before or {}).get("status"), after.get("status")
        if before is None or told[0] != told[1]:
            self.rules.asked = after
        if told[0] != told[1] and told[1]:
            self.rules.writes["status"] += 1
            self.rules._note_blocked(json.loads(told[1].get("state") or "{}"))


def _version(one):
    return int(one["metadata"]["resourceVersion"])
