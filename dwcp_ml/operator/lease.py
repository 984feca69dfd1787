"""Leader election by a Lease, and an API that lets only its holder write.

A process that was paused may still believe that it leads when it resumes. Two checks prevent its
writes: before each one the time since its last renewal is checked by the monotonic clock, and each
carries the object's resourceVersion, so that it fails once the next leader has written.
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
"""Another process takes over this long after the last renewal that it saw."""

RENEW_BY_SECONDS: Final = 10.0
"""The holder stops writing this long after its last renewal, before another may start."""

RETRY_SECONDS: Final = 2.0


class NotLeader(KubeError):
    """Another process leads, or may; nothing was sent."""


class Lease:
    """One process's part in the election.

    Parameters
    ----------
    api
        Unguarded.
    identity
        Of this process, unique.
    clock
        Never compared with times of other processes: a Lease has expired when it did not change
        for its whole duration by this clock.
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
        self._observed: tuple[str, float] | None = None
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
        """Renew the Lease, or take it if it is free; return whether this process leads.

        Call it every ``RETRY_SECONDS``. After an error of the API server it is not renewed.
        """
        with self._lock:
            started = self._clock.monotonic()
            try:
                is_ours = self._renew_or_take(started)
            except KubeError:
                return self.leads
            # Counted from before the request: it may have taken long.
            self._renewed_at = started if is_ours else None
            return self.leads

    def release(self) -> None:
        """Release the Lease if it is held, so that the next leader need not wait."""
        with self._lock:
            self._renewed_at = None
            try:
                lease = self._api.get(LEASE, self._namespace, self._name)
                if lease is None or _spec(lease).get("holderIdentity") != self._identity:
                    return
                self._api.replace(self._with(lease, holder="", seconds=1))
            except KubeError:
                return  # It expires.

    def _renew_or_take(self, now: float) -> bool:
        lease = self._api.get(LEASE, self._namespace, self._name)
        if lease is None:
            return self._create()
        spec = _spec(lease)
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self._identity and not self._has_expired(lease, now):
            return False
        try:
            self._api.replace(self._with(lease, holder=self._identity, seconds=LEASE_SECONDS))
        except Conflict:
            return False
        return True

    def _has_expired(self, lease: Object, now: float) -> bool:
        version = lease["metadata"].get("resourceVersion", "")
        if self._observed is None or self._observed[0] != version:
            self._observed = version, now
            return False
        seconds = _spec(lease).get("leaseDurationSeconds") or LEASE_SECONDS
        return now - self._observed[1] >= float(seconds)

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

    def _with(self, lease: Object, *, holder: str, seconds: float) -> Object:
        before = _spec(lease)
        moment = _micro_time(self._clock.wall())
        spec = {**before, "holderIdentity": holder, "leaseDurationSeconds": int(seconds),
                "renewTime": moment}  # fmt: skip
        if before.get("holderIdentity") != holder and holder:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + 1
        return {**lease, "spec": spec}


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
    check
        Called before each write; raises if writing is not allowed.
    wrote
        Called after each successful write: kind of the object, and whether it was its status.
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
