"""An API server that fails: some of a client's requests, at the transport, as it really happens."""

import random
import threading
from contextlib import contextmanager

from dwcp_ml.http_client import NoResponse, Response
from dwcp_ml.kube.client import KubeApi, session_of

_KINDS = ("429", "500", "503", "refused", "no answer", "timed out after it was done")


class FaultySession:
    """An ``HttpSession`` of which a share of the requests fails; ``failed`` counts them by kind."""

    def __init__(self, session, share, seed):
        self._session, self._share = session, share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.requests, self.failed = 0, dict.fromkeys(_KINDS, 0)

    def request(self, method, url, timeout_seconds, **how):
        fault = self._fault()
        if fault is None:
            return self._session.request(method, url, timeout_seconds, **how)
        if fault in {"refused", "no answer"}:
            raise NoResponse(url, f"{fault}, by a test")
        if fault.isdigit():
            headers = {"retry-after": "1"} if fault == "429" else {}
            return Response(int(fault), headers, b'{"kind": "Status", "message": "by a test"}')
        self._session.request(method, url, timeout_seconds, **how)
        raise NoResponse(url, "after it was done, by a test")

    def _fault(self):
        with self._lock:
            self.requests += 1
            if self._random.random() >= self._share:
                return None
            fault = self._random.choice(_KINDS)
            self.failed[fault] += 1
            return fault


@contextmanager
def faulty(client, share, seed=1):
    """Yield (an ``Api`` over a client, its session), a share of whose requests fails."""
    with session_of(client.configuration) as real:
        session = FaultySession(real, share, seed)
        yield KubeApi(client, timeout_seconds=10.0, http=session), session
