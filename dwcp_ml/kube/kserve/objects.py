"""Objects of KServe: names, annotations, predictors, pods, and the conditional write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import INFERENCE_SERVICE, Api, Conflict, Object
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
"""Annotation of a predictor: a hash of the template that it was made of.

Without it a field that was taken out of the template could not be told from one that KServe has
filled in.
"""
STABLE: Final = "ml.dwcp.io/stable"
"""Annotation of a candidate: what the stable was when it came, as JSON.

Our annotations stand in the predictor, not in the InferenceService: what stands there KServe hands
on to all pods, and a change would restart the stable for each candidate.
"""

MODE_ANNOTATION: Final = "serving.kserve.io/deploymentMode"
SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""Annotation of a pod template by KServe: the address of its bundle."""
STOPPED: Final = "serving.kserve.io/stop"
VISIBILITY: Final = "networking.kserve.io/visibility"
CLUSTER_LOCAL: Final = "cluster-local"

_LONGEST_LABEL: Final = 63
"""KServe makes a label of ``isvc.`` and a Deployment's name, and a host of that name, ``-`` and the
namespace; without room for it the service never gets ready."""
_HASH: Final = 8


def bare_digest(digest: str) -> str:
    """Return a digest as servers and bundles write it: without the name of its algorithm."""
    return digest.removeprefix("sha256:")


def deployment_name(service: str, predictor: str) -> str:
    """Return the name of a predictor's Deployment and Service."""
    return f"{service}-{predictor}-predictor" if predictor else f"{service}-predictor"


def predictor_name(
    namespace: str, service: str, version: str, *, digest: str = "", taken: Collection[str] = ()
) -> str:
    """Return the name of a version's predictor in an InferenceService.

    Two versions never get the same: where letters had to be replaced, or the name is too long, a
    hash of the version stands at its end.

    Parameters
    ----------
    digest
        Of the bundle, to tell it from another one of the same version.
    taken
        Names of other predictors, which the candidate's can't be: under the same name KServe
        would change the pods of another bundle one by one.

    Raises
    ------
    ChangeRejected
        If the other names leave no room.
    """
    around = len(deployment_name(service, "-")) - 1 + max(len("isvc."), len(f"-{namespace}"))
    room = _LONGEST_LABEL - around
    if room < 1 + _HASH:
        raise ChangeRejected(
            f"the names of InferenceService {service} and namespace {namespace} are too long: "
            f"KServe makes names of over {_LONGEST_LABEL} letters of them."
        )
    cleaned = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    name = f"v{cleaned}"
    if cleaned != version or len(name) > room:
        name = _with_hash(name, version, room)
    if name in taken:
        name = _with_hash(name, bare_digest(digest), room)
    return name


def _with_hash(name: str, text: str, room: int) -> str:
    short = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{name[: room - _HASH - 1].rstrip('-')}-{short}" if room > _HASH + 2 else f"v{short}"


Predictor = dict[str, Any]


def served_of(predictor: Mapping[str, Any]) -> DeployedRevision | None:
    """Return what a predictor serves; ``None`` if it names no bundle."""
    model = predictor.get("model") or {}
    uri = str(model.get("storageUri") or "")
    said = predictor.get("annotations") or {}
    version = str(said.get(VERSION) or uri.rstrip("/").rsplit("/", 1)[-1])
    digest = bare_digest(str(said.get(DIGEST) or ""))
    return DeployedRevision(uri, version, digest) if uri or digest else None


def serves(predictor: Mapping[str, Any], desired: DesiredRevision) -> bool:
    """Return whether a predictor serves the desired bundle: by digest, else by address."""
    found = served_of(predictor)
    if found is None:
        return False
    if found.digest:
        return found.digest == bare_digest(desired.digest)
    return found.uri == desired.storage_uri


def is_made_of(template: Mapping[str, Any], predictor: Mapping[str, Any]) -> bool:
    """Return whether a pod template was made of a predictor as it stands now.

    KServe hands a predictor's annotations on, and adds the bundle's address.
    """
    there = (template.get("metadata") or {}).get("annotations") or {}
    desired = predictor.get("annotations") or {}
    uri = (predictor.get("model") or {}).get("storageUri")
    said = (key for key in (VERSION, DIGEST, TEMPLATE) if key in desired)
    is_same = all(there.get(key) == desired[key] for key in said)
    return is_same and there.get(SOURCE, uri) == uri


def covers(live: Any, desired: Any) -> bool:
    """Return whether everything desired is there; what the server added is no difference."""
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
"""Of every pod: the name of its InferenceService."""

CONTAINER: Final = "kserve-container"
PORT: Final = 8080
"""KServe's own default, where the container names none."""


def addresses(pods: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return ``host:port`` of the pods that can take traffic, in order."""
    return tuple(sorted(_address(pod) for pod in pods if _is_ready(pod)))


def restarts(pods: Iterable[Mapping[str, Any]]) -> int:
    """Return how often containers were started again, and pods failed altogether."""
    total = 0
    for pod in pods:
        status = pod.get("status") or {}
        containers = [
            *(status.get("containerStatuses") or []),
            *(status.get("initContainerStatuses") or []),
        ]
        total += sum(int(one.get("restartCount") or 0) for one in containers)
        total += status.get("phase") == "Failed"
    return total


def is_ready(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether at least half of a Deployment's replicas can take traffic.

    And nothing but what is asked for now: before KServe has changed a Deployment, and while its
    pods are changed one by one, it is available, and serves what was before.

    Parameters
    ----------
    predictor
        What it is to serve.
    """
    template = ((deployment or {}).get("spec") or {}).get("template") or {}
    if deployment is None or not is_made_of(template, predictor):
        return False
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    changed = (status.get("updatedReplicas") or 0) >= (status.get("replicas") or 0)
    available = status.get("availableReplicas") or 0
    return seen and changed and available > 0 and available * 2 >= replicas_of(deployment)


def is_available(deployment: Mapping[str, Any] | None, predictor: Mapping[str, Any]) -> bool:
    """Return whether a Deployment is ready, and has as many replicas as Kubernetes asks of it."""
    return (
        deployment is not None
        and is_ready(deployment, predictor)
        and condition(deployment, "Available") == "True"
    )


def replicas_of(deployment: Mapping[str, Any] | None) -> int:
    """Return how many replicas a Deployment is to have; 0 if there is none."""
    if deployment is None:
        return 0
    return int((deployment.get("spec") or {}).get("replicas", 1))


def condition(found: Mapping[str, Any], kind: str) -> str:
    """Return the status of a condition: True, False, Unknown; empty if it is not there."""
    for one in (found.get("status") or {}).get("conditions") or []:
        if one.get("type") == kind:
            return str(one.get("status"))
    return ""


def _is_ready(pod: Mapping[str, Any]) -> bool:
    has_address = bool((pod.get("status") or {}).get("podIP"))
    leaves = "deletionTimestamp" in pod["metadata"]
    return has_address and not leaves and condition(pod, "Ready") == "True"


def _address(pod: Mapping[str, Any]) -> str:
    host = str(pod["status"]["podIP"])
    containers = (pod.get("spec") or {}).get("containers") or []
    deployed = [one for one in containers if one.get("name") == CONTAINER] or containers[:1]
    ports = [
        port["containerPort"]
        for one in deployed[:1]
        for port in one.get("ports") or []
        if "containerPort" in port
    ]
    port = ports[0] if ports else PORT
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Writer:
    """One InferenceService of an API server."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    def get(self) -> Object | None:
        """Return the InferenceService; ``None`` if there is none."""
        return self._api.get(INFERENCE_SERVICE, self._namespace, self._name)

    def unchanged(self, live: ObservedTraffic) -> Object | None:
        """Return the InferenceService as it was when ``live`` was read.

        Raises
        ------
        Conflict
            If it is another by now.
        """
        found = self.get()
        version = "" if found is None else found["metadata"]["resourceVersion"]
        if version != live.resource_version:
            raise Conflict(f"InferenceService {self._name} has changed since it was read.")
        return found

    def create(self, service: Object) -> None:
        """Create the InferenceService."""
        self._api.create(service)

    def replace(self, found: Object, spec: Mapping[str, Any]) -> bool:
        """Write a new spec, if it is one; return whether it was.

        The resourceVersion of ``found`` is the condition: whoever wrote since wins.
        """
        if covers(found["spec"], spec) and found["spec"].keys() == spec.keys():
            return False
        self._api.replace({**found, "spec": dict(spec)})
        return True


def check_share(percent: int) -> None:
    """Check a share of the traffic.

    Raises
    ------
    UsageError
        If it is none.
    """
    if not 0 <= percent <= 100:
        raise UsageError(f"a share of the traffic is 0 to 100 percent, not {percent}.")


MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "Standard": ("Standard", "RawDeployment"),
    "Knative": ("Knative", "Serverless"),
}
"""Each mode -> what KServe calls it; the second is its older name."""


def refusal(found: Mapping[str, Any] | None, desired: DesiredRevision, mode: str) -> str:
    """Return why a service can't split its traffic; empty if nothing speaks against it.

    Parameters
    ----------
    found
        The InferenceService; ``None`` if it is still to be created.
    mode
        One of ``MODES``.
    """
    if found is None:
        return _invisible(desired.labels) if mode == "Standard" else ""
    said = (
        (found["metadata"].get("annotations") or {}).get(MODE_ANNOTATION),
        (found.get("status") or {}).get("deploymentMode"),
    )
    for other in said:
        if other and other not in MODES[mode]:
            return f"the InferenceService is in the mode {other}, and the rollout asks for {mode}."
    if mode != "Standard":
        return ""
    if found["spec"].get("transformer"):
        return "the InferenceService has a transformer, which a canary's traffic would bypass."
    return _invisible(found["metadata"].get("labels") or {}) or _same_address(found, desired)


def no_routes(found: Mapping[str, Any], routes: Mapping[str, Any]) -> str:
    """Return why KServe has made no HTTPRoute though it is done; empty if it has, or is not."""
    if any(routes.values()) or condition(found, "IngressReady") != "True":
        return ""
    return (
        "KServe has made no HTTPRoute, and without one it can't split the traffic: it needs "
        "enableGatewayApi, and an ingress domain that is not cluster-local."
    )


def check_service(found: Mapping[str, Any]) -> None:
    """Check that the InferenceService is to serve at all.

    Raises
    ------
    TrafficUnknown
        If it is being deleted, or stopped.
    """
    if found["metadata"].get("deletionTimestamp"):
        raise TrafficUnknown("the InferenceService is being deleted")
    if (found["metadata"].get("annotations") or {}).get(STOPPED) == "true":
        raise TrafficUnknown("the InferenceService is stopped")


def _invisible(labels: Mapping[str, str]) -> str:
    if labels.get(VISIBILITY) != CLUSTER_LOCAL:
        return ""
    return f"a service with {VISIBILITY}: {CLUSTER_LOCAL} has no HTTPRoute that could be split."


def _same_address(found: Mapping[str, Any], desired: DesiredRevision) -> str:
    """Return that a candidate has its stable's address: KServe would never let it take its place.

    Its pods, and each new pod of the stable, would get whatever stands there now.
    """
    stable = served_of(found["spec"]["predictor"])
    if stable is None or serves(found["spec"]["predictor"], desired):
        return ""
    if stable.uri != desired.storage_uri:
        return ""
    return f"the candidate has the address of the stable, {stable.uri}: give it one of its own."
