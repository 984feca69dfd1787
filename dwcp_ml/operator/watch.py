"""Watches of both kinds with ``kubernetes.watch``: every change adds its object to its queue.

An event only moves the next reconciliation forward, and all objects are listed again every minute
(``app.RESYNC_SECONDS``): a watch that is lost, silent or behind delays a reconciliation and loses
none. So no event is interpreted here, and a watch that ends is simply started again.
"""

from __future__ import annotations

import functools
import logging
import signal
import threading
from collections.abc import Mapping
from typing import Any, Final

from dwcp_ml.kube.api import MODEL_ROLLOUT, TRAINING_RUN, ResourceKind
from dwcp_ml.operator.workqueue import Queue

WATCHED: Final = (MODEL_ROLLOUT, TRAINING_RUN)
WATCH_SECONDS: Final = 120
"""The server ends a watch after this time; one that is silent for longer is started again."""

CONNECT_SECONDS: Final = 10.0
GONE: Final = 410
"""HTTP status of a resource version that is too old to go on from."""

RESTART_SECONDS: Final = 1.0
"""Pause before a watch is started again."""

_LOG = logging.getLogger("dwcp_ml.operator")


def watch(
    queues: Mapping[str, Queue],
    client: Any,
    namespace: str,
    stop: threading.Event,
    ready: threading.Event,
) -> None:
    """Watch until ``stop`` is set, or until SIGTERM or SIGINT; call it from the main thread.

    Parameters
    ----------
    queues
        Where events of each kind go.
    namespace
        The one namespace to watch; empty for all.
    stop, ready
        ``ready`` is set when every watch has been answered once.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    started = [threading.Event() for _ in WATCHED]
    for kind, event in zip(WATCHED, started, strict=True):
        keep = functools.partial(
            keep_watching, queues[kind.kind], client, kind, namespace, stop, event
        )
        threading.Thread(target=keep, name=f"watch-{kind.plural}", daemon=True).start()
    for event in started:
        while not (event.wait(RESTART_SECONDS) or stop.is_set()):
            pass
    if not stop.is_set():
        ready.set()
    stop.wait()


def keep_watching(
    queue: Queue,
    client: Any,
    kind: ResourceKind,
    namespace: str,
    stop: threading.Event,
    started: threading.Event,
) -> None:
    """Watch one kind until ``stop`` is set; a watch that ends goes on where it was."""
    from kubernetes.client import ApiException, CustomObjectsApi
    from kubernetes.watch import Watch

    api = CustomObjectsApi(client)
    request = api.list_namespaced_custom_object if namespace else api.list_cluster_custom_object
    group, _, version = kind.api_version.partition("/")
    options: dict[str, Any] = {"group": group, "version": version, "plural": kind.plural}
    options |= {"namespace": namespace} if namespace else {}
    options |= {
        "timeout_seconds": WATCH_SECONDS,
        "_request_timeout": (CONNECT_SECONDS, WATCH_SECONDS + 30.0),
    }

    @functools.wraps(request)
    def answered(**given: Any) -> Any:
        response = request(**given)
        started.set()
        return response

    resource_version = None
    while not stop.is_set():
        watch = Watch(return_type="object")
        resume: dict[str, str] = (
            {} if resource_version is None else {"resource_version": resource_version}
        )
        try:
            for event in watch.stream(answered, **options, **resume):
                metadata = event["raw_object"]["metadata"]
                queue.add((kind.kind, (metadata.get("namespace", ""), metadata["name"])))
            resource_version = watch.resource_version
        except Exception as error:  # whatever ends a watch, the next one starts
            is_expired = isinstance(error, ApiException) and error.status == GONE
            resource_version = None if is_expired else watch.resource_version
            _LOG.info("The watch of %s ended: %s", kind.plural, " ".join(str(error).split())[:200])
        stop.wait(RESTART_SECONDS)
