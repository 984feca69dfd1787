"""Write the part of the contract that the Go client repeats to standard output.

    python go/testdata/contract.py > go/testdata/contract.json

A Go test compares the client's constants with the file; it fails when the two drift.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from dwcp_ml.contract.bundle import MANIFEST_NAME, MAX_FILE_BYTES, ONNX_NAME, Manifest
from dwcp_ml.contract.models import MODELS, ModelSpec, Tensor


def tensor(of: Tensor) -> dict[str, Any]:
    """Return a tensor as the Go client states it."""
    limits = None if of.dtype != "int64" else [int(of.minimum or 0), int(of.maximum or 0)]
    return {"name": of.name, "shape": list(of.shape), "dtype": of.dtype, "limits": limits}


def model(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's signature as the Go client states it."""
    return {
        "name": spec.name,
        "features": list(spec.features),
        "window": spec.window,
        "input": tensor(spec.input),
        "forms": [
            {"name": form.name, "outputs": [tensor(output) for output in form.outputs]}
            for form in spec.forms
        ],
    }


def contract() -> dict[str, Any]:
    """Return everything that the Go client repeats."""
    return {
        "models": [model(spec) for spec in MODELS.values()],
        "bundle": {
            "manifest": MANIFEST_NAME,
            "onnx": ONNX_NAME,
            "max_file_bytes": MAX_FILE_BYTES,
            "schema_version": Manifest.model_fields["schema_version"].default,
        },
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(contract(), indent=2) + "\n")
