"""An API server that fails: some of a client's requests, at the transport, as it really happens."""

import io
import random
import threading
from contextlib import contextmanager

import urllib3

from dwcp_ml.kube.client import KubeApi

_KINDS = ("429", "500", "503", "refused", "no answer", "timed out after it was done")


class FaultyPool:
    """A urllib3 pool of which a share of the requests fails; ``failed`` counts them by kind."""

    def __init__(self, pool, share, seed):
        self._pool, self._share = pool, share
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self.requests, self.failed = 0, dict.fromkeys(_KINDS, 0)

    def request(self, method, url, **how):
        fault = self._fault()
        if fault is None:
            return self._pool.request(method, url, **how)
        if fault == "refused":
            raise urllib3.exceptions.NewConnectionError(self._pool, "refused, by a test")
        if fault == "no answer":
            raise urllib3.exceptions.ProtocolError("cut off, by a test")
        if fault.isdigit():
            headers = {"Retry-After": "1"} if fault == "429" else {}
            body = io.BytesIO(b'{"kind": "Status", "message": "by a test"}')
            return urllib3.HTTPResponse(
                body, headers=headers, status=int(fault), preload_content=False
            )
        answer = self._pool.request(method, url, **how)
        answer.read()
        answer.release_conn()
        raise urllib3.exceptions.ReadTimeoutError(self._pool, url, "after it was done, by a test")

    def __getattr__(self, name):
        return getattr(self._pool, name)

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
    """Yield (an ``Api`` over a client, its pool), a share of whose requests fails."""
    rest = client.rest_client
    real = rest.pool_manager
    rest.pool_manager = pool = FaultyPool(real, share, seed)
    try:
        yield KubeApi(client, answer_seconds=10.0), pool
    finally:
        rest.pool_manager = real
