"""The predictor template of a ModelRollout: a closed part of KServe's PredictorSpec.

The operator creates InferenceServices with rights of its own, so each field here is a right that is
given to everyone who may write a ModelRollout. Fields that choose code, volumes, credentials or a
place in the node are left out: what runs is the ServingRuntime's, which the platform engineer
writes. Values of the remaining fields are checked again by ``dwcp_ml.operator.policy``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dwcp_ml.operator.api.parts import (
    DeploymentMode,
    Part,
    Rule,
    both_or_neither,
    not_above,
    short_keys,
)
from dwcp_ml.operator.api.scheduling import (
    NAME_PATTERN,
    Affinity,
    LabelValue,
    Toleration,
    TopologySpread,
)

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

AnnotationValue = Annotated[str, Field(max_length=1024)]


class ModelFormat(Part):
    """The format by which KServe selects a runtime."""

    name: str = Field(min_length=1, max_length=63, description="name of the format")
    version: str | None = Field(default=None, max_length=63, description="version of the format")


class Resources(Part):
    """Resources of one replica."""

    requests: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="requested cpu and memory"
    )
    limits: dict[str, Quantity] | None = Field(
        default=None, max_length=16, description="limits of cpu and memory"
    )

    rules = (short_keys("requests"), short_keys("limits"))


class PredictorModel(Part):
    """How the bundle is deployed. Its address is in ``candidate``, not in the template."""

    model_format: ModelFormat = Field(description="the format by which KServe selects a runtime")
    runtime: str | None = Field(
        default=None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="the ServingRuntime; without one KServe chooses by the format",
    )
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"] | None = Field(
        default=None, description="the protocol of the runtime"
    )
    resources: Resources | None = Field(default=None, description="resources of one replica")

    rules = (
        both_or_neither(
            "runtime", "protocol_version", "KServe copies a missing one from the stable"
        ),
    )


class Logger(Part):
    """Where KServe sends a copy of requests and predictions."""

    url: str | None = Field(
        default=None,
        max_length=1024,
        pattern=r"^https?://[^\s]+$",
        description="the receiver; absent for that of KServe's configuration",
    )
    mode: Literal["all", "request", "response"] | None = Field(
        default=None, description="what is sent; absent for all"
    )


class Predictor(Part):
    """A KServe PredictorSpec, restricted to what can't run other code or use other credentials."""

    model: PredictorModel = Field(description="how the bundle is deployed")
    min_replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="minimum of replicas; 0 scales to zero without traffic",
    )
    max_replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="maximum of replicas; KServe rejects it in a canary, so a candidate has "
        "minReplicas until it is promoted",
    )
    scale_metric: Literal["cpu", "memory", "concurrency", "rps"] | None = Field(
        default=None, description="the metric that replicas are scaled by; set on promotion"
    )
    scale_target: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="value of the metric that scaling aims at; set on promotion",
    )
    container_concurrency: int | None = Field(
        default=None, ge=0, le=10_000, description="requests that a replica serves at a time"
    )
    timeout: int | None = Field(
        default=None, ge=1, le=3600, description="seconds until a request times out"
    )
    logger: Logger | None = Field(
        default=None, description="sends a copy of requests and predictions to a receiver"
    )
    service_account_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="the service account of its pods; the operator must allow it",
    )
    priority_class_name: str | None = Field(
        default=None,
        max_length=253,
        pattern=NAME_PATTERN,
        description="the priority class of its pods; the operator must allow it",
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=16, description="labels of the nodes to run on"
    )
    tolerations: tuple[Toleration, ...] | None = Field(
        default=None, max_length=16, description="taints of nodes that pods tolerate, as in a Pod"
    )
    affinity: Affinity | None = Field(
        default=None, description="nodes and pods to be near to or apart from, as in a Pod"
    )
    topology_spread_constraints: tuple[TopologySpread, ...] | None = Field(
        default=None, max_length=8, description="how pods are spread over zones, as in a Pod"
    )
    labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=16, description="labels of its pods; the operator must allow keys"
    )
    annotations: dict[str, AnnotationValue] | None = Field(
        default=None,
        max_length=16,
        description="annotations of its pods; the operator must allow keys",
    )

    rules = (
        short_keys("node_selector"),
        short_keys("labels"),
        short_keys("annotations"),
        not_above("min_replicas", "max_replicas"),
    )


class Template(Part):
    """The InferenceService that the operator creates, without bundle and traffic."""

    deployment_mode: DeploymentMode = Field(
        default="Standard",
        description="how KServe deploys it and splits traffic: Standard by canary predictors and "
        "an HTTPRoute, Knative by revisions",
    )
    labels: dict[str, LabelValue] | None = Field(
        default=None,
        max_length=16,
        description="labels of the InferenceService; the operator must allow keys",
    )
    annotations: dict[str, AnnotationValue] | None = Field(
        default=None,
        max_length=16,
        description="annotations of the InferenceService; the operator must allow keys",
    )
    predictor: Predictor = Field(description="a KServe PredictorSpec, restricted")

    rules = (
        short_keys("labels"),
        short_keys("annotations"),
        Rule(
            "self.deploymentMode == oldSelf.deploymentMode",
            "deploymentMode can't be changed: KServe can't convert a service",
        ),
    )
