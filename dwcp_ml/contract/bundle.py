"""The manifest of a bundle: the directory that holds one version of one model.

<model>/<version>/
  manifest.json       what this file describes; written last
  model.onnx          raw features in, final answers out
  saved_model/1/  model.keras    the three Keras models
  model.pkl                      the isolation forest; nothing of ours ever unpickles it
  report.json  report.md  report.html
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from dwcp_ml.contract.models import ModelSpec, Tensor
from dwcp_ml.contract.records import Record

MANIFEST_NAME: Final = "manifest.json"
ONNX_NAME: Final = "model.onnx"
SAVED_MODEL_NAME: Final = "saved_model"
KERAS_NAME: Final = "model.keras"
PICKLE_NAME: Final = "model.pkl"
REPORT_NAMES: Final = ("report.json", "report.md", "report.html")

MAX_MODEL_BYTES: Final = 10_000_000
"""A model over 10 MB is not deployed."""

MAX_FILE_BYTES: Final = 50_000_000
"""A bundle with a file over this is refused before it is read."""


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


class FileRecord(Record):
    """One file of a bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Provenance(Record):
    """Where a bundle comes from; enough to make it again."""

    data_md5: str
    data_source: str
    source_commit: str | None = Field(description="commit of this project; null outside a checkout")
    lock_sha256: str | None = Field(description="SHA-256 of the lock file; null outside a checkout")
    seed: int
    libraries: dict[str, str]
    training_date: str
    achieved_metrics: dict[str, float | None]
    verdict: str


class Manifest(Record):
    """What a bundle holds and promises."""

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
