"""The settings of each task on a cluster: CPU, memory, retries, timeout, cache, node, rights.

They are read from ``resources.yaml``, and ``Resources.apply`` writes them into a task while the
pipeline is compiled. Kubeflow's local runner gets a pipeline without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.contract.models import MODELS

FILE: Final = Path(__file__).with_name("resources.yaml")

VERDICT: Final = "verdict"
"""The name of the tasks ``approved`` and ``rejected`` in the settings."""

FIND_CHAMPIONS: Final = "find-champions"

PUBLISH_CANDIDATE: Final = "publish-candidate"

KNOWN_DATA: Final = "known-data"
"""Cache key of a task whose cache is off, and may be turned on for a run."""

TASKS: Final = (
    "validate-data",
    FIND_CHAMPIONS,
    *(f"train-{name.replace('_', '-')}" for name in MODELS),
    "evaluate",
    "export",
    "check-api",
    "gate",
    VERDICT,
    PUBLISH_CANDIDATE,
)

_UNITS: Final = {
    "m": 0.001, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip

_LABEL_KEY: Final = (
    r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?$"
)
_VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_LABEL_VALUE: Final = r"^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?$"


def _cpu(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?|[0-9]+m", text) is None:
        raise ValueError(f'\'{text}\' is not a number of cores; write "2", "0.5" or 500m')
    return text


def _memory(text: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGTPE]i?", text) is None:
        raise ValueError(f"'{text}' is not an amount of memory; write 512Mi or 4Gi")
    return text


Cpu = Annotated[str, AfterValidator(_cpu)]
"""Cores, or thousandths of one: ``2``, ``0.5``, ``500m``."""

Memory = Annotated[str, AfterValidator(_memory)]
"""Bytes with a unit: ``512Mi``, ``4Gi``, ``4G``."""


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Retry(_Settings):
    """Retries of a failed task."""

    retries: int = Field(ge=0, le=10, description="number of retries; 0 for none")
    backoff_seconds: int = Field(ge=0, le=3600, description="wait before the first retry")
    backoff_factor: float = Field(
        ge=1.0, le=10.0, strict=False, description="factor from one wait to the next"
    )
    max_backoff_seconds: int = Field(ge=0, le=86_400, description="longest wait")


class SecurityContext(_Settings):
    """User and group of a container; Kubeflow drops all capabilities."""

    run_as_non_root: bool = Field(description="the kubelet does not start it as root")
    run_as_user: int = Field(ge=0, le=2**31 - 1, description="user ID")
    run_as_group: int = Field(ge=0, le=2**31 - 1, description="group ID")

    @model_validator(mode="after")
    def _no_root_by_number(self) -> SecurityContext:
        if self.run_as_non_root and self.run_as_user == 0:
            raise ValueError("run_as_user 0 is root, and run_as_non_root forbids it")
        return self


class Volume(_Settings):
    """A volume with the data of a task."""

    claim: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        description="the PersistentVolumeClaim, in the namespace of the run",
    )
    path: str = Field(pattern=r"^/[^:]+$", description="mount path")


class Secret(_Settings):
    """A Secret whose values a task gets as environment variables, such as those of a store."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        description="the Secret, in the namespace of the run",
    )
    variables: dict[
        Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")],
        Annotated[str, Field(pattern=_VARIABLE)],
    ] = Field(min_length=1, description="key of the Secret -> environment variable")
    optional: bool = Field(default=False, description="whether the task starts without it")


class TaskSettings(_Settings):
    """One task's settings, complete."""

    cpu_request: Cpu = Field(description="requested cores: `2`, `0.5`, `500m`")
    cpu_limit: Cpu = Field(description="limit of cores")
    memory_request: Memory = Field(description="requested bytes: `512Mi`, `4Gi`, `4G`")
    memory_limit: Memory = Field(description="limit of bytes; beyond it the task is killed")
    retry: Retry
    timeout_seconds: int = Field(ge=1, le=604_800, description="of one try")
    cache: Literal["always", "known-data", "never"] = Field(
        description="whether an earlier result for the same inputs may be used; known-data: only "
        "in runs that state the digest of their data"
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        description="when the node pulls the image"
    )
    node_selector: dict[
        Annotated[str, Field(pattern=_LABEL_KEY)], Annotated[str, Field(pattern=_LABEL_VALUE)]
    ] = Field(description="labels of the nodes to run on")
    volumes: list[Volume] = Field(description="volumes with its data")
    secrets: list[Secret] = Field(
        default_factory=list, description="credentials, as environment variables"
    )
    variables: dict[Annotated[str, Field(pattern=_VARIABLE)], str] = Field(
        default_factory=dict, description="environment variables, such as AWS_ENDPOINT_URL"
    )
    security_context: SecurityContext

    @model_validator(mode="after")
    def _requests_within_limits(self) -> TaskSettings:
        for what in ("cpu", "memory"):
            request, limit = getattr(self, f"{what}_request"), getattr(self, f"{what}_limit")
            if _amount(request) > _amount(limit):
                raise ValueError(f"{what}_request {request} is more than {what}_limit {limit}")
        return self


class Resources(_Settings):
    """The settings of every task, by its name in ``TASKS``."""

    tasks: dict[str, TaskSettings]

    @classmethod
    def read(cls, path: Path = FILE) -> Resources:
        """Return the settings of a file.

        Raises
        ------
        UsageError
            If the file can't be read, or a key or a value is invalid.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            what = str(error.strerror).lower() if isinstance(error, OSError) else "it is not YAML"
            raise UsageError(f"Can't read the resources in {path}: {what}.") from error
        if not isinstance(content, dict):
            raise UsageError(f"{path} has no resources: it needs `defaults` and `tasks`.")
        given = content.get("tasks") or {}
        _refuse_unknown(path, "key", content, ("defaults", "tasks"))
        _refuse_unknown(path, "task", given, TASKS)
        defaults = content.get("defaults")
        merged = {name: _merged(defaults, given.get(name)) for name in TASKS}
        try:
            return cls(tasks=merged)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][1:])
            what = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{path} is invalid at {where}: {what}.") from error

    def apply(self, task: Any, name: str) -> None:
        """Write one task's settings into a task that is being compiled.

        Parameters
        ----------
        task
            A ``kfp.dsl.PipelineTask``.
        name
            One of ``TASKS``.
        """
        from kfp import kubernetes

        one = self.tasks[name]
        task.set_cpu_request(one.cpu_request).set_cpu_limit(one.cpu_limit)
        task.set_memory_request(one.memory_request).set_memory_limit(one.memory_limit)
        task.set_retry(
            one.retry.retries,
            backoff_duration=f"{one.retry.backoff_seconds}s",
            backoff_factor=one.retry.backoff_factor,
            backoff_max_duration=f"{one.retry.max_backoff_seconds}s",
        )
        marked = KNOWN_DATA if one.cache == KNOWN_DATA else None
        task.set_caching_options(one.cache == "always", cache_key=marked)
        kubernetes.set_timeout(task, one.timeout_seconds)
        kubernetes.set_image_pull_policy(task, one.image_pull_policy)
        for label, value in one.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for volume in one.volumes:
            kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.path)
        for secret in one.secrets:
            kubernetes.use_secret_as_env(
                task, secret.name, dict(secret.variables), optional=secret.optional
            )
        for variable, value in one.variables.items():
            task.set_env_variable(variable, value)
        kubernetes.set_security_context(
            task,
            run_as_user=one.security_context.run_as_user,
            run_as_group=one.security_context.run_as_group,
            run_as_non_root=one.security_context.run_as_non_root,
        )


def _merged(defaults: Any, own: Any) -> Any:
    """Return ``defaults`` overridden by ``own``, key by key; ``node_selector`` as a whole."""
    if not isinstance(defaults, Mapping) or not isinstance(own, Mapping):
        return defaults if own is None else own
    return {
        **defaults,
        **{
            key: value if key == "node_selector" else _merged(defaults.get(key), value)
            for key, value in own.items()
        },
    }


def _refuse_unknown(path: Path, what: str, given: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{path} is invalid: `tasks` must map names of tasks to settings.")
    for key in given:
        if key not in allowed:
            raise UsageError(
                f"{path} has an unknown {what} '{key}': {did_you_mean(str(key), allowed)}."
            )


def _amount(quantity: str) -> float:
    """Return a quantity in cores or bytes."""
    parts = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", quantity)
    if parts is None:
        raise ValueError(f"{quantity} is not a quantity")
    return float(parts[1]) * _UNITS.get(parts[2], 1.0)
