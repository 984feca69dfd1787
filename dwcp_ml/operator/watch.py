"""What kopf does here: it watches, and tells the queue which objects changed. Nothing else.

kopf's own handlers, timers and daemons keep their bookkeeping in annotations of the object, put a
finalizer of their own on it, and run in every replica: each of these is a write that no Lease
guards and no test of ours counts. So only ``on.event`` is used, which writes nothing.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import kopf

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, Kind
from dwcp_ml.operator.workqueue import Queue

WATCHED: Final = (MODEL_ROLLOUT, TRAINING_RUN)
SILENCE_SECONDS: Final = 120
"""A watch that says nothing so long is begun anew."""


def registry_of(queue: Queue, configuration: Any) -> kopf.OperatorRegistry:
    """Return what kopf is to do: to add every object that changed to the queue.

    Parameters
    ----------
    configuration
        The ``kubernetes.client.Configuration`` of whoever writes: both talk to one server.
    """
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection_of(configuration)

    kopf.on.login(registry=registry, id="login")(login)
    for kind in WATCHED:
        group, _, version = kind.api_version.partition("/")
        kopf.on.event(group, version, kind.plural, registry=registry, id=kind.kind)(
            _adds(queue, kind)
        )
    return registry


def settings_of() -> kopf.OperatorSettings:
    """Return kopf's settings: it writes nothing, and asks for nothing but the two kinds."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = SILENCE_SECONDS
    settings.watching.client_timeout = SILENCE_SECONDS + 30
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    return settings


def watch(
    queue: Queue,
    configuration: Any,
    namespace: str,
    stop: threading.Event,
    ready: threading.Event,
) -> None:
    """Watch until told to stop, by the event or by a signal; the main thread only.

    Parameters
    ----------
    queue
        Told of every change.
    configuration
        As in ``registry_of``.
    namespace
        The one to watch; empty for all.
    stop, ready
        The second is set when the watches have begun.
    """
    registry = registry_of(queue, configuration)

    async def ended(**_: Any) -> None:
        # kopf waits for the flag in a thread, which outlives a signal: the process would never end.
        stop.set()

    kopf.on.cleanup(registry=registry, id="ended")(ended)
    scope: dict[str, Any] = {"namespaces": [namespace]} if namespace else {"clusterwide": True}
    kopf.run(
        registry=registry,
        settings=settings_of(),
        standalone=True,
        stop_flag=stop,
        ready_flag=ready,
        **scope,
    )


def _adds(queue: Queue, kind: Kind) -> Any:
    async def seen(name: str, namespace: str | None, **_: Any) -> None:
        queue.add((kind.kind, (namespace or "", name)))

    return seen


def connection_of(configuration: Any) -> kopf.ConnectionInfo:
    """Return the address and the credentials as kopf takes them; called again when they expire."""
    bearer = configuration.auth_settings().get("BearerToken", {}).get("value") or ""
    scheme, _, token = bearer.rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert or None,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file or None,
        private_key_path=configuration.key_file or None,
        scheme=scheme or None,
        token=token or None,
    )
