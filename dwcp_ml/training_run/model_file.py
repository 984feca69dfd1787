"""The trained model as one file, such as ``checkpoints/bandwidth_predictor.keras``.

The file is a copy of the same model in the bundle of the run. It has one of the suffixes below; the
bundle keeps every exported format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dwcp_ml.contract.bundle import KERAS_NAME, MANIFEST_NAME, ONNX_NAME, PICKLE_NAME
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.files import cant_write, make_directory, write_bytes
from dwcp_ml.training_run.session import Session

_KERAS: Final = {".keras": KERAS_NAME, ".onnx": ONNX_NAME}
_FOREST: Final = {".pkl": PICKLE_NAME, ".onnx": ONNX_NAME}


@dataclass(frozen=True)
class ModelFile:
    """Where the trained model of a run is copied to."""

    path: Path
    spec: ModelSpec
    source: str

    @classmethod
    def parse(cls, path: str, spec: ModelSpec) -> Self:
        """Return the file that a path names, after its suffix was checked.

        Raises
        ------
        UsageError
            If the model has no format with this suffix, or the path is a directory.
        DwcpError
            If the directory of the file can't be created or written to.
        """
        target = Path(path)
        allowed = _FOREST if spec.name == "reliability_detector" else _KERAS
        if target.suffix not in allowed:
            raise UsageError(
                f"--output {path} must end in {' or '.join(allowed)}, the formats of {spec.name}; "
                "the directory of the runs is --output-dir.",
                code=ErrorCode.UNSUPPORTED,
                subject=target.name,
            )
        if target.is_dir():
            raise UsageError(
                f"--output {path} is a directory, but must be the file of the model; "
                "the directory of the runs is --output-dir.",
                code=ErrorCode.WRONG_TYPE,
                subject=target.name,
            )
        make_directory(target.parent)
        return cls(target, spec, allowed[target.suffix])

    def formats(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the export formats of the run, with the one that the file needs."""
        needed = "keras" if self.source == KERAS_NAME else "onnx"
        return chosen if needed in chosen else (*chosen, needed)

    def write(self, session: Session, report: SessionReport) -> bool:
        """Copy the model from its bundle; return whether there was a model to copy.

        A model that was not trained or not exported leaves an older file as it was. A model that
        the gate rejected is copied: its report has the reasons.

        Raises
        ------
        DwcpError
            If the file can't be written; then the old file or none is at its path, never a part.
        """
        bundle = session.models / self.spec.name / session.name
        model = report.models.get(self.spec.name)
        exported = model is not None and model.export.success and (bundle / MANIFEST_NAME).exists()
        if not exported or not (bundle / self.source).exists():
            return False
        try:
            content = (bundle / self.source).read_bytes()
        except OSError as error:
            raise cant_write(self.path, error) from error
        write_bytes(self.path, content)
        return True
