"""The operations on a Kubernetes API server: objects as dictionaries, errors by class.

    KubeError           base of the five
    ├── AccessDenied    the operator is not authenticated, or may not do this; or a quota is used up
    ├── ApiUnavailable  no response, or not a usable one
    ├── Conflict        the object has changed since it was read, or exists already
    ├── Gone            the object does not exist, or the requested version is too old
    └── Invalid         the server, or an admission webhook, rejects the object

After ``ApiUnavailable`` it is unknown whether a write was carried out. Writes are not repeated
here: the caller reads the object and decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from dwcp_ml.contract.errors import DwcpError, UsageError

MANAGER: Final = "dwcp-ml-operator"
"""The field manager of everything that the operator writes."""

Object = dict[str, Any]


class KubeError(DwcpError):
    """A request to the API server failed."""


class Conflict(KubeError):
    """The object has changed since it was read, or exists already."""


class AccessDenied(KubeError):
    """The API server did not authenticate the operator, or does not permit the request.

    The latter also if a built-in admission plugin, such as a quota, denies it: its response has the
    same fields as RBAC's.
    """


class Gone(KubeError):
    """The object does not exist, or the requested version is too old."""


class Invalid(KubeError):
    """The API server, an admission webhook or an admission policy rejects the object."""


class ApiUnavailable(KubeError):
    """No usable response; whether a write was carried out is unknown.

    Attributes
    ----------
    retry_after_seconds
        The server's ``Retry-After``; ``None`` if it sends none.
    """

    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class ResourceKind:
    """A kind of object, and the path of its objects.

    Parameters
    ----------
    api_version
        ``group/version``, or ``v1``.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


INFERENCE_SERVICE: Final = ResourceKind(
    "serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"
)
HTTP_ROUTE: Final = ResourceKind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
DEPLOYMENT: Final = ResourceKind("apps/v1", "Deployment", "deployments")
POD: Final = ResourceKind("v1", "Pod", "pods")
KNATIVE_SERVICE: Final = ResourceKind("serving.knative.dev/v1", "Service", "services")
MODEL_ROLLOUT: Final = ResourceKind("ml.dwcp.io/v1alpha1", "ModelRollout", "modelrollouts")
TRAINING_RUN: Final = ResourceKind("ml.dwcp.io/v1alpha1", "TrainingRun", "trainingruns")
LEASE: Final = ResourceKind("coordination.k8s.io/v1", "Lease", "leases")
EVENT: Final = ResourceKind("v1", "Event", "events")

KINDS: Final = (
    INFERENCE_SERVICE, HTTP_ROUTE, DEPLOYMENT, POD, KNATIVE_SERVICE, MODEL_ROLLOUT, TRAINING_RUN,
    LEASE, EVENT,
)  # fmt: skip


class Api(Protocol):
    """The API server as the operator uses it. Every method may raise any ``KubeError``."""

    def get(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        ...

    def list(
        self, kind: ResourceKind, namespace: str | None = None, labels: str = ""
    ) -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        ...

    def create(self, obj: Object) -> Object:
        """Create the object; ``Conflict`` if it exists."""
        ...

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object, or its status, if ``metadata.resourceVersion`` is still its own."""
        ...

    def apply(
        self, obj: Object, *, manager: str, resource_version: str | None, force: bool = False
    ) -> Object:
        """Apply the object's fields on the server; with a version, only if it is still current."""
        ...

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
        ...


def kind_of(obj: Mapping[str, Any]) -> ResourceKind:
    """Return the kind of an object.

    Raises
    ------
    UsageError
        If it is not one of ``KINDS``.
    """
    version, name = obj.get("apiVersion"), obj.get("kind")
    for kind in KINDS:
        if (kind.api_version, kind.kind) == (version, name):
            return kind
    known = ", ".join(kind.kind for kind in KINDS)
    raise UsageError(f"The kind {name!r} of {version!r} is not known; known are {known}.")
