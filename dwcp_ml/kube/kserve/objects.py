"""Objects of KServe: names, annotations, predictors, pods, and the conditional write."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import (
    INFERENCE_SERVICE,
    MANAGER,
    POD,
    AccessDenied,
    Api,
    Conflict,
    Object,
    ResourceKind,
)
from dwcp_ml.kube.kserve.router import (
    ChangeRejected,
    DeployedRevision,
    DesiredRevision,
    ObservedTraffic,
    TrafficUnknown,
)

VERSION: Final = "ml.dwcp.io/version"
DIGEST: Final = "ml.dwcp.io/digest"
TEMPLATE: Final = "ml.dwcp.io/template"
"""Annotation of a predictor: a hash of the template that it was made from.

It tells a field that was removed from the template from one that KServe has set.
"""
RUNTIME: Final = "ml.dwcp.io/runtime"
"""Annotation of a predictor: the ServingRuntime that was chosen for its revision."""
TEMPLATE_RUNTIME: Final = "-"
"""Its value for the runtime of the template. It is never absent or empty: KServe copies what is
missing in a canary from the stable, which may have one of its own."""
STABLE: Final = "ml.dwcp.io/stable"
"""Annotation of a candidate: the stable predictor that it is compared with, as JSON.

Our annotations are in the predictor, not in the InferenceService: KServe copies those to all pods,
so a change would restart the stable for each candidate.
"""

MODE_ANNOTATION: Final = "serving.kserve.io/deploymentMode"
SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""Annotation of a pod template by KServe: the address of its bundle."""
STOPPED: Final = "serving.kserve.io/stop"
VISIBILITY: Final = "networking.kserve.io/visibility"
CLUSTER_LOCAL: Final = "cluster-local"

_MAX_LABEL: Final = 63
"""KServe makes a label of ``isvc.`` and a Deployment's name, and a host name of that name and the
namespace; if one is longer, the service never becomes ready."""
_HASH: Final = 8


def bare_digest(digest: str) -> str:
    """Return a digest as servers and bundles write it: without ``sha256:``."""
    return digest.removeprefix("sha256:")


def server_arguments(model: str, digest: str) -> list[str]:
    """Return the arguments by which a server refuses every bundle but one.

    KServe appends them to those of the ServingRuntime. A canary inherits those of the stable
    where it has none of its own, so every predictor that we write has its own.

    Parameters
    ----------
    digest
        Of the bundle, with or without ``sha256:``.
    """
    return [f"--digest={model}={bare_digest(digest)}"]


def deployment_name(service: str, predictor: str) -> str:
    """Return the name of a predictor's Deployment and Service."""
    return f"{service}-{predictor}-predictor" if predictor else f"{service}-predictor"


def predictor_name(
    namespace: str,
    service: str,
    version: str,
    *,
    digest: str = "",
    runtime: str = "",
    taken: Collection[str] = (),
) -> str:
    """Return the name of a version's predictor in an InferenceService.

    Two versions never get the same name: where letters had to be replaced, or the name is too
    long, it ends with a hash of the version. The same version in a runtime of its own has a hash
    of both.

    Parameters
    ----------
    digest
        Digest of the bundle, to tell it from another one of the same version.
    runtime
        The ServingRuntime that was chosen for it; empty for the template's.
    taken
        Names of other predictors. Under the same name KServe would replace the pods of the other
        bundle one by one.

    Raises
    ------
    ChangeRejected
        If the other names are too long.
    """
    around = len(deployment_name(service, "-")) - 1 + max(len("isvc."), len(f"-{namespace}"))
    limit = _MAX_LABEL - around
    if limit < 1 + _HASH:
        raise ChangeRejected(
            f"the names of InferenceService {service} and namespace {namespace} are too long: "
            f"KServe makes names of over {_MAX_LABEL} letters of them."
        )
    cleaned = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    name = f"v{cleaned}"
    if cleaned != version or len(name) > limit:
        name = _with_hash(name, version, limit)
    if runtime:
        return _with_hash(name, f"{version}/{bare_digest(digest)}/{runtime}", limit)
    if name in taken:
        name = _with_hash(name, bare_digest(digest), limit)
    return name


def _with_hash(name: str, text: str, limit: int) -> str:
    short = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{name[: limit - _HASH - 1].rstrip('-')}-{short}" if limit > _HASH + 2 else f"v{short}"


Predictor = dict[str, Any]


def deployed_revision(predictor: Mapping[str, Any]) -> DeployedRevision | None:
    """Return the bundle of a predictor; ``None`` if it names none."""
    model = predictor.get("model") or {}
    uri = str(model.get("storageUri") or "")
    annotations = predictor.get("annotations") or {}
    version = str(annotations.get(VERSION) or uri.rstrip("/").rsplit("/", 1)[-1])
    digest = bare_digest(str(annotations.get(DIGEST) or ""))
    runtime = str(annotations.get(RUNTIME) or "").removeprefix(TEMPLATE_RUNTIME)
    return DeployedRevision(uri, version, digest, runtime) if uri or digest else None


def serves(predictor: Mapping[str, Any], desired: DesiredRevision) -> bool:
    """Return whether a predictor serves the desired revision.

    The bundle by digest, else by address; in the runtime that was chosen for it.
    """
    deployed = deployed_revision(predictor)
    if deployed is None or deployed.runtime != desired.runtime:
        return False
    if deployed.digest:
        return deployed.digest == bare_digest(desired.digest)
    return deployed.uri == desired.storage_uri


def is_made_of(template: Mapping[str, Any], predictor: Mapping[str, Any]) -> bool:
    """Return whether KServe made a pod template from this predictor.

    KServe copies a predictor's annotations, and adds the bundle's address.
    """
    actual = (template.get("metadata") or {}).get("annotations") or {}
    desired = predictor.get("annotations") or {}
    uri = (predictor.get("model") or {}).get("storageUri")
    keys = (key for key in (VERSION, DIGEST, TEMPLATE) if key in desired)
    is_same = all(actual.get(key) == desired[key] for key in keys)
    is_same = is_same and actual.get(RUNTIME) == desired.get(RUNTIME)
    return is_same and actual.get(SOURCE, uri) == uri


def covers(live: Any, desired: Any) -> bool:
    """Return whether the live value has all that is desired; additions are ignored."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and covers(live[key], value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list) and len(live) == len(desired) and all(map(covers, live, desired))
        )
    return bool(live == desired)


SERVICE_LABEL: Final = "serving.kserve.io/inferenceservice"
"""Label of every pod: the name of its InferenceService."""


def is_ready(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether at least half of a Deployment's replicas can take traffic.

    All of them must have the desired template: before KServe has changed a Deployment, and during
    its rolling update, it is available and still serves the previous bundle.
    """
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    if deployment is None or not is_made_of(template, predictor):
        return False
    status = deployment.get("status") or {}
    observed = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    changed = (status.get("updatedReplicas") or 0) >= (status.get("replicas") or 0)
    available = status.get("availableReplicas") or 0
    return observed and changed and available > 0 and available * 2 >= replicas_of(deployment)


def is_available(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether a Deployment is ready and its condition Available is true."""
    return (
        deployment is not None
        and is_ready(deployment, predictor)
        and condition(deployment, "Available") == "True"
    )


def replicas_of(deployment: Mapping[str, Any] | None) -> int:
    """Return the desired replicas of a Deployment; 0 if there is none."""
    if deployment is None:
        return 0
    return int((deployment.get("spec") or {}).get("replicas", 1))


def last_spec_writer(obj: Mapping[str, Any]) -> str:
    """Return the field manager other than ours that wrote the spec last; empty if unknown."""
    entries = [
        each
        for each in obj["metadata"].get("managedFields") or []
        if each.get("manager") != MANAGER
        and not each.get("subresource")
        and "f:spec" in (each.get("fieldsV1") or {})
    ]
    newest: Mapping[str, Any] = max(
        entries, key=lambda each: str(each.get("time") or ""), default={}
    )
    return str(newest.get("manager") or "")


def manager_of(obj: Mapping[str, Any], *path: str) -> str:
    """Return the field manager that owns a field, the newest of several; empty if unknown.

    Parameters
    ----------
    path
        Names of the field and of those around it, outermost first.
    """
    owners = [
        each for each in obj["metadata"].get("managedFields") or []
        if _has_field(each.get("fieldsV1"), path)
    ]  # fmt: skip
    newest: Mapping[str, Any] = max(
        owners, key=lambda each: str(each.get("time") or ""), default={}
    )
    return str(newest.get("manager") or "")


def _has_field(fields: object, path: Sequence[str]) -> bool:
    for name in path:
        fields = fields.get(f"f:{name}") if isinstance(fields, Mapping) else None
    return fields is not None


def condition(obj: Mapping[str, Any], kind: str) -> str:
    """Return the status of a condition: True, False, Unknown; empty if it is absent."""
    for each in (obj.get("status") or {}).get("conditions") or []:
        if each.get("type") == kind:
            return str(each.get("status"))
    return ""


FAILED_CREATE: Final = frozenset({"FailedCreate"})
"""Reason of the condition ReplicaFailure if the ReplicaSet may not create a pod."""


def creation_failure(deployment: Mapping[str, Any] | None) -> str:
    """Return why the pods of a Deployment can't be created; empty if they can."""
    for each in ((deployment or {}).get("status") or {}).get("conditions") or []:
        is_failure = each.get("type") == "ReplicaFailure" and each.get("status") == "True"
        if is_failure and each.get("reason") in FAILED_CREATE:
            return str(each.get("message") or "no reason given").rstrip(".")
    return ""


class Writer:
    """One InferenceService of an API server."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    def get(self) -> Object | None:
        """Return the InferenceService; ``None`` if there is none."""
        return self._api.get(INFERENCE_SERVICE, self._namespace, self._name)

    def get_unchanged(self, live: ObservedTraffic) -> Object | None:
        """Return the InferenceService as it was when ``live`` was read.

        Raises
        ------
        Conflict
            If it has changed since.
        """
        isvc = self.get()
        version = "" if isvc is None else isvc["metadata"]["resourceVersion"]
        if version != live.resource_version:
            raise Conflict(f"InferenceService {self._name} has changed since it was read.")
        return isvc

    def create(self, service: Object) -> None:
        """Create the InferenceService."""
        self._api.create(service)

    def replace(self, isvc: Object, spec: Mapping[str, Any]) -> bool:
        """Write the spec if it differs; return whether it did.

        The resourceVersion of ``isvc`` is the condition: another writer's change wins.
        """
        if covers(isvc["spec"], spec) and isvc["spec"].keys() == spec.keys():
            return False
        self._api.replace({**isvc, "spec": dict(spec)})
        return True


class ServiceRouter(ABC):
    """What both ``Router`` of an InferenceService have in common."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._writer = Writer(api, namespace, name)
        self._forbidden: dict[ResourceKind, str] = {}

    def drop(self, live: ObservedTraffic) -> None:
        """Make the next write on the way to nothing beside the stable; see ``Router``."""
        isvc = self._writer.get_unchanged(live)
        if isvc is not None:
            self._drop(isvc)

    @abstractmethod
    def _drop(self, isvc: Object) -> None: ...

    def _existing(self, live: ObservedTraffic) -> Object:
        isvc = self._writer.get_unchanged(live)
        if isvc is None:
            raise ChangeRejected(f"There is no InferenceService {self._name}.")
        return isvc

    def _get(self, kind: ResourceKind, name: str) -> Object | None:
        """Return an object of the namespace; ``None`` if there is none, or it is forbidden.

        A read that is forbidden must not keep a roll-back from being written.
        """
        try:
            return self._api.get(kind, self._namespace, name)
        except AccessDenied as error:
            self._forbidden[kind] = str(error).rstrip(".")
            return None

    def _why_forbidden(self) -> str:
        """Return the API server's sentence about a read that it forbids; empty for none."""
        return next(iter(self._forbidden.values()), "")

    def _pods_by(self, label: str) -> dict[str, list[Object]]:
        """Return value of a label -> the pods of the InferenceService that have it."""
        pods: dict[str, list[Object]] = {}
        try:
            existing = self._api.list(POD, self._namespace, f"{SERVICE_LABEL}={self._name}")
        except AccessDenied as error:
            self._forbidden[POD] = str(error).rstrip(".")
            existing = []
        for pod in existing:
            value = str((pod["metadata"].get("labels") or {}).get(label))
            pods.setdefault(value, []).append(pod)
        return pods


def check_all(candidate: DesiredRevision, percent: int) -> None:
    """Check that a candidate which is the stable is given all traffic.

    Raises
    ------
    ChangeRejected
        If it is not.
    """
    if percent != 100:
        raise ChangeRejected(
            f"{candidate.version} is the stable: there is nothing that could take its traffic."
        )


def check_share(percent: int) -> None:
    """Check a share of the traffic, percent.

    Raises
    ------
    UsageError
        If it is not between 0 and 100.
    """
    if not 0 <= percent <= 100:
        raise UsageError(f"A share of the traffic is 0 to 100 percent, not {percent}.")


MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "Standard": ("Standard", "RawDeployment"),
    "Knative": ("Knative", "Serverless"),
}
"""Deployment mode -> KServe's names of it, the older one last."""


def why_unsupported(isvc: Mapping[str, Any] | None, desired: DesiredRevision, mode: str) -> str:
    """Return why a service can't split its traffic; empty if it can.

    Parameters
    ----------
    isvc
        The InferenceService; ``None`` if it does not exist yet.
    mode
        One of ``MODES``.
    """
    if isvc is None:
        return _invisible(desired.labels) if mode == "Standard" else ""
    actual = other_mode(isvc, mode)
    if actual:
        return f"the InferenceService is in the mode {actual}, and the rollout asks for {mode}."
    if mode != "Standard":
        return ""
    if isvc["spec"].get("transformer"):
        return "the InferenceService has a transformer, which a canary's traffic would bypass."
    return _invisible(isvc["metadata"].get("labels") or {}) or _same_address(isvc, desired)


def other_mode(isvc: Mapping[str, Any], mode: str) -> str:
    """Return the mode that a service is in, where that is another one; empty otherwise.

    Parameters
    ----------
    mode
        One of ``MODES``.
    """
    modes = (
        (isvc["metadata"].get("annotations") or {}).get(MODE_ANNOTATION),
        (isvc.get("status") or {}).get("deploymentMode"),
    )
    return next((str(each) for each in modes if each and each not in MODES[mode]), "")


def why_no_routes(isvc: Mapping[str, Any], routes: Mapping[str, Any]) -> str:
    """Return why KServe made no HTTPRoute although it has finished; empty otherwise."""
    if any(routes.values()) or condition(isvc, "IngressReady") != "True":
        return ""
    return (
        "KServe has made no HTTPRoute, and without one it can't split the traffic: it needs "
        "enableGatewayApi, and an ingress domain that is not cluster-local."
    )


def check_service(isvc: Mapping[str, Any]) -> None:
    """Check that the InferenceService is meant to serve.

    Raises
    ------
    TrafficUnknown
        If it is being deleted, or stopped.
    """
    if isvc["metadata"].get("deletionTimestamp"):
        raise TrafficUnknown("the InferenceService is being deleted")
    if (isvc["metadata"].get("annotations") or {}).get(STOPPED) == "true":
        raise TrafficUnknown("the InferenceService is stopped")


def _invisible(labels: Mapping[str, str]) -> str:
    if labels.get(VISIBILITY) != CLUSTER_LOCAL:
        return ""
    return f"a service with {VISIBILITY}: {CLUSTER_LOCAL} has no HTTPRoute that could be split."


def _same_address(isvc: Mapping[str, Any], desired: DesiredRevision) -> str:
    """Return an error if the candidate has the address of the stable.

    KServe would not see a change on promotion, and new pods of the stable would load the candidate.
    The same bundle in another runtime needs one as well: KServe lets no predictor take another name
    without another address.
    """
    stable = deployed_revision(isvc["spec"]["predictor"])
    if stable is None or serves(isvc["spec"]["predictor"], desired):
        return ""
    if stable.uri != desired.storage_uri:
        return ""
    return f"the candidate has the address of the stable, {stable.uri}: give it one of its own."
