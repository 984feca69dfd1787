"""A compiled pipeline read from its file: inputs, tasks in order, cache settings. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

import yaml

from dwcp_ml.contract.errors import ErrorCode, UsageError

KNOWN_DATA: Final = "known-data"
"""Marks a task that may be cached in runs that state the digest of their data."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Input:
    """One declared input.

    Parameters
    ----------
    kind
        In the words of a compiled pipeline: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST,
        STRUCT.
    """

    name: str
    kind: str
    required: bool


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Parameters
    ----------
    spec, platform
        The two documents of the file; ``None`` where there is no second one.
    titles
        Kubeflow's name of a task -> its display name, in the order of the pipeline. Groups of tasks
        are replaced by their tasks.
    """

    name: str
    spec: Mapping[str, Any]
    platform: Mapping[str, Any] | None
    inputs: Mapping[str, Input]
    titles: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """Return the pipeline as Kubeflow takes it in a request."""
        if self.platform is None:
            return dict(self.spec)
        return {"pipeline_spec": self.spec, "platform_spec": self.platform}

    def with_cache(self, *, off: bool, data_known: bool) -> Package:
        """Return the package with the cache settings for one run.

        Parameters
        ----------
        data_known
            Whether the arguments state the digest of the data, so that a task that reads them may
            be cached.
        """
        spec = copy.deepcopy(dict(self.spec))
        for task in _tasks(spec):
            options = task.get("cachingOptions")
            if options is None:
                continue
            if options.pop("cacheKey", None) == KNOWN_DATA:
                options["enableCache"] = data_known
            if off:
                options["enableCache"] = False
        return replace(self, spec=spec)


def read_package(path: Path) -> Package:
    """Return the compiled pipeline of a file.

    Raises
    ------
    UsageError
        If the file can't be read, or is not a compiled pipeline.
    """
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER))
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no {path}: compile it with `dwcp-ml pipeline compile`, or name another with "
            f"--package.",
            code=ErrorCode.CANT_READ,
            subject=path,
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = str(error.strerror).lower() if isinstance(error, OSError) else "it is not YAML"
        raise UsageError(
            f"Can't read {path}: {what}.", code=ErrorCode.CANT_READ, subject=path
        ) from error
    try:
        return _package(documents)
    except (KeyError, TypeError, AttributeError, ValueError, CycleError) as error:
        raise UsageError(
            f"{path} is not a compiled pipeline: compile one with `dwcp-ml pipeline compile`.",
            code=ErrorCode.MALFORMED,
            subject=path,
        ) from error


def _package(documents: list[Any]) -> Package:
    if len(documents) not in (1, 2):
        raise ValueError("a package has one document or two")
    spec, platform = documents[0], documents[1] if len(documents) == 2 else None
    if platform is not None:
        platform = {"platforms": platform["platforms"]}
    declared = (spec["root"].get("inputDefinitions") or {}).get("parameters") or {}
    executors = spec["deploymentSpec"]["executors"]
    if not executors or not spec["root"]["dag"]["tasks"]:
        raise ValueError("it has no tasks")
    return Package(
        name=str(spec["pipelineInfo"]["name"]),
        spec=spec,
        platform=platform,
        inputs={
            name: Input(
                name,
                str(one["parameterType"]),
                required="defaultValue" not in one and not one.get("isOptional", False),
            )
            for name, one in declared.items()
        },
        titles=dict(_titles(spec, spec["root"]["dag"])),
    )


def _tasks(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every task, also those inside groups."""
    groups = [spec["root"], *spec.get("components", {}).values()]
    for group in groups:
        yield from group.get("dag", {}).get("tasks", {}).values()


def _titles(spec: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and title of each executed task, each after those that it depends on."""
    tasks = dag["tasks"]
    needs = {name: task.get("dependentTasks") or [] for name, task in tasks.items()}
    for name in TopologicalSorter(needs).static_order():
        component = spec["components"][tasks[name]["componentRef"]["name"]]
        if "dag" in component:
            yield from _titles(spec, component["dag"])
        else:
            yield name, str((tasks[name].get("taskInfo") or {}).get("name") or name)
