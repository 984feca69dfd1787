"""The compiled pipeline as a file: its inputs, its tasks in their order, and its cache. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

import yaml

from dwcp_ml.contract.errors import UsageError

KNOWN_DATA: Final = "known-data"
"""Marks a task whose cache may be turned on where it is known which data it reads."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Input:
    """One declared input.

    Parameters
    ----------
    kind
        In the words of a compiled pipeline: STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN, LIST,
        STRUCT.
    required
        Whether it has neither a default nor may be left out.
    """

    name: str
    kind: str
    required: bool


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Parameters
    ----------
    name
        The pipeline's.
    spec, platform
        The two documents of the file; ``None`` where there is no second one.
    inputs
        By name.
    titles
        Kubeflow's name of a task -> what people call it, in the order of the pipeline. Groups of
        tasks are not in it, what is in them is.
    """

    name: str
    spec: Mapping[str, Any]
    platform: Mapping[str, Any] | None
    inputs: Mapping[str, Input]
    titles: Mapping[str, str]

    def body(self) -> dict[str, Any]:
        """Return the pipeline as Kubeflow takes it inline; a document alone stands for itself."""
        if self.platform is None:
            return dict(self.spec)
        return {"pipeline_spec": self.spec, "platform_spec": self.platform}

    def with_cache(self, *, off: bool, data_known: bool) -> Package:
        """Return the package with its cache decided for one run.

        Parameters
        ----------
        off
            Take nothing from the cache.
        data_known
            Whether the arguments say which data are meant, so that a task that reads them may come
            from the cache.
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
        If the file can't be read, or holds no compiled pipeline.
    """
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no {path}: compile it with `dwcp-ml pipeline compile`, or name another with "
            f"--package."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = str(error.strerror).lower() if isinstance(error, OSError) else "it is no YAML"
        raise UsageError(f"can't read {path}: {what}.") from error
    try:
        return _package(documents)
    except (KeyError, TypeError, AttributeError, ValueError, CycleError) as error:
        raise UsageError(
            f"{path} holds no compiled pipeline: compile one with `dwcp-ml pipeline compile`."
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
    """Yield every task, those of groups as well."""
    groups = [spec["root"], *spec.get("components", {}).values()]
    for group in groups:
        yield from group.get("dag", {}).get("tasks", {}).values()


def _titles(spec: Mapping[str, Any], dag: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and title of each task that runs, each after those that it needs."""
    tasks = dag["tasks"]
    needs = {name: task.get("dependentTasks") or [] for name, task in tasks.items()}
    for name in TopologicalSorter(needs).static_order():
        component = spec["components"][tasks[name]["componentRef"]["name"]]
        if "dag" in component:
            yield from _titles(spec, component["dag"])
        else:
            yield name, str((tasks[name].get("taskInfo") or {}).get("name") or name)
