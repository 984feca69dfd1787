"""Other ways to look at a ``MemoryApi``."""

from tests.operator.memory_apply import identity


class Aside:
    """See ``MemoryApi.aside``."""

    def __init__(self, api):
        self._api = api

    def get(self, kind, namespace, name):
        return self._api.at(kind, namespace, name)

    def list(self, kind, namespace=None, labels=""):
        return self._api._select(kind, namespace, labels, None)

    def create(self, obj):
        return self._api._create(*identity(obj), obj)

    def replace(self, obj, *, status=False):
        return self._api._replace(*identity(obj), obj, status)

    def delete(self, kind, namespace, name):
        self._api._delete(kind, namespace, name, None, None)


class Lagging:
    """Reads of the past; see ``MemoryApi.lagging``."""

    def __init__(self, api, behind):
        self._api = api
        self.behind = behind

    def __getattr__(self, name):
        return getattr(self._api, name)

    def get(self, kind, namespace, name):
        then = lambda: self._api.at(kind, namespace, name, self._version)  # noqa: E731
        return self._api._call("get", kind, namespace, name, None, then)

    def list(self, kind, namespace=None, labels=""):
        then = lambda: self._api._select(kind, namespace, labels, self._version)  # noqa: E731
        return self._api._call("list", kind, namespace or "", "", None, then)

    @property
    def _version(self):
        return self._api.version - self.behind
