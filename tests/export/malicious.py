"""A small bundle for others to spoil, and an ear on what is opened and connected meanwhile.

An audit hook sees every file that Python opens and every connection; what the C++ of ONNX could
open is a pipe without a writer, which would hang.
"""

import os
import sys
import tempfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dwcp_ml.contract.bundle import ONNX_NAME
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.verify import open_bundle
from tests.export.bundles import finalize_again

EVENTS: list[tuple[str, str]] = []
LISTENING = [False]


def _listen(event, arguments):
    if not LISTENING[0]:
        return
    if event == "open" and not isinstance(arguments[0], int):  # a number is a file already open
        EVENTS.append((event, os.fsdecode(arguments[0])))
    elif event.startswith(("socket.", "pickle.", "exec", "os.exec", "subprocess.")):
        EVENTS.append((event, str(arguments)))


sys.addaudithook(_listen)


def small_model(nodes=(), initializers=(), opsets=()):
    """A graph that keeps the reliability model's signature: the mean of a row, and a threshold."""
    own = [
        helper.make_node("ReduceMean", ["features", "axes"], ["anomaly_score"], keepdims=0),
        helper.make_node("Greater", ["anomaly_score", "limit"], ["is_anomaly"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 6])]
    outputs = [
        helper.make_tensor_value_info("anomaly_score", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("is_anomaly", TensorProto.BOOL, ["batch"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([1], dtype=np.int64), "axes"),
        numpy_helper.from_array(np.array(0.5, dtype=np.float32), "limit"),
    ]
    graph = helper.make_graph(
        [*own, *nodes], "small", inputs, outputs, [*weights, *initializers]
    )  # fmt: skip
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18), *opsets]
    )


def finalize_small(destination, report, model=None):
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes((model or small_model()).SerializeToString())
        (directory / "report.md").write_text("# fine\n")
        (directory / "saved_model" / "1").mkdir(parents=True)
        (directory / "saved_model" / "1" / "saved_model.pb").write_bytes(b"graph")
        return finalize_bundle(directory, destination, RELIABILITY, report)


def listened(function):
    """Return what ``function`` does, and the files opened and connections made meanwhile."""
    EVENTS.clear()
    LISTENING[0] = True
    try:
        return function(), list(EVENTS)
    finally:
        LISTENING[0] = False


def refuse(path, match, **options):
    """Assert the error, its form, and that only parts of the bundle were opened."""
    with pytest.raises(BundleRefused, match=match) as caught:
        listened(lambda: open_bundle(path, **options))
    sentence = str(caught.value).removeprefix(str(path))
    assert sentence.endswith(".")
    assert sentence.isprintable()
    assert len(sentence) < 500
    scratch = os.path.join(tempfile.gettempdir(), "dwcp-ml-")  # noqa: PTH118
    for event, name in EVENTS:
        assert event == "open", (event, name)
        inside = name == str(path) or ("/" not in name and name != "..")
        assert inside or name.startswith(scratch) or name == str(options.get("public_key")), name


def replace_graph(path, model):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (path / ONNX_NAME).write_bytes(content)
    finalize_again(path)


def external(location, name="far"):
    """A tensor whose data are declared in another file."""
    tensor = numpy_helper.from_array(np.zeros(3, dtype=np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def symlink_directory(path, outside):
    (path / "saved_model").rename(outside / "saved_model")
    (path / "saved_model").symlink_to(outside / "saved_model")
