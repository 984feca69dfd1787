"""A Kubernetes API server over HTTP, with the ``kubernetes`` package's address and credentials."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.http_client import HttpError, HttpSession, NoResponse, Response, Tls
from dwcp_ml.kube.api import (
    MANAGER,
    AccessDenied,
    ApiUnavailable,
    Conflict,
    Gone,
    Invalid,
    KubeError,
    Object,
    ResourceKind,
    kind_of,
)

TIMEOUT_SECONDS: Final = 15.0
MAX_BYTES: Final = 64_000_000
PAGE_SIZE: Final = 500
"""Objects in one response to a list request."""

READ_ATTEMPTS: Final = 3
"""A reconciliation makes a dozen reads: if one in ten failed, few would be completed."""

_RETRY_SECONDS: Final = 0.2
MAX_RETRY_AFTER_SECONDS: Final = 1.0
"""If the server asks for a longer delay, the read fails; the caller decides when to try again."""

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_MAX_MESSAGE: Final = 400
_JSON: Final = "application/json"
_APPLY: Final = "application/apply-patch+yaml"


class KubeApi:
    """An ``Api`` with the address and the credentials of a ``kubernetes.client.ApiClient``.

    Can be used from several threads, which share connections. A token that is renewed on disk is
    read again. A read is tried up to ``READ_ATTEMPTS`` times, a write once.

    Parameters
    ----------
    manager
        Field manager of ``create`` and ``replace``, and the user agent.
    timeout_seconds
        For each request, until its response is complete.
    http
        Sends the requests; by default a session with the TLS settings of the client.
    """

    def __init__(
        self,
        client: Any,
        *,
        manager: str = MANAGER,
        timeout_seconds: float = TIMEOUT_SECONDS,
        http: HttpSession | None = None,
    ) -> None:
        self._client = client
        self._host = str(client.configuration.host).rstrip("/")
        self._manager = manager
        self._timeout_seconds = timeout_seconds
        self._http = http or session_of(client.configuration)

    @property
    def client(self) -> Any:
        """The ``kubernetes.client.ApiClient``: address and credentials, also for watches."""
        return self._client

    def get(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        try:
            return self._read(_path(kind, namespace, name), f"read {kind.kind} {name}")
        except Gone:
            return None

    def list(
        self, kind: ResourceKind, namespace: str | None = None, labels: str = ""
    ) -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        query = {"limit": str(PAGE_SIZE)} | ({"labelSelector": labels} if labels else {})
        objects: list[Object] = []
        while True:
            page = self._read(_path(kind, namespace), f"list {kind.plural}", query)
            # Items in a list of a built-in kind have neither apiVersion nor kind.
            type_meta = {"apiVersion": kind.api_version, "kind": kind.kind}
            objects.extend({**type_meta, **item} for item in page.get("items") or [])
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return objects
            query["continue"] = token

    def create(self, obj: Object) -> Object:
        """Create the object; ``Conflict`` if it exists."""
        kind, namespace, name = _identity(obj)
        query = {"fieldManager": self._manager}
        path = _path(kind, namespace)
        return self._send("POST", path, f"create {kind.kind} {name}", query=query, body=obj)

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object, or its status, if ``metadata.resourceVersion`` is still its own.

        Raises
        ------
        UsageError
            If it has no resourceVersion: it would overwrite changes that were not seen.
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
        """Apply the object's fields on the server; with a version, only if it is still current."""
        kind, namespace, name = _identity(obj)
        metadata = {**obj["metadata"]}
        metadata.pop("managedFields", None)  # the server rejects it here
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
        kind: ResourceKind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete the object if UID and version, where given, match; do nothing if it is gone."""
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
        """Read; try again if the server is overloaded or briefly unavailable.

        A write is not repeated: the caller first reads what became of it.
        """
        for _ in range(READ_ATTEMPTS - 1):
            try:
                return self._send("GET", path, what, query=query)
            except ApiUnavailable as error:
                retry_after = error.retry_after_seconds or 0.0
                if retry_after > MAX_RETRY_AFTER_SECONDS:
                    raise
                time.sleep(max(retry_after, _RETRY_SECONDS))
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
        content = None if body is None else json.dumps(body).encode()
        try:
            response = self._http.request(
                method, url, self._timeout_seconds, headers=headers, body=content
            )
        except HttpError as error:
            reason = error.reason if isinstance(error, NoResponse) else str(error).rstrip(".")
            raise ApiUnavailable(
                f"The API server gave no response to '{what}' ({reason}): whether it was carried "
                "out is unknown."
            ) from error
        return _content(response, what)


def session_of(configuration: Any) -> HttpSession:
    """Return a session with the TLS settings of a ``kubernetes.client.Configuration``."""
    certificate = (configuration.cert_file, configuration.key_file)
    tls = Tls(
        ca_file=configuration.ssl_ca_cert,
        verify=configuration.verify_ssl,
        client_cert=certificate if all(certificate) else None,
        server_name=configuration.tls_server_name,
    )
    return HttpSession(max_bytes=MAX_BYTES, tls=tls)


def connect(
    kubeconfig: Path | None = None, context: str | None = None, *, manager: str = MANAGER
) -> KubeApi:
    """Return the API server of a kubeconfig; without one, that of the cluster this runs in.

    Parameters
    ----------
    manager
        Field manager of all writes.

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
        raise UsageError(f"No cluster is configured: {_one_line(str(error))}.") from error
    return KubeApi(client.ApiClient(configuration), manager=manager)


def namespace_of(kubeconfig: Path | None = None, context: str | None = None) -> str:
    """Return the namespace of a kubeconfig's context, as kubectl does: ``default`` if it has none.

    Where ``connect`` uses the cluster it runs in, it is that of the pod.
    """
    from kubernetes import config

    if kubeconfig is None and context is None and _POD_NAMESPACE.is_file():
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    try:
        file = None if kubeconfig is None else str(kubeconfig)
        contexts, active = config.list_kube_config_contexts(file)
    except (config.ConfigException, OSError):
        return "default"  # connect says what is wrong with it
    chosen = next((each for each in contexts if each["name"] == context), active)
    return chosen["context"].get("namespace") or "default"


def _identity(obj: Mapping[str, Any]) -> tuple[ResourceKind, str, str]:
    metadata = obj.get("metadata") or {}
    return kind_of(obj), metadata.get("namespace", ""), metadata.get("name", "")


def _path(kind: ResourceKind, namespace: str | None, name: str | None = None) -> str:
    root = "/apis/" if "/" in kind.api_version else "/api/"
    parts = [root + kind.api_version]
    if kind.namespaced and (namespace or name is not None):
        if not namespace:
            raise UsageError(f"{kind.kind} {name} needs a namespace.")
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name is not None:
        if not name:
            raise UsageError(f"The name of the {kind.kind} is missing.")
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def _content(response: Response, what: str) -> Object:
    """Return the object in a successful response.

    Raises
    ------
    KubeError
        If the response is not successful, or holds no object.
    """
    content = response.json()
    if not isinstance(content, dict):
        content = {}
    if 200 <= response.status < 300 and content:
        return content
    message = _one_line(str(content.get("message") or "")) or (
        f"it responded with {response.status}, without a reason"
    )
    error = _failure(response.status, content)(f"The API server does not {what}: {message}.")
    if isinstance(error, ApiUnavailable):
        error.retry_after_seconds = _seconds(response.headers.get("retry-after"))
    raise error


def _failure(status: int, content: Mapping[str, Any]) -> type[KubeError]:
    """Return the error that an HTTP status and a Kubernetes ``Status`` stand for.

    Who denies with 403 can't always be known from the fields. RBAC names the resource in
    ``details.kind`` and gives no causes; so do the built-in admission plugins (quota, pod security)
    and a webhook that copies the format, and all of these are ``AccessDenied``. A webhook's own
    ``Status`` has no ``details.kind``, and that of a ValidatingAdmissionPolicy has causes: both are
    about the object, so ``Invalid``. Neither error is taken for a write that was carried out.
    """
    if status == 403 and content.get("kind") == "Status":
        details = content.get("details") or {}
        return AccessDenied if details.get("kind") and not details.get("causes") else Invalid
    by_status: dict[int, type[KubeError]] = {
        401: AccessDenied, 403: AccessDenied, 404: Gone, 409: Conflict, 410: Gone,
        429: ApiUnavailable,
    }  # fmt: skip
    return by_status.get(status, Invalid if 400 <= status < 500 else ApiUnavailable)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


def _one_line(text: str) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"
