"""An API server in memory: a named fake of ``dwcp_ml.kube.api.Api``.

Like the real one: resource versions that rise over all objects, optimistic locking, a generation
that rises with each change of the spec, a status that is written apart, finalizers, owners whose
objects go with them, no write where nothing changes, admission.

Simpler: server-side apply knows only who applied which leaf, lists are leaves, and what was written
by ``create`` or ``replace`` belongs to nobody; label selectors are ``a=b`` and ``a``; owned objects
go at once; there is no schema.
"""

import itertools
from dataclasses import dataclass, replace

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import Conflict, Gone, Invalid, ResourceKind
from tests.operator.memory_apply import applied, copied, identity, leaves
from tests.operator.memory_views import Aside, Lagging

WRITES = frozenset({"create", "replace", "replace status", "apply", "delete"})
_WITHOUT_STATUS = frozenset({"Event", "Lease"})


@dataclass(frozen=True)
class Call:
    """One call: ``obj`` is what was sent; of a call that is over ``answer`` is what came back."""

    verb: str
    kind: ResourceKind
    namespace: str
    name: str
    obj: dict | None = None
    answer: object = None

    @property
    def is_write(self):
        return self.verb in WRITES


@dataclass(frozen=True)
class Change:
    """One event of a watch; ``before`` is the object as it was, None for a new one."""

    version: int
    type: str  # ADDED, MODIFIED, DELETED
    kind: ResourceKind
    obj: dict
    before: dict | None


class MemoryApi:
    """Attributes to set:

    before, after
        Called with each ``Call``, reads too. What they raise the caller gets: from ``before`` as if
        the request never came there, from ``after`` as if the answer was lost.
    admit
        Called with each object that is created or changed (not its status); returns why it is
        refused, or None.
    now
        Returns the time of creation and deletion as Kubernetes writes it.

    Attributes to read: ``changes``, the log of the watches; ``writes``, the calls that were
    carried out.
    """

    def __init__(self, admit=None, now=lambda: "2026-01-01T00:00:00Z"):
        self.before = lambda call: None
        self.after = lambda call: None
        self.admit = admit or (lambda obj: None)
        self.now = now
        self.changes = []
        self.writes = []
        self.version = 0
        self._objects = {}
        self._history = {}
        self._known = {}
        self._applied = {}
        self._ids = itertools.count(1)

    # what is asked

    def get(self, kind, namespace, name):
        return self._call(
            "get", kind, namespace, name, None, lambda: self.at(kind, namespace, name)
        )

    def list(self, kind, namespace=None, labels=""):
        found = lambda: self._select(kind, namespace, labels, None)  # noqa: E731
        return self._call("list", kind, namespace or "", "", None, found)

    def create(self, obj):
        kind, namespace, name = identity(obj)
        return self._call(
            "create", kind, namespace, name, obj, lambda: self._create(kind, namespace, name, obj)
        )

    def replace(self, obj, *, status=False):
        kind, namespace, name = identity(obj)
        if not obj["metadata"].get("resourceVersion"):
            raise UsageError(f"{kind.kind} {name} has no resourceVersion: read it first.")
        verb = "replace status" if status else "replace"
        change = lambda: self._replace(kind, namespace, name, obj, status)  # noqa: E731
        return self._call(verb, kind, namespace, name, obj, change)

    def apply(self, obj, *, manager, resource_version, force=False):
        kind, namespace, name = identity(obj)
        change = lambda: self._apply(obj, manager, resource_version, force)  # noqa: E731
        return self._call("apply", kind, namespace, name, obj, change)

    def delete(self, kind, namespace, name, *, uid=None, resource_version=None):
        change = lambda: self._delete(kind, namespace, name, uid, resource_version)  # noqa: E731
        return self._call("delete", kind, namespace, name, None, change)

    # what a test may look at, or do, past the hooks

    def aside(self):
        """Return the same server for those who play a part: no hooks, and not among ``writes``."""
        return Aside(self)

    def at(self, kind, namespace, name, version=None):
        """Return the object as it was at a version of the whole; by default as it is."""
        return copied(self._then((kind, namespace, name), version))

    def lagging(self, behind):
        """Return a view whose reads are ``behind`` versions old; its writes go through."""
        return Lagging(self, behind)

    def edit(self, kind, namespace, name, change):
        """Let somebody else change an object: ``change`` gets it, and changes it in its place."""
        found = self.at(kind, namespace, name)
        change(found)
        return self._replace(kind, namespace, name, found, False)

    # how it is done

    def _call(self, verb, kind, namespace, name, obj, do):
        call = Call(verb, kind, namespace, name, copied(obj))
        self.before(call)
        answer = do()
        done = Call(verb, kind, namespace, name, call.obj, answer)
        if done.is_write:
            done = replace(done, answer=copied(answer))
            self.writes.append(done)
        self.after(done)
        return answer

    def _then(self, key, version):
        if version is None:
            return self._objects.get(key)
        past = (obj for at, obj in reversed(self._history.get(key, ())) if at <= version)
        return next(past, None)

    def _select(self, kind, namespace, labels, version):
        keys = sorted(self._known.get(kind, ()), key=lambda key: key[1:])
        found = [self._then(key, version) for key in keys if namespace in (None, key[1])]
        return [copied(obj) for obj in found if obj is not None and _selected(obj, labels)]

    def _create(self, kind, namespace, name, obj):
        if (kind, namespace, name) in self._objects:
            raise Conflict(f"{kind.kind} {name} is there already.")
        self._check(obj)
        made = copied(obj)
        if kind.kind not in _WITHOUT_STATUS:
            made.pop("status", None)
        made["metadata"].update(
            uid=f"uid-{next(self._ids)}", generation=1, creationTimestamp=self.now()
        )
        made["metadata"].pop("deletionTimestamp", None)
        return self._store(kind, namespace, name, made)

    def _replace(self, kind, namespace, name, obj, status):
        old = self._objects.get((kind, namespace, name))
        if old is None:
            raise Gone(f"there is no {kind.kind} {name}.")
        if obj["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
            raise Conflict(f"{kind.kind} {name} has changed.")
        new = copied(old if status else obj)
        if status:
            new["status"] = copied(obj.get("status"))
        else:
            self._keep_what_is_not_theirs(kind, old, new)
            self._check(new)
        if new == old:
            return copied(old)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._remove(kind, namespace, name)
            return new
        return self._store(kind, namespace, name, new)

    def _keep_what_is_not_theirs(self, kind, old, new):
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "generation"):
            new["metadata"].pop(field, None)
            if field in old["metadata"]:
                new["metadata"][field] = old["metadata"][field]
        if kind.kind not in _WITHOUT_STATUS:
            new.pop("status", None)
            if "status" in old:
                new["status"] = copied(old["status"])
        rest = [
            {k: v for k, v in one.items() if k not in ("metadata", "status")} for one in (old, new)
        ]
        if rest[0] != rest[1]:
            new["metadata"]["generation"] += 1

    def _apply(self, obj, manager, resource_version, force):
        kind, namespace, name = key = identity(obj)
        old = self._objects.get(key)
        if old is None:
            if resource_version is not None:
                raise Conflict(f"there is no {kind.kind} {name} of version {resource_version}.")
            self._applied[key] = {manager: set(dict(leaves(obj)))}
            return self._create(kind, namespace, name, obj)
        if resource_version not in (None, old["metadata"]["resourceVersion"]):
            raise Conflict(f"{kind.kind} {name} has changed.")
        new, owners = applied(old, obj, self._applied.get(key, {}), manager, force)
        made = self._replace(kind, namespace, name, new, False)
        self._applied[key] = owners
        return made

    def _delete(self, kind, namespace, name, uid, resource_version):
        old = self._objects.get((kind, namespace, name))
        if old is None:
            return
        metadata = old["metadata"]
        if uid not in (None, metadata["uid"]):
            raise Conflict(f"{kind.kind} {name} is another one.")
        if resource_version not in (None, metadata["resourceVersion"]):
            raise Conflict(f"{kind.kind} {name} has changed.")
        if not metadata.get("finalizers"):
            self._remove(kind, namespace, name)
        elif "deletionTimestamp" not in metadata:
            going = copied(old)
            going["metadata"]["deletionTimestamp"] = self.now()
            going["metadata"]["generation"] += 1
            self._store(kind, namespace, name, going)

    def _check(self, obj):
        why = self.admit(copied(obj))
        if why:
            raise Invalid(f"an admission webhook denied the request: {why}.")

    def _store(self, kind, namespace, name, obj):
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        key = (kind, namespace, name)
        old = self._objects.get(key)
        self._objects[key] = obj
        self._log("MODIFIED" if old else "ADDED", key, obj, old)
        return copied(obj)

    def _remove(self, kind, namespace, name):
        self.version += 1
        key = (kind, namespace, name)
        old = self._objects.pop(key)
        self._applied.pop(key, None)
        self._log("DELETED", key, None, old)
        owned = [
            other
            for other, obj in self._objects.items()
            if any(
                owner["uid"] == old["metadata"]["uid"]
                for owner in obj["metadata"].get("ownerReferences", [])
            )
        ]
        for other in owned:
            self._delete(*other, None, None)

    def _log(self, what, key, obj, old):
        self._known.setdefault(key[0], set()).add(key)
        self._history.setdefault(key, []).append((self.version, copied(obj)))
        shown = copied(obj if obj is not None else old)
        self.changes.append(Change(self.version, what, key[0], shown, copied(old)))


def _selected(obj, labels):
    has = obj["metadata"].get("labels") or {}
    for term in filter(None, labels.split(",")):
        key, equals, value = term.partition("=")
        if key not in has or (equals and has[key] != value):
            return False
    return True
