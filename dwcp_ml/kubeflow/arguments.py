"""Arguments of a compiled pipeline, parsed from the command line and checked before submission.

Unchecked, a wrong value would fail a task on the cluster some minutes later.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.publish_candidate import check_destination
from dwcp_ml.kubeflow.package import Input, Package
from dwcp_ml.kubeflow.volumes import missing_volume
from dwcp_ml.storage.addresses import scheme_of, without_digest
from dwcp_ml.training_run.options import run_options

NAME: Final = "dwcp-ml-training"
"""The pipeline whose arguments' values are checked against ``RunOptions``."""

_DATA: Final = ("data_path", "incidents_path")
_KINDS: Final = {
    "STRING": "a text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}


def parse_arguments(package: Package, words: Iterable[str]) -> dict[str, Any]:
    """Return the arguments given as words ``NAME=VALUE``.

    Raises
    ------
    UsageError
        If a word has no ``=``, a name is unknown or given twice, a value is not of its input's
        type, or a required input has none.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator:
            raise UsageError(
                f"--argument {word} is not NAME=VALUE.", code=ErrorCode.INVALID_OPTION, subject=word
            )
        if name not in package.inputs:
            raise UsageError(
                f"The pipeline {package.name} has no argument '{name}': "
                f"{did_you_mean(name, package.inputs)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=name,
            )
        if name in arguments:
            raise UsageError(
                f"--argument {name} is given twice.", code=ErrorCode.AMBIGUOUS, subject=name
            )
        arguments[name] = _value(package.inputs[name], text)
    required = [name for name, declared in package.inputs.items() if declared.required]
    missing = [name for name in required if name not in arguments]
    if missing:
        raise UsageError(
            f"The pipeline {package.name} needs --argument {missing[0]}=…: it has no default.",
            code=ErrorCode.MISSING,
            subject=missing[0],
        )
    if package.name == NAME:
        _check_values(package, arguments)
    return arguments


def _value(declared: Input, text: str) -> Any:
    """Return a text as a value of its input's type."""
    try:
        value = _converted(declared.kind, text)
    except ValueError as error:
        kind = _KINDS.get(declared.kind)
        if kind is None:
            raise UsageError(
                f"--argument {declared.name} can't be given here: its type is {declared.kind}.",
                code=ErrorCode.UNSUPPORTED,
                subject=declared.name,
            ) from error
        raise UsageError(
            f"--argument {declared.name}={text} is not {kind}.",
            code=ErrorCode.WRONG_TYPE,
            subject=declared.name,
        ) from error
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


def _check_values(package: Package, arguments: Mapping[str, Any]) -> None:
    """Reject what the tasks of our own pipeline would reject."""
    models = [name for name in MODELS if f"train-{name.replace('_', '-')}" in package.titles]
    options = run_options(models=",".join(models), **arguments)
    options.stable_uris()
    check_destination(options.rollout_namespace, options.storage_prefix)
    addresses = {name: without_digest(str(arguments.get(name) or ""))[0] for name in _DATA}
    if options.rollout_namespace:
        addresses["storage_prefix"] = options.storage_prefix
    for name, address in addresses.items():
        # A path may be in the image, but a claim must be mounted.
        if scheme_of(address) == "pvc" and (why := missing_volume(package.body(), name, address)):
            raise UsageError(
                f"--argument {name}={address} can't work: {why}.",
                code=ErrorCode.MISSING,
                subject=name,
            )


def with_digests(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the arguments with the md5 of readable data, and whether the md5 of all data is known.

    Simulated data are known by their seed. The md5 of a file at an absolute path that exists on
    this machine as well is appended to the path, unless it is there already. Of a directory it is
    not if the run has a data window: with the md5 all of its files would be read.

    Raises
    ------
    DataRefused
        If such a file can't be read.
    """
    from dwcp_ml.data.versioning import file_version

    complete, known = dict(arguments), True
    has_window = bool(arguments.get("data_start") or arguments.get("data_end"))
    for name in _DATA:
        text = str(complete.get(name) or "")
        path, digest = without_digest(text)
        if not path or digest is not None:
            continue
        file = Path(path)
        if file.is_absolute() and (file.is_file() or (file.is_dir() and not has_window)):
            complete[name] = f"{path}#md5={file_version(file).md5}"
        else:
            known = False
    return complete, known
