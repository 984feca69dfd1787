"""Words of the command line -> arguments that a compiled pipeline takes; refused before they go.

A wrong value would else fail a task, some minutes later and far away.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.kube.publish_candidate import check_destination
from dwcp_ml.kubeflow.package import Input, Package
from dwcp_ml.training_run.dataset import without_digest
from dwcp_ml.training_run.options import parse_formats, run_options

NAME: Final = "dwcp-ml-training"
"""The pipeline whose arguments' values are known here, too."""

_DATA: Final = ("data_path", "incidents_path")
_KINDS: Final = {
    "STRING": "a text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}
_FIELDS: Final = {
    "seed": "seed",
    "packet_loss_unit": "packet_loss_unit",
    "congestion_window_unit": "congestion_window_unit",
    "kserve_mode": "mode",
    "stable_uri": "stable_uri",
    "storage_prefix": "storage_prefix",
    "strict": "strict",
    "check_api": "check_api",
    "requests_per_second": "requests_per_second",
    "model_options": "per_model",
}
"""Input of the pipeline -> field of ``RunOptions``, whose rules hold for it."""


def parse_arguments(package: Package, words: Iterable[str]) -> dict[str, Any]:
    """Return the arguments that words ``NAME=VALUE`` stand for.

    Raises
    ------
    UsageError
        If a word has no ``=``, a name is unknown or given twice, a value is not of its input's
        type, or a required input has none.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise UsageError(f"--argument {word} is not NAME=VALUE.")
        if name not in package.inputs:
            raise UsageError(
                f"the pipeline {package.name} has no argument '{name}': "
                f"{did_you_mean(name, package.inputs)}."
            )
        if name in found:
            raise UsageError(f"--argument {name} is given twice.")
        found[name] = _value(package.inputs[name], text)
    missing = [one.name for one in package.inputs.values() if one.required]
    missing = [name for name in missing if name not in found]
    if missing:
        raise UsageError(
            f"the pipeline {package.name} needs --argument {missing[0]}=…: it has no default."
        )
    if package.name == NAME:
        _check_values(found)
    return found


def _value(declared: Input, text: str) -> Any:
    """Return a text as a value of its input's type."""
    try:
        value = _converted(declared.kind, text)
    except ValueError as error:
        kind = _KINDS.get(declared.kind)
        if kind is None:
            raise UsageError(
                f"--argument {declared.name} can't be given here: its type is {declared.kind}."
            ) from error
        raise UsageError(f"--argument {declared.name}={text} is not {kind}.") from error
    return value


def _converted(kind: str, text: str) -> Any:
    match kind:
        case "STRING":
            return text
        case "NUMBER_INTEGER":
            return int(text)
        case "NUMBER_DOUBLE" if math.isfinite(float(text)):
            return float(text)
        case "BOOLEAN" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "LIST" if isinstance(value := json.loads(text), list):
            return value
        case "STRUCT" if isinstance(value := json.loads(text), dict):
            return value
    raise ValueError(text)


def _check_values(arguments: Mapping[str, Any]) -> None:
    """Refuse what the tasks of our own pipeline would refuse."""
    known = {_FIELDS[name]: value for name, value in arguments.items() if name in _FIELDS}
    mode = known.get("mode", "standard")
    if mode not in ("standard", "knative"):
        raise UsageError(f"there is no KServe mode '{mode}': it is standard or knative.")
    options = run_options(**known)
    options.stable_uris()
    parse_formats(str(arguments.get("export_formats", "")))
    check_destination(
        str(arguments.get("rollout_namespace", "")), str(arguments.get("storage_prefix", ""))
    )


def with_digests(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the arguments with the md5 of data that can be read here, and whether all are known.

    Data that are simulated are known by their seed. A file that a cluster and this machine find
    under the same absolute path gets its md5 into its name, unless it is there already.

    Raises
    ------
    DataRefused
        If such a file can't be read.
    """
    from dwcp_ml.data.versioning import file_version

    found, known = dict(arguments), True
    for name in _DATA:
        text = str(found.get(name) or "")
        path, digest = without_digest(text)
        if not path or digest is not None:
            continue
        file = Path(path)
        if file.is_absolute() and file.is_file():
            found[name] = f"{path}#md5={file_version(file).md5}"
        else:
            known = False
    return found, known
