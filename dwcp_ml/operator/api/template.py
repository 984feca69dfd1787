"""The predictor that a rollout deploys.

KServe's PredictorSpec is open: it takes every field of a pod. What matters here is typed, what the
operator alone may set is refused, and the rest is passed on as it stands.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dwcp_ml.operator.api.parts import DeploymentMode, Part, Rule

Quantity = (
    int
    | Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|"
            r"([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        ),
    ]
)
"""A Kubernetes quantity: ``500m``, ``1Gi``, 2."""

Label = Annotated[str, Field(max_length=4096)]


def _absent(field: str) -> str:
    return f"!has(self.{field})"


class ModelFormat(Part):
    """The format by which KServe finds a runtime."""

    name: str = Field(min_length=1, max_length=63, description="name of the format")
    version: str | None = Field(default=None, max_length=63, description="version of the format")


class Resources(Part):
    """What one replica may use."""

    model_config = ConfigDict(extra="allow")

    requests: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="requested cpu and memory"
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="what it may not pass: cpu, memory"
    )


class PredictorModel(Part):
    """How the bundle is deployed; its address is the candidate's, not the template's."""

    model_config = ConfigDict(extra="allow")

    model_format: ModelFormat = Field(description="the format by which KServe finds a runtime")
    runtime: str | None = Field(
        default=None,
        max_length=253,
        description="the ServingRuntime; without one KServe chooses by the format",
    )
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"] | None = Field(
        default=None, description="the protocol that the runtime answers"
    )
    runtime_version: str | None = Field(
        default=None, max_length=128, description="the tag of the runtime's image"
    )
    resources: Resources | None = Field(default=None, description="what one replica may use")
    storage_uri: str | None = Field(
        default=None, max_length=1024, description="not allowed: the candidate names the bundle"
    )
    storage: dict[str, Any] | None = Field(
        default=None, description="not allowed: the candidate names the bundle"
    )

    rules = (
        Rule(
            f"{_absent('storageUri')} && {_absent('storage')}",
            "leave storageUri and storage out of the template: the candidate names the bundle",
            lambda model: model.storage_uri is None and model.storage is None,
        ),
        Rule(
            "has(self.runtime) == has(self.protocolVersion)",
            "give both runtime and protocolVersion, or neither: a canary takes what is missing "
            "from the stable",
            lambda model: (model.runtime is None) == (model.protocol_version is None),
        ),
    )


class Predictor(Part):
    """A KServe PredictorSpec; fields that are not listed are passed on to KServe as they stand."""

    model_config = ConfigDict(extra="allow")

    model: PredictorModel = Field(description="how the bundle is deployed")
    min_replicas: int | None = Field(
        default=None, ge=0, le=1000, description="replicas, at least; 0 stops them without traffic"
    )
    max_replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="replicas, at most; KServe does not take it for a canary, so that a "
        "candidate has minReplicas until it is the stable",
    )
    service_account_name: str | None = Field(
        default=None, max_length=253, description="the service account of its pods"
    )
    node_selector: dict[str, Label] | None = Field(
        default=None, max_length=64, description="labels of the nodes it may run on"
    )
    labels: dict[str, Label] | None = Field(
        default=None, max_length=64, description="labels of its pods"
    )
    annotations: dict[str, Label] | None = Field(
        default=None, max_length=64, description="annotations of its pods"
    )
    name: str | None = Field(
        default=None, max_length=63, description="not allowed: made from the version"
    )
    canary_traffic_percent: int | None = Field(
        default=None, description="not allowed: the operator alone moves traffic"
    )
    storage_uris: tuple[dict[str, Any], ...] | None = Field(
        default=None, max_length=16, description="not allowed: the candidate names the bundle"
    )
    worker_spec: dict[str, Any] | None = Field(
        default=None, description="not allowed: KServe does not take it for a canary"
    )

    rules = (
        Rule(
            f"{_absent('name')} && {_absent('canaryTrafficPercent')}",
            "leave name and canaryTrafficPercent out of the template: the operator sets them",
            lambda one: one.name is None and one.canary_traffic_percent is None,
        ),
        Rule(
            _absent("storageUris"),
            "leave storageUris out of the template: the candidate names the bundle",
            lambda one: one.storage_uris is None,
        ),
        Rule(
            _absent("workerSpec"),
            "leave workerSpec out of the template: KServe does not take it for a canary",
            lambda one: one.worker_spec is None,
        ),
        Rule(
            "!has(self.minReplicas) || !has(self.maxReplicas) || self.maxReplicas == 0 || "
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas",
            lambda one: (
                not one.min_replicas or not one.max_replicas or one.min_replicas <= one.max_replicas
            ),
        ),
    )


class Template(Part):
    """The InferenceService that the operator makes, without its bundle and its traffic."""

    deployment_mode: DeploymentMode = Field(
        default="Standard",
        description="how KServe deploys it, and so how traffic is split: Standard by canary "
        "predictors and an HTTPRoute, Knative by revisions",
    )
    labels: dict[str, Label] | None = Field(
        default=None, max_length=64, description="labels of the InferenceService"
    )
    annotations: dict[str, Label] | None = Field(
        default=None, max_length=64, description="annotations of the InferenceService"
    )
    predictor: Predictor = Field(description="a KServe PredictorSpec, as far as it is known here")

    rules = (
        Rule(
            "self.deploymentMode == oldSelf.deploymentMode",
            "deploymentMode can't be changed: KServe does not move a service from one to the other",
        ),
    )
