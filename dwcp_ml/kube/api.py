"""What is asked of a Kubernetes API server: objects as dictionaries, failures with a name.

    KubeError       1  base of the five
    ├── Conflict       the object is another by now, or is there already
    ├── Forbidden      the operator may not do this
    ├── Gone           the object, or the state that was asked for, is not there any more
    ├── Invalid        the server, or a webhook of its, does not accept the object
    └── Unavailable    no answer, or none that says anything

``Unavailable`` says nothing about a write: it may have been carried out. Nothing is tried again
here; who called reads what is there, and decides.
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
    """A request to the API server came to nothing, as far as is known."""


class Conflict(KubeError):
    """The object is not the one that was read, or is there already."""


class Forbidden(KubeError):
    """The API server does not know the operator, or does not let it do this."""


class Gone(KubeError):
    """What was to be written is not there, or the state that was asked for is too old."""


class Invalid(KubeError):
    """The API server or a webhook refuses the object as it is."""


class Unavailable(KubeError):
    """No usable answer; whether a write was carried out is unknown.

    Attributes
    ----------
    retry_after_seconds
        How long the server asks to be left alone; ``None`` if it does not say.
    """

    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of object, and where its objects are.

    Parameters
    ----------
    api_version
        ``group/version``, or ``v1``.
    plural
        As it stands in addresses.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


INFERENCE_SERVICE: Final = Kind(
    "serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"
)
HTTP_ROUTE: Final = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
POD: Final = Kind("v1", "Pod", "pods")
KNATIVE_SERVICE: Final = Kind("serving.knative.dev/v1", "Service", "services")
MODEL_ROLLOUT: Final = Kind("ml.dwcp.io/v1alpha1", "ModelRollout", "modelrollouts")
TRAINING_RUN: Final = Kind("ml.dwcp.io/v1alpha1", "TrainingRun", "trainingruns")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
EVENT: Final = Kind("v1", "Event", "events")

KINDS: Final = (
    INFERENCE_SERVICE, HTTP_ROUTE, DEPLOYMENT, POD, KNATIVE_SERVICE, MODEL_ROLLOUT, TRAINING_RUN,
    LEASE, EVENT,
)  # fmt: skip


class Api(Protocol):
    """What the operator needs of an API server. Every method may raise any ``KubeError``."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        ...

    def list(self, kind: Kind, namespace: str | None = None, labels: str = "") -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        ...

    def create(self, obj: Object) -> Object:
        """Create the object; ``Conflict`` if it is there already."""
        ...

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object, or its status, if ``metadata.resourceVersion`` is still its own."""
        ...

    def apply(
        self, obj: Object, *, manager: str, resource_version: str | None, force: bool = False
    ) -> Object:
        """Apply the fields of the object on the server's side; with a version, only to that one."""
        ...

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
        ...


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return the kind of an object.

    Raises
    ------
    UsageError
        If it is none of ``KINDS``.
    """
    version, name = obj.get("apiVersion"), obj.get("kind")
    for kind in KINDS:
        if (kind.api_version, kind.kind) == (version, name):
            return kind
    known = ", ".join(kind.kind for kind in KINDS)
    raise UsageError(f"there is no kind {name!r} of {version!r} here; known are {known}.")
