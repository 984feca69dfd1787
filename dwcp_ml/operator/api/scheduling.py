"""Where the pods of a predictor run: the scheduling fields of a pod, typed and bounded.

They have the names and meanings of Kubernetes' core/v1. Nothing but placement can be expressed in
them: ``matchFields`` of a node is left out, because it chooses one node by name.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dwcp_ml.operator.api.parts import MAX_KEY, Part, short_keys

MAX_TERMS: Final = 8
MAX_EXPRESSIONS: Final = 8
MAX_VALUES: Final = 16

LABEL_PATTERN: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_PATTERN)]
LabelKeys = Annotated[tuple[LabelKey, ...], Field(max_length=MAX_VALUES)]
Namespace = Annotated[str, Field(max_length=63, pattern=NAME_PATTERN)]
Weight = Annotated[int, Field(ge=1, le=100)]


class LabelExpression(Part):
    """A condition on one label of a pod or namespace."""

    key: LabelKey = Field(description="key of the label")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="how values are compared"
    )
    values: tuple[LabelValue, ...] | None = Field(
        default=None, max_length=MAX_VALUES, description="values of In and NotIn"
    )


class LabelSelector(Part):
    """Selects pods or namespaces by labels."""

    match_labels: dict[str, LabelValue] | None = Field(
        default=None, max_length=MAX_VALUES, description="labels with these values"
    )
    match_expressions: tuple[LabelExpression, ...] | None = Field(
        default=None, max_length=MAX_EXPRESSIONS, description="conditions that must all hold"
    )

    rules = (short_keys("match_labels"),)


class NodeExpression(Part):
    """A condition on one label of a node."""

    key: LabelKey = Field(description="key of the label")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="how values are compared"
    )
    values: tuple[LabelValue, ...] | None = Field(
        default=None, max_length=MAX_VALUES, description="values of In, NotIn, Gt and Lt"
    )


class NodeTerm(Part):
    """Nodes for which all conditions hold."""

    match_expressions: tuple[NodeExpression, ...] = Field(
        min_length=1, max_length=MAX_EXPRESSIONS, description="conditions that must all hold"
    )


class RequiredNodes(Part):
    """Nodes that pods must run on."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(
        min_length=1, max_length=MAX_TERMS, description="terms of which one must hold"
    )


class PreferredNodes(Part):
    """Nodes that pods should run on."""

    weight: Weight = Field(description="weight of the preference")
    preference: NodeTerm = Field(description="the preferred nodes")


class NodeAffinity(Part):
    """Nodes that pods must or should run on."""

    required_during_scheduling_ignored_during_execution: RequiredNodes | None = Field(
        default=None, description="nodes that pods must run on"
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] | None = Field(
        default=None, max_length=MAX_TERMS, description="nodes that pods should run on"
    )


class PodTerm(Part):
    """Pods to be near to, or apart from."""

    topology_key: str = Field(
        min_length=1, max_length=MAX_KEY, description="label of nodes that says what is near"
    )
    label_selector: LabelSelector | None = Field(default=None, description="which pods")
    namespaces: tuple[Namespace, ...] | None = Field(
        default=None, max_length=MAX_VALUES, description="their namespaces, by name"
    )
    namespace_selector: LabelSelector | None = Field(
        default=None, description="their namespaces, by label"
    )
    match_label_keys: LabelKeys | None = Field(
        default=None, description="labels that must have the same value as the new pod's"
    )
    mismatch_label_keys: LabelKeys | None = Field(
        default=None, description="labels that must have another value than the new pod's"
    )


class PreferredPods(Part):
    """Pods that new pods should be near to, or apart from."""

    weight: Weight = Field(description="weight of the preference")
    pod_affinity_term: PodTerm = Field(description="which pods")


class PodAffinity(Part):
    """Pods that new pods must or should be near to."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] | None = Field(
        default=None, max_length=MAX_TERMS, description="what must hold"
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] | None = Field(
        default=None, max_length=MAX_TERMS, description="what should hold"
    )


class PodAntiAffinity(PodAffinity):
    """Pods that new pods must or should be apart from."""


class Affinity(Part):
    """Where pods run, in relation to nodes and to other pods."""

    node_affinity: NodeAffinity | None = Field(default=None, description="nodes to run on")
    pod_affinity: PodAffinity | None = Field(default=None, description="pods to be near to")
    pod_anti_affinity: PodAntiAffinity | None = Field(
        default=None, description="pods to be apart from"
    )


class Toleration(Part):
    """A taint of nodes that pods tolerate."""

    key: str | None = Field(
        default=None, max_length=MAX_KEY, description="key of the taint; absent for every key"
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        default=None, description="how the value is compared; absent for Equal"
    )
    value: LabelValue | None = Field(default=None, description="value of the taint")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="effect of the taint; absent for every effect"
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="how long NoExecute is tolerated; absent for ever"
    )


class TopologySpread(Part):
    """How evenly pods are spread over zones or nodes."""

    max_skew: int = Field(ge=1, le=1000, description="largest difference in numbers of pods")
    topology_key: str = Field(
        min_length=1, max_length=MAX_KEY, description="label of nodes that names the zone"
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="what happens if it can't be kept"
    )
    label_selector: LabelSelector | None = Field(default=None, description="the pods to count")
    min_domains: int | None = Field(
        default=None, ge=1, le=1000, description="minimum of zones to spread over"
    )
    node_affinity_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="whether nodeSelector and nodeAffinity count"
    )
    node_taints_policy: Literal["Honor", "Ignore"] | None = Field(
        default=None, description="whether taints count"
    )
    match_label_keys: LabelKeys | None = Field(
        default=None, description="labels of the new pod that also select"
    )
