"""Who leads: a Lease of our own, and an API that lets only its holder write.

A process that was paused may wake up and believe that it still leads. Two things stop it. Before
each write the time since its last renewal is looked at, by a clock that only measures. And each
write is on the condition of the object's resourceVersion, so that it fails once the next leader has
written to the object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dwcp_ml.kube.api import LEASE, Api, Conflict, KubeError, Object, ResourceKind
from dwcp_ml.operator.settings import SYSTEM_CLOCK, Clock

LEASE_SECONDS: Final = 15.0
"""So long after the last renewal that it saw another one takes over."""

RENEW_BY_SECONDS: Final = 10.0
"""So long after its last renewal the holder stops writing: before anybody else may begin."""

RETRY_SECONDS: Final = 2.0


class NotLeader(KubeError):
    """Somebody else leads, or may; nothing was sent."""


class Lease:
    """One process's part in the election.

    Parameters
    ----------
    api
        Unguarded.
    namespace, name
        Of the Lease.
    identity
        Who this is; no two processes may have the same.
    clock
        Times of others are never compared with it: a Lease is run out when it did not change for
        its whole duration, as measured here.
    """

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._renewed_at: float | None = None
        self._seen: tuple[str, float] | None = None
        self._lock = threading.Lock()

    @property
    def leads(self) -> bool:
        """Whether this process may write now."""
        renewed = self._renewed_at
        return renewed is not None and self._clock.monotonic() - renewed < RENEW_BY_SECONDS

    def check(self) -> None:
        """Raise unless this process may write now.

        Raises
        ------
        NotLeader
            If it may not.
        """
        if not self.leads:
            raise NotLeader(f"{self._identity} does not lead: nothing is written.")

    def take_part(self) -> bool:
        """Renew the Lease, or take it if nobody holds it; return whether this process leads.

        Call it every ``RETRY_SECONDS``. What goes wrong with the API server means not renewed.
        """
        with self._lock:
            begun = self._clock.monotonic()
            try:
                is_ours = self._renew_or_take(begun)
            except KubeError:
                return self.leads
            # Counted from before the request: it may have taken long.
            self._renewed_at = begun if is_ours else None
            return self.leads

    def release(self) -> None:
        """Give the Lease back, so that another one need not wait; only if it is held."""
        with self._lock:
            self._renewed_at = None
            try:
                found = self._api.get(LEASE, self._namespace, self._name)
                if found is None or _spec(found).get("holderIdentity") != self._identity:
                    return
                self._api.replace(self._with(found, holder="", seconds=1))
            except KubeError:
                return  # it runs out

    def _renew_or_take(self, now: float) -> bool:
        found = self._api.get(LEASE, self._namespace, self._name)
        if found is None:
            return self._create()
        spec = _spec(found)
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not self._has_run_out(found, now):
            return False
        try:
            self._api.replace(self._with(found, holder=self._identity, seconds=LEASE_SECONDS))
        except Conflict:
            return False
        return True

    def _has_run_out(self, found: Object, now: float) -> bool:
        version = found["metadata"].get("resourceVersion", "")
        if self._seen is None or self._seen[0] != version:
            self._seen = version, now
            return False
        seconds = _spec(found).get("leaseDurationSeconds") or LEASE_SECONDS
        return now - self._seen[1] >= float(seconds)

    def _create(self) -> bool:
        lease = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
        }
        try:
            self._api.create(self._with(lease, holder=self._identity, seconds=LEASE_SECONDS))
        except Conflict:
            return False
        return True

    def _with(self, found: Object, *, holder: str, seconds: float) -> Object:
        before = _spec(found)
        moment = _micro_time(self._clock.wall())
        spec = {**before, "holderIdentity": holder, "leaseDurationSeconds": int(seconds),
                "renewTime": moment}  # fmt: skip
        if before.get("holderIdentity") != holder and holder:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + 1
        return {**found, "spec": spec}


def _spec(lease: Object) -> dict[str, Any]:
    return lease.get("spec") or {}


def _micro_time(epoch_seconds: float) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _uncounted(kind: str, status: bool) -> None:
    """Count nothing."""
    del kind, status


@dataclass(frozen=True)
class GuardedApi:
    """An ``Api`` that writes only while ``check`` allows it, and counts what it writes.

    Parameters
    ----------
    api
        Who really asks the server.
    check
        Raises where nothing may be written; asked before each write.
    wrote
        Told of each write that was carried out: kind of the object, and whether it was its status.
    """

    api: Api
    check: Callable[[], None]
    wrote: Callable[[str, bool], None] = _uncounted

    def get(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        return self.api.get(kind, namespace, name)

    def list(
        self, kind: ResourceKind, namespace: str | None = None, labels: str = ""
    ) -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        return self.api.list(kind, namespace, labels)

    def create(self, obj: Object) -> Object:
        """Create the object."""
        self.check()
        made = self.api.create(obj)
        self.wrote(str(obj["kind"]), False)
        return made

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object, or its status."""
        self.check()
        made = self.api.replace(obj, status=status)
        self.wrote(str(obj["kind"]), status)
        return made

    def apply(
        self, obj: Object, *, manager: str, resource_version: str | None, force: bool = False
    ) -> Object:
        """Apply the fields of the object."""
        self.check()
        made = self.api.apply(obj, manager=manager, resource_version=resource_version, force=force)
        self.wrote(str(obj["kind"]), False)
        return made

    def delete(
        self,
        kind: ResourceKind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete the object."""
        self.check()
        self.api.delete(kind, namespace, name, uid=uid, resource_version=resource_version)
        self.wrote(kind.kind, False)
