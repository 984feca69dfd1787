"""Write small bundles whose answers are easy to foretell, for the tests of the in-process models.

    python go/testdata/bundles.py go/testdata/bundles

Each model has the signature of the contract and answers with the mean of its features: the mean
itself for a number, its floor within the limits for a whole number, whether it is above 0.5 for a
flag, and a share of the mean for each class.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, signature
from dwcp_ml.contract.models import MODELS, ModelSpec, Tensor
from dwcp_ml.files import sha256_of

VERSION = "7"
DTYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def graph(spec: ModelSpec) -> onnx.ModelProto:
    """Return the model that answers with means."""
    axes = list(range(1, len(spec.input.shape) + 1))
    nodes = [helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0)]
    constants: dict[str, Any] = {"axes": np.array(axes, np.int64)}
    outputs = spec.forms[0].outputs
    for output in outputs:
        nodes += output_nodes(output, constants)
    return helper.make_model(
        helper.make_graph(
            nodes,
            spec.name,
            [
                helper.make_tensor_value_info(
                    "features", TensorProto.FLOAT, ["n", *spec.input.shape]
                )
            ],
            [
                helper.make_tensor_value_info(
                    output.name, DTYPES[output.dtype], ["n", *output.shape]
                )
                for output in outputs
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


def output_nodes(output: Tensor, constants: dict[str, Any]) -> list[onnx.NodeProto]:
    """Return the nodes from ``mean`` to an output."""
    name = output.name
    if output.shape:
        classes = output.shape[0]
        constants |= {
            "column": np.array([1], np.int64),
            "shares": (np.arange(1, classes + 1) / classes).astype(np.float32),
        }
        return [
            helper.make_node("Unsqueeze", ["mean", "column"], ["means"]),
            helper.make_node("Mul", ["means", "shares"], [name]),
        ]
    if output.dtype == "int64":
        constants |= {"low": np.float32(output.minimum), "high": np.float32(output.maximum)}
        return [
            helper.make_node("Floor", ["mean"], ["floored"]),
            helper.make_node("Clip", ["floored", "low", "high"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], [name], to=TensorProto.INT64),
        ]
    if output.dtype == "bool":
        constants["half"] = np.float32(0.5)
        return [helper.make_node("Greater", ["mean", "half"], [name])]
    return [helper.make_node("Identity", ["mean"], [name])]


def write(directory: Path, spec: ModelSpec) -> None:
    """Write one bundle: the model, and the part of a manifest that the client reads."""
    directory.mkdir(parents=True, exist_ok=True)
    model = graph(spec)
    onnx.checker.check_model(model, full_check=True)
    path = directory / ONNX_NAME
    path.write_bytes(model.SerializeToString(deterministic=True))
    said = signature(spec, spec.forms[0].name)
    tensors = {
        key: [
            tensor.model_dump(mode="json", include={"name", "shape", "dtype"})
            for tensor in said[key]
        ]
        for key in ("inputs", "outputs")
    }
    manifest = {
        "schema_version": 1,
        "name": spec.name,
        "version": VERSION,
        "form": said["form"],
        **tensors,
        "feature_order": list(spec.features),
        "window": spec.window,
        "files": {ONNX_NAME: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}},
    }
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each in MODELS.values():
        write(Path(sys.argv[1]) / each.name / VERSION, each)
