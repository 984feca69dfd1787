"""What an API server holds, kept up to date by a watch; the cache of a fake controller."""

import contextlib
import json
import threading
from urllib.parse import quote

from tests.cluster.rest import RequestRejected

_WATCH_SECONDS = 60
_AGAIN_SECONDS = 0.2


class Informer:
    """Objects of one kind by (namespace, name); calls ``changed(key)`` after each change.

    A watch that ends, for whatever reason, is followed by a new list: what was missed meanwhile is
    seen as a change.
    """

    def __init__(self, rest, path, changed, selector=""):
        self._path = f"{path}?labelSelector={quote(selector)}"
        self.objects = {}
        self.synced = threading.Event()
        self._rest = rest
        self._changed = changed
        self._over = threading.Event()
        self._open = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._over.set()
        answer = self._open
        if answer is not None:
            with contextlib.suppress(Exception):
                answer.shutdown()  # wakes the reader, which a close does not
        self._thread.join(5.0)

    def _run(self):
        while not self._over.is_set():
            try:
                self._watch(self._list())
            except Exception:  # the API server restarts, or answers 410
                self._over.wait(_AGAIN_SECONDS)

    def _list(self):
        listed = self._rest.get(self._path)
        found = {_key(one): one for one in listed["items"]}
        gone = self.objects.keys() - found.keys()
        changed = [key for key, one in found.items() if self.objects.get(key) != one]
        self.objects = found
        self.synced.set()
        for key in [*gone, *changed]:
            self._changed(key)
        return listed["metadata"]["resourceVersion"]

    def _watch(self, version):
        query = f"&watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        self._open = self._rest.stream(self._path + query, _WATCH_SECONDS + 5.0)
        try:
            if self._over.is_set():  # stop may have looked before there was anything to wake
                return
            for event in _lines(self._open):
                if self._over.is_set():
                    return
                one = event["object"]
                if event["type"] == "ERROR":
                    raise RequestRejected(
                        one.get("code", 410), one.get("message", "the watch ended")
                    )
                if event["type"] == "DELETED":
                    self.objects.pop(_key(one), None)
                else:
                    self.objects[_key(one)] = one
                self._changed(_key(one))
        finally:
            self._open.close()
            self._open = None


def _key(one):
    return one["metadata"].get("namespace", ""), one["metadata"]["name"]


def _lines(answer):
    rest = b""
    while part := answer.read1():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield json.loads(line)
