"""Base classes and shared fields of both custom resources."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.record import Record

GROUP: Final = "ml.dwcp.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

ModelName = Literal[
    "bandwidth_predictor", "compression_selector", "reliability_detector", "consensus_latency"
]
"""The full names of ``MODELS``; a test keeps them the same."""

KUBERNETES_NAMES: Final[Mapping[str, ModelName]] = {
    MODELS[name].kubernetes_name: name for name in get_args(ModelName)
}
"""Kubernetes name of each model -> its full name."""

DeploymentMode = Literal["Standard", "Knative"]

DIGEST_PATTERN: Final = r"^sha256:[0-9a-f]{64}$"
VERSION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$"
URI_PATTERN: Final = r"^[a-z][a-z0-9+.-]*://[^\s]+$"
DATA_PATTERN: Final = r"^(/|[a-z][a-z0-9+.-]*://)[^\s]+$"
"""A path as well: of a volume that the pipeline mounts."""

MAX_URI: Final = 1024
MAX_SENTENCE: Final = 2048

MAX_KEY: Final = 317
"""Characters of a label's key: a prefix of 253, a slash, a name of 63."""

RULES_KEY: Final = "x-kubernetes-validations"

NOT_OBSERVED: Final = -1
"""``status.observedGeneration`` of an object that the operator has not reconciled."""


@dataclass(frozen=True)
class Rule:
    """A validation rule over several fields.

    Parameters
    ----------
    cel
        The rule as the API server checks it, in the Common Expression Language.
    holds
        The same rule on the type itself. ``None`` for a rule about a change (one that names
        ``oldSelf``): only the API server sees both objects.
    at_creation
        Whether the API server checks it only when an object is created: for a rule about fields
        that can't be changed. An object that was stored before the rule existed can then still be
        changed in other fields.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool] | None = None
    at_creation: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """The rule as an entry of ``x-kubernetes-validations``."""
        if not self.at_creation:
            return {"rule": self.cel, "message": self.message}
        rule = f"oldSelf.hasValue() || ({self.cel})"
        return {"rule": rule, "message": self.message, "optionalOldSelf": True}


def short_keys(field: str) -> Rule:
    """Return the rule that the keys of a map have a bound; a schema has none for keys."""
    name = to_camel(field)
    return Rule(
        f"!has(self.{name}) || self.{name}.all(key, size(key) <= {MAX_KEY})",
        f"a key in {name} must have at most {MAX_KEY} characters",
        lambda part: all(len(key) <= MAX_KEY for key in getattr(part, field) or ()),
    )


def both_or_neither(one: str, other: str, why: str) -> Rule:
    """Return the rule that of two attributes both are given or neither."""
    names = to_camel(one), to_camel(other)
    return Rule(
        f"has(self.{names[0]}) == has(self.{names[1]})",
        f"give both {names[0]} and {names[1]}, or neither: {why}",
        lambda part: (getattr(part, one) is None) == (getattr(part, other) is None),
    )


def not_above(low: str, high: str) -> Rule:
    """Return the rule that an attribute is not above another, where both are given and not 0."""
    names = to_camel(low), to_camel(high)
    return Rule(
        f"!has(self.{names[0]}) || !has(self.{names[1]}) || self.{names[1]} == 0 || "
        f"self.{names[0]} <= self.{names[1]}",
        f"{names[0]} must not be above {names[1]}",
        lambda part: (
            not getattr(part, low)
            or not getattr(part, high)
            or getattr(part, low) <= getattr(part, high)
        ),
    )


def address_rule(field: str, pattern: str, message: str) -> Rule:
    """Return the rule that an address, where it is given, begins as ``pattern`` says."""
    name = to_camel(field)
    return Rule(
        f"!has(self.{name}) || self.{name}.matches('^({pattern})')",
        f"{name} {message}",
        lambda part: (
            getattr(part, field) is None
            or re.match(f"^({pattern})", getattr(part, field)) is not None
        ),
    )


def kserve_rule(field: str) -> Rule:
    """Return the rule that KServe reads bundles at an address."""
    return address_rule(
        field,
        "(s3|gs|pvc|https?|oci|oci[+]native|hdfs|webhdfs|hf|file)://",
        "must be an address that KServe reads, such as s3://, gs://, pvc:// or https://; Azure is "
        "https://ACCOUNT.blob.core.windows.net/CONTAINER",
    )


class Part(Record):
    """Base of every object in a resource: camelCase names, unknown fields rejected, rules checked.

    The API server checks the rules when an object is written. They are checked again here, because
    an object that was stored before a rule existed is still there.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        for rule in self.rules:
            if rule.holds is not None and not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.rules:
            schema[RULES_KEY] = [rule.schema for rule in cls.rules]
        return schema

    def to_dict(self) -> dict[str, Any]:
        """Return the part as Kubernetes reads it: camelCase, without fields that are ``None``."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusPart(Part):
    """Base of what the operator writes: fields of a newer operator are ignored."""

    model_config = ConfigDict(extra="ignore")


def timestamp(moment: datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds, a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[datetime, PlainSerializer(timestamp)]
"""A time, written as Kubernetes writes it."""


class ObjectMeta(StatusPart):
    """The metadata that the operator reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Condition(StatusPart):
    """A condition in the shape of every Kubernetes API."""

    type: str = Field(
        pattern=r"^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
        max_length=64,
        description="what the condition is about",
    )
    status: Literal["True", "False", "Unknown"] = Field(description="whether it is true")
    observed_generation: int | None = Field(
        default=None, ge=0, description="the generation of the resource that it was observed for"
    )
    last_transition_time: Time = Field(description="when the status last changed")
    reason: str = Field(
        pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
        max_length=64,
        description="why, as one word for programs",
    )
    message: str = Field(max_length=MAX_SENTENCE, description="why, as a sentence for users")


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``; those of priority 1 come with ``-o wide``."""

    name: str
    type: Literal["string", "integer", "number", "boolean", "date"]
    path: str
    description: str
    priority: int = 0


@dataclass(frozen=True)
class Names:
    """The names of a resource."""

    kind: str
    plural: str
    singular: str
    short: str


class CustomResource(Part):
    """Base of the two resources."""

    names: ClassVar[Names]
    columns: ClassVar[tuple[Column, ...]] = ()

    api_version: Literal["ml.dwcp.io/v1alpha1"] = "ml.dwcp.io/v1alpha1"
    kind: str
    metadata: ObjectMeta

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Return the resource that the API server, or a file, holds.

        Raises
        ------
        UsageError
            If it is not such a resource; one sentence says which field is wrong.
        """
        try:
            # Strict, as the API server is; JSON, because there a tuple is a list.
            text = json.dumps(body, default=str)
            return cls.model_validate_json(text, strict=True, by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            what = first["msg"].removeprefix("Value error, ").rstrip(".")
            at = f" at '{where}'" if where else ""
            message = f"This {cls.names.kind} is not valid{at}: {what}."
            raise UsageError(" ".join(message.split())) from error  # a key may hold anything


def map_by(*keys: str) -> dict[str, Any]:
    """Return the schema of a list whose items are identified by these keys."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def shortened(text: str, limit: int = MAX_SENTENCE) -> str:
    """Return the text, cut with an ellipsis if it is longer than the limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def with_condition(
    conditions: Iterable[Condition],
    type_: str,
    status: bool | None,
    reason: str,
    message: str,
    *,
    at: datetime,
    generation: int | None = None,
) -> tuple[Condition, ...]:
    """Return the conditions with one of them set; its time moves only when its status changes.

    Parameters
    ----------
    status
        ``None`` is Unknown.
    at
        Now, with a time zone.
    """
    word: Literal["True", "False", "Unknown"] = (
        "Unknown" if status is None else "True" if status else "False"
    )
    before = {condition.type: condition for condition in conditions}
    known = before.get(type_)
    since = known.last_transition_time if known is not None and known.status == word else at
    before[type_] = Condition(
        type=type_,
        status=word,
        observed_generation=generation,
        last_transition_time=since,
        reason=reason,
        message=shortened(message),
    )
    return tuple(before.values())
