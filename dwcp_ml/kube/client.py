"""A Kubernetes API server over HTTP, with the ``kubernetes`` package's address and credentials."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import (
    MANAGER,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    Kind,
    KubeError,
    Object,
    Unavailable,
    kind_of,
)

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
LARGEST_BYTES: Final = 64_000_000
PAGE: Final = 500
"""Objects that one request of a list asks for."""

READ_TRIES: Final = 3
"""A look makes a dozen reads: where one in ten failed, few looks would come to anything."""

_BETWEEN_TRIES_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 1.0
"""A server that asks for more is left alone by whoever asked."""

_LONGEST_MESSAGE: Final = 400
_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"


class KubeApi:
    """An ``Api`` over the address and the credentials of a ``kubernetes.client.ApiClient``.

    Can be used from several threads. A token that is renewed on disk is read again. A read is tried
    up to ``READ_TRIES`` times, a write once.

    Parameters
    ----------
    client
        The ``ApiClient``.
    manager
        Field manager of ``create`` and ``replace``, and who it says it is.
    answer_seconds
        For each request, from the connection to the end of the headers, and for each part after.
    """

    def __init__(
        self, client: Any, *, manager: str = MANAGER, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._client = client
        self._host = str(client.configuration.host).rstrip("/")
        self._manager = manager
        self._timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=answer_seconds)

    @property
    def configuration(self) -> Any:
        """The ``kubernetes.client.Configuration``: address and credentials, for whoever watches."""
        return self._client.configuration

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        try:
            return self._read(_path(kind, namespace, name), f"read {kind.kind} {name}")
        except Gone:
            return None

    def list(self, kind: Kind, namespace: str | None = None, labels: str = "") -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        query = {"limit": str(PAGE)} | ({"labelSelector": labels} if labels else {})
        found: list[Object] = []
        while True:
            page = self._read(_path(kind, namespace), f"list {kind.plural}", query)
            # Items of the built-in kinds do not say what they are.
            said = {"apiVersion": kind.api_version, "kind": kind.kind}
            found.extend({**said, **item} for item in page.get("items") or [])
            further = (page.get("metadata") or {}).get("continue")
            if not further:
                return found
            query["continue"] = further

    def create(self, obj: Object) -> Object:
        """Create the object; ``Conflict`` if it is there already."""
        kind, namespace, name = _identity(obj)
        query = {"fieldManager": self._manager}
        path = _path(kind, namespace)
        return self._send("POST", path, f"create {kind.kind} {name}", query=query, body=obj)

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object, or its status, if ``metadata.resourceVersion`` is still its own.

        Raises
        ------
        UsageError
            If it has no resourceVersion: then it would overwrite whatever is there.
        """
        kind, namespace, name = _identity(obj)
        if not obj["metadata"].get("resourceVersion"):
            raise UsageError(f"{kind.kind} {name} has no resourceVersion: read it first.")
        what = f"replace {'the status of ' if status else ''}{kind.kind} {name}"
        path = _path(kind, namespace, name) + ("/status" if status else "")
        return self._send("PUT", path, what, query={"fieldManager": self._manager}, body=obj)

    def apply(
        self, obj: Object, *, manager: str, resource_version: str | None, force: bool = False
    ) -> Object:
        """Apply the fields of the object on the server's side; with a version, only to that one."""
        kind, namespace, name = _identity(obj)
        metadata = {**obj["metadata"]}
        metadata.pop("managedFields", None)  # the server takes none here
        metadata.pop("resourceVersion", None)
        if resource_version is not None:
            metadata["resourceVersion"] = resource_version
        query = {"fieldManager": manager} | ({"force": "true"} if force else {})
        return self._send(
            "PATCH", _path(kind, namespace, name), f"apply {kind.kind} {name}",
            query=query, body={**obj, "metadata": metadata}, content_type=_APPLY,
        )  # fmt: skip

    def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete the object, if it is the one that is meant; does nothing if there is none."""
        conditions = {"uid": uid, "resourceVersion": resource_version}
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {key: value for key, value in conditions.items() if value},
        }
        try:
            path = _path(kind, namespace, name)
            self._send("DELETE", path, f"delete {kind.kind} {name}", body=body)
        except Gone:
            return

    def _read(self, path: str, what: str, query: Mapping[str, str] | None = None) -> Object:
        """Read, and read again if the server is only busy or away for a moment.

        A write is never made twice: whoever asked for it looks first what became of it.
        """
        for _ in range(READ_TRIES - 1):
            try:
                return self._send("GET", path, what, query=query)
            except Unavailable as error:
                asked = error.retry_after_seconds or 0.0
                if asked > LONGEST_WAIT_SECONDS:
                    raise
                time.sleep(max(asked, _BETWEEN_TRIES_SECONDS))
        return self._send("GET", path, what, query=query)

    def _send(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
    ) -> Object:
        headers = {"Accept": _JSON, "User-Agent": self._manager}
        if body is not None:
            headers["Content-Type"] = content_type
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data: bytes = answer.read(LARGEST_BYTES + 1, decode_content=True)
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(
                f"the API server gave no answer to '{what}' ({_kind_of_failure(error)}): whether "
                "it was carried out is unknown."
            ) from error
        return _content(answer.status, answer.headers, data, what)


def connect(
    kubeconfig: Path | None = None, context: str | None = None, *, manager: str = MANAGER
) -> KubeApi:
    """Return the API server that a kubeconfig names; without one, that of the pod this runs in.

    Parameters
    ----------
    manager
        Field manager of what is written.

    Raises
    ------
    UsageError
        If there is neither.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    try:
        if kubeconfig is None and context is None:
            try:
                config.load_incluster_config(configuration)
            except config.ConfigException:
                config.load_kube_config(client_configuration=configuration)
        else:
            file = None if kubeconfig is None else str(kubeconfig)
            config.load_kube_config(file, context, configuration)
    except (config.ConfigException, OSError) as error:
        raise UsageError(f"there is no cluster to talk to: {_one_line(str(error))}.") from error
    return KubeApi(client.ApiClient(configuration), manager=manager)


def _identity(obj: Mapping[str, Any]) -> tuple[Kind, str, str]:
    metadata = obj.get("metadata") or {}
    return kind_of(obj), metadata.get("namespace", ""), metadata.get("name", "")


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    root = "/apis/" if "/" in kind.api_version else "/api/"
    parts = [root + kind.api_version]
    if kind.namespaced and (namespace or name is not None):
        if not namespace:
            raise UsageError(f"{kind.kind} {name} needs a namespace.")
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name is not None:
        if not name:
            raise UsageError(f"name the {kind.kind}.")
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def _content(status: int, headers: Mapping[str, str], data: bytes, what: str) -> Object:
    """Return the object of a good answer.

    Raises
    ------
    KubeError
        If the answer is none.
    """
    try:
        found = json.loads(data) if len(data) <= LARGEST_BYTES else None
    except ValueError:
        found = None
    said = found if isinstance(found, dict) else {}
    if 200 <= status < 300 and said:
        return said
    message = _one_line(str(said.get("message") or "")) or f"it answered {status}, and no reason"
    error = _failure(status, message)(f"the API server does not {what}: {message}.")
    if isinstance(error, Unavailable):
        error.retry_after_seconds = _seconds(headers.get("Retry-After"))
    raise error


def _failure(status: int, message: str) -> type[KubeError]:
    """Return what an answer means.

    A webhook that denies an object does so with 403, too, which is no matter of rights.
    """
    if "denied the request" in message:
        return Invalid
    named: dict[int, type[KubeError]] = {
        401: Forbidden, 403: Forbidden, 404: Gone, 409: Conflict, 410: Gone, 429: Unavailable,
    }  # fmt: skip
    return named.get(status, Invalid if 400 <= status < 500 else Unavailable)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _LONGEST_MESSAGE else line[: _LONGEST_MESSAGE - 1] + "…"


def _kind_of_failure(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return _one_line(str(error)) or type(error).__name__
