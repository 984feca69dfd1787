"""Steps of the compiled pipeline, started as Kubeflow starts them: command, program, input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dwcp_ml.training_run.worker_pool import QUIET

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pipelines/training.yaml"
MOUNT = "/minio/run"

Start = Callable[[list[str]], subprocess.CompletedProcess[str]]


class Steps:
    """The steps of one run, each after those that it needs.

    Parameters
    ----------
    start
        Runs a command to its end, here or in a container.
    here
        Where this process finds what the steps write.
    there, uri
        Where the steps write it, and the address of that place.
    """

    def __init__(self, start: Start, here: Path, there: str, uri: str) -> None:
        self._start, self._here, self._there, self._uri = start, here, there, uri
        specification = next(yaml.safe_load_all(PACKAGE.read_text(encoding="utf-8")))
        self._components = specification["components"]
        self._executors = specification["deploymentSpec"]["executors"]
        self.log = ""

    def run(
        self, step: str, name: str, parameters: Mapping[str, Any], **artifacts: str
    ) -> dict[str, Any]:
        """Run a component under the name ``step``; return its output parameters.

        Parameters
        ----------
        name
            Of the component: ``validate-data``.
        artifacts
            Input -> ``<step>/<output>`` that gave it.
        """
        component = self._components[f"comp-{name}"]
        given = self._executor_input(step, component, parameters, artifacts)
        container = self._executors[component["executorLabel"]]["container"]
        arguments = [json.dumps(given) if word == "{{$}}" else word for word in container["args"]]
        (self._here / step).mkdir(mode=0o777)
        (self._here / step).chmod(0o777)
        done = self._start([*container["command"], *arguments])
        self.log = done.stdout + done.stderr
        assert done.returncode == 0, self.log[-4000:]
        output = json.loads(self.path(f"{step}/executor_output.json").read_text())
        return dict(output.get("parameterValues", {}))

    def path(self, output: str) -> Path:
        """Return where this process finds ``<step>/<output>``."""
        return self._here / output

    def _executor_input(
        self,
        step: str,
        component: Mapping[str, Any],
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, str],
    ) -> dict[str, Any]:
        wanted, outputs = component["inputDefinitions"], component.get("outputDefinitions", {})
        missing = wanted.get("parameters", {}).keys() - parameters.keys()
        assert not missing, f"{step} lacks {missing}"
        return {
            "inputs": {
                "parameterValues": dict(parameters),
                "artifacts": {
                    name: _artifact(f"{self._uri}/{place}", wanted["artifacts"][name])
                    for name, place in artifacts.items()
                },
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": f"{self._there}/{step}/{name}"}
                    for name in outputs.get("parameters", {})
                },
                "artifacts": {
                    name: _artifact(f"{self._uri}/{step}/{name}", kind)
                    for name, kind in outputs.get("artifacts", {}).items()
                },
                "outputFile": f"{self._there}/{step}/executor_output.json",
            },
        }


def started_here(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a step's command on this machine, with this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, env={**os.environ, **QUIET, "PATH": path}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip


def _artifact(uri: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    artifact = {
        "name": uri.rpartition("/")[2],
        "uri": uri,
        "type": kind["artifactType"],
        "metadata": {},
    }
    return {"artifacts": [artifact]}
