"""The manifest of a bundle: the directory that holds one version of one model.

<model>/<version>/
  manifest.json       what this file describes; written last
  model.onnx          raw features in, final predictions out
  saved_model/1/  model.keras    the three Keras models
  model.pkl                      the isolation forest; this project never unpickles it
  report.json  report.md  report.html
  model.sig           the signature, if the bundle was signed; the manifest does not list it
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from itertools import accumulate
from typing import Any, Final

from pydantic import Field, ValidationError

from dwcp_ml.contract.champion import ChampionRecord, Lineage
from dwcp_ml.contract.columns import is_feature
from dwcp_ml.contract.distribution import FeatureDistribution
from dwcp_ml.contract.errors import BundleRefused, ErrorCode
from dwcp_ml.contract.evaluation import Finding
from dwcp_ml.contract.intervals import LOWER, MAX_HALF_WIDTH, UPPER
from dwcp_ml.contract.models import ModelSpec, Tensor
from dwcp_ml.contract.record import Record

MANIFEST_NAME: Final = "manifest.json"
ONNX_NAME: Final = "model.onnx"
SAVED_MODEL_NAME: Final = "saved_model"
KERAS_NAME: Final = "model.keras"
PICKLE_NAME: Final = "model.pkl"
REPORT_NAMES: Final = ("report.json", "report.md", "report.html")
SIGNATURE_NAME: Final = "model.sig"

MAX_MODEL_BYTES: Final = 10_000_000
"""A model over 10 MB is not deployed."""

MAX_P99_MS: Final = 10.0
"""A model whose 99th percentile of the latency of one inference is not under this is rejected."""

MAX_FILE_BYTES: Final = 50_000_000
"""A bundle with a file over this is rejected before it is read."""

MAX_DEPTH: Final = 8
"""Parts of the longest path in a bundle; ``saved_model/1/variables/variables.index`` has four."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
VERSION_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}")


class TensorRecord(Record):
    """One input or output as the manifest lists it."""

    name: str
    shape: tuple[int, ...] = Field(description="shape of one instance, without the batch")
    dtype: str
    unit: str = ""
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> TensorRecord:
        """Return the record of a tensor of the contract."""
        return cls(**{field: getattr(tensor, field) for field in cls.model_fields})


_OF_CONTRACT: Final = {"name", "shape", "dtype", "unit", "minimum", "maximum"}
"""The fields of a tensor that its callers rely on."""


class IntervalRecord(Record):
    """The prediction interval of one output; ``contract.intervals`` has the formula."""

    output: str = Field(description="the output that it is around, a float32 number")
    nominal_coverage: float = Field(gt=0, lt=1, description="share of true values inside")
    half_width: float = Field(ge=0, le=MAX_HALF_WIDTH, description="on the scale of log(1 + value)")
    calibration_examples: int = Field(ge=1)


class FileRecord(Record):
    """One file of a bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Provenance(Record):
    """The origin of a bundle; enough to build it again."""

    data_md5: str
    data_source: str
    source_commit: str | None = Field(description="commit of this project; null if unknown")
    lock_sha256: str | None = Field(description="SHA-256 of the lock file; null if unknown")
    seed: int
    libraries: dict[str, str]
    training_date: str
    achieved_metrics: dict[str, float | None]
    verdict: str
    # Servers from before the next four fields refuse a manifest that has them.
    findings: tuple[Finding, ...] = Field(
        default=(),
        exclude_if=lambda findings: not findings,
        description="strong references that the model is no better than",
    )
    accepted_leaks: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda accepted: not accepted,
        description="columns whose leaks the user accepted",
    )
    champion: ChampionRecord | None = Field(
        default=None,
        exclude_if=lambda champion: champion is None,
        description="the bundle that was live, on the same test split, and how this one differs",
    )
    lineage: Lineage | None = Field(
        default=None,
        exclude_if=lambda lineage: lineage is None,
        description="null in bundles of earlier versions",
    )


class Manifest(Record):
    """The files of a bundle, the signature of its model, and where it comes from."""

    schema_version: int = 1
    name: str
    version: str
    form: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    feature_order: tuple[str, ...]
    window: int = Field(ge=1)
    threshold: float | None = Field(
        description="the decision's threshold; null where there is none"
    )
    # Servers from before these two fields refuse a manifest that has them.
    interval: IntervalRecord | None = Field(
        default=None,
        exclude_if=lambda interval: interval is None,
        description="of a model with prediction intervals",
    )
    training_distribution: tuple[FeatureDistribution, ...] = Field(
        default=(),
        exclude_if=lambda features: not features,
        description="of each feature; a server counts live requests in the same buckets",
    )
    hyperparameters: dict[str, Any]
    files: dict[str, FileRecord]
    provenance: Provenance


def signature(spec: ModelSpec, form: str) -> dict[str, Any]:
    """Return the part of a manifest that follows from the model's contract alone."""
    return {
        "name": spec.name,
        "form": form,
        "inputs": (TensorRecord.of(spec.input),),
        "outputs": tuple(TensorRecord.of(tensor) for tensor in spec.form(form).outputs),
        "feature_order": spec.features,
        "window": spec.window,
    }


def interface(manifest: Manifest) -> dict[str, Any]:
    """Return what the callers of a model rely on: the part of a manifest that is its contract.

    These are names, order, shapes, types, units and ranges of inputs and outputs, and what the
    output means (``form``). The version, the digest and the wording of descriptions are no part.
    """
    return {
        "name": manifest.name,
        "form": manifest.form,
        "inputs": [tensor.model_dump(include=_OF_CONTRACT) for tensor in manifest.inputs],
        "outputs": [tensor.model_dump(include=_OF_CONTRACT) for tensor in manifest.outputs],
        "feature_order": manifest.feature_order,
        "window": manifest.window,
    }


def contract_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of a bundle's contract, 64 hex digits; equal contracts have equal ones."""
    canonical = json.dumps(interface(manifest), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_manifest(content: bytes, where: object) -> Manifest:
    """Return the manifest in ``content``, which is untrusted.

    Parameters
    ----------
    content
        The bytes of ``manifest.json``; the caller bounds their number.

    Raises
    ------
    BundleRefused
        If it is not UTF-8 or not JSON, is nested too deeply, repeats a key, is not a manifest
        of schema version 1, or names a file that a bundle can't contain.
    """
    try:
        json.loads(content.decode(), object_pairs_hook=_unique_keys)
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        fault = f"{printable(place)}: {first['msg'].lower()}"
    except UnicodeDecodeError:
        fault = "it is not UTF-8"
    except RecursionError:
        fault = "it is nested too deeply"
    except ValueError as error:
        fault = printable(str(error)[:1].lower() + str(error)[1:])
    else:
        fault = ""
    if fault:
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} is invalid: {fault}; export the model again.",
            code=ErrorCode.MALFORMED,
            subject=MANIFEST_NAME,
        ) from None
    _check_contents(manifest, where)
    return manifest


def printable(text: str, limit: int = 200) -> str:
    """Return untrusted text for a one-line message: bounded, without unprintable characters."""
    plain = "".join(char if char.isprintable() else "?" for char in text[: limit + 1])
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Reject a repeated key: two parsers could read two different manifests."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"The key '{key}' is repeated")
        result[key] = value
    return result


def _check_contents(manifest: Manifest, where: object) -> None:
    if manifest.schema_version != 1:
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} has schema version {manifest.schema_version}; "
            "this program reads version 1.",
            code=ErrorCode.UNSUPPORTED,
            subject=MANIFEST_NAME,
        )
    for what, value, pattern in (
        ("name", manifest.name, _NAME),
        ("version", manifest.version, VERSION_PATTERN),
    ):
        if not pattern.fullmatch(value):
            raise BundleRefused(
                f"{where}: {MANIFEST_NAME} has the {what} '{printable(value)}', "
                "which can't be a path; export the model again.",
                code=ErrorCode.FORBIDDEN,
                subject=what,
            )
    _check_file_names(manifest, where)
    if ONNX_NAME not in manifest.files:
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} does not name {ONNX_NAME}; export the model again.",
            code=ErrorCode.MISSING,
            subject=ONNX_NAME,
        )
    if fault := _interval_fault(manifest):
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} {fault}; export the model again.",
            code=ErrorCode.CONTRACT,
            subject="interval",
        )
    fault = _features_fault(manifest)
    if fault:
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} {fault}; export the model again.",
            code=ErrorCode.CONTRACT,
            subject="feature_order",
        )
    described = [each.feature for each in manifest.training_distribution]
    if len(set(described)) < len(described) or not set(described) <= set(manifest.feature_order):
        raise BundleRefused(
            f"{where}: {MANIFEST_NAME} has a training distribution of a feature that is none of "
            "its own, or two of one; export the model again.",
            code=ErrorCode.CONTRACT,
            subject="training_distribution",
        )


def _check_file_names(manifest: Manifest, where: object) -> None:
    folded = {MANIFEST_NAME: MANIFEST_NAME, SIGNATURE_NAME: SIGNATURE_NAME}
    for name in manifest.files:
        if name in (MANIFEST_NAME, SIGNATURE_NAME) or not _is_bundle_path(name):
            raise BundleRefused(
                f"{where}: {MANIFEST_NAME} names the file '{printable(name)}', "
                "which a bundle can't contain; export the model again.",
                code=ErrorCode.FORBIDDEN,
                subject=name,
            )
        if name.lower() in folded:
            raise BundleRefused(
                f"{where}: {MANIFEST_NAME} names '{folded[name.lower()]}' and '{name}', which are "
                "the same file on a case-insensitive system; export the model again.",
                code=ErrorCode.AMBIGUOUS,
                subject=name,
            )
        folded[name.lower()] = name
    for name in manifest.files:
        directories = accumulate(name.lower().split("/")[:-1], "{}/{}".format)
        if file := next((each for each in directories if each in folded), ""):
            raise BundleRefused(
                f"{where}: {MANIFEST_NAME} names '{name}' and '{folded[file]}', which can't be "
                "both a directory and a file; export the model again.",
                code=ErrorCode.AMBIGUOUS,
                subject=name,
            )


def _interval_fault(manifest: Manifest) -> str:
    """Return why there can't be such an interval; empty if there can, or is none."""
    if manifest.interval is None:
        return ""
    numbers = {each.name for each in manifest.outputs if each.dtype == "float32" and not each.shape}
    if manifest.interval.output not in numbers:
        return (
            f"has an interval of '{printable(manifest.interval.output)}', "
            "which is no output that is a float32 number"
        )
    taken = sorted({LOWER, UPPER} & {each.name for each in manifest.outputs})
    return f"has an interval, and an output called {taken[0]}" if taken else ""


def _features_fault(manifest: Manifest) -> str:
    """Return why the features of a manifest can't be those of its input; empty if they can."""
    seen: set[str] = set()
    for name in manifest.feature_order:
        if not is_feature(name):
            return f"names the feature '{printable(name)}', which the data contract does not have"
        if name in seen:
            return f"names the feature '{name}' twice"
        seen.add(name)
    if len(manifest.inputs) != 1:
        return f"has {len(manifest.inputs)} inputs, not one"
    numbers = math.prod(manifest.inputs[0].shape)
    if numbers != manifest.window * len(seen):
        return (
            f"names {len(seen)} features for a window of {printable(str(manifest.window), 20)}, "
            f"but its input has {printable(str(numbers), 20)} numbers"
        )
    return ""


def _is_bundle_path(name: str) -> bool:
    """Return whether ``name`` is a short relative POSIX path: no ``..``, no root."""
    parts = name.split("/")
    return len(parts) <= MAX_DEPTH and all(_PART.fullmatch(part) for part in parts)
