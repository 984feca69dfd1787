"""Bundles that are broken on purpose, to see a rollout roll them back.

They are real bundles: the real server loads them, and the contract's signature holds. Their report
names the fault, and its verdict is REJECTED.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import ONNX_NAME, REPORT_NAMES
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import BANDWIDTH, model_spec
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.files import write_text

if TYPE_CHECKING:
    import onnx

SCALE: Final = 1.3
SLIGHT_SCALE: Final = 1.05
NAN_ABOVE_MBPS: Final = 100.0
CONSTANT_MBPS: Final = 100.0
NOISE: Final = 0.08


def break_bundle(source: Path, destination: Path, fault: str | None) -> Path:
    """Write a copy of a bandwidth predictor under another version, with a fault in its graph.

    Parameters
    ----------
    destination
        ``<model>/<version>`` of the broken one; must not exist.
    fault
        ``scale``, ``slight_scale``: every prediction is 1.3 or 1.05 times too high; ``nan``:
        predictions above 100 Mbit/s are NaN; ``constant``: every prediction is 100 Mbit/s;
        ``noise``: one prediction is 8 % too high, another as much too low;
        ``None``: a copy without a fault.

    Returns
    -------
    Path
        ``destination``.

    Raises
    ------
    UsageError
        If there is no such fault, or the bundle is of another model.
    """
    import onnx

    if fault is not None and fault not in FAULTS:
        raise UsageError(f"there is no fault '{fault}': it is one of {', '.join(FAULTS)}.")
    report = ModelReport.read(source / REPORT_NAMES[0])
    if report.model_name != BANDWIDTH.name:
        raise UsageError(f"{source} is {report.model_name}: only {BANDWIDTH.name} can be broken.")
    graph = onnx.load(source / ONNX_NAME)
    broken = report.replace(version=destination.name)
    if fault is not None:
        how, change = FAULTS[fault]
        change(graph, BANDWIDTH.form(report.training.form).outputs[0].name)
        reasons = (f"broken on purpose: {how}.",)
        broken = broken.replace(verdict="REJECTED", deployment_ready=False, reasons=reasons)
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(graph.SerializeToString())
        write_text(directory / REPORT_NAMES[0], broken.to_json())
        return finalize_bundle(directory, destination, model_spec(report.model_name), broken)


def _scale(scale: float, graph: onnx.ModelProto, output: str) -> None:
    """Multiply the output by a constant."""
    from onnx import helper, numpy_helper

    _rename_last(graph, output)
    factor = numpy_helper.from_array(_float32(scale), "broken_factor")
    graph.graph.initializer.append(factor)
    graph.graph.node.append(helper.make_node("Mul", ["unbroken", "broken_factor"], [output]))


def _noise(graph: onnx.ModelProto, output: str) -> None:
    """Multiply the output by 1 + or - a share, by a digit of it: the mean stays as it is."""
    from onnx import helper, numpy_helper

    _rename_last(graph, output)
    for name, value in (("broken_zoom", 1000.0), ("broken_share", NOISE), ("broken_one", 1.0)):
        graph.graph.initializer.append(numpy_helper.from_array(_float32(value), name))
    graph.graph.node.extend(
        [
            helper.make_node("Mul", ["unbroken", "broken_zoom"], ["broken_angle"]),
            helper.make_node("Sin", ["broken_angle"], ["broken_sine"]),
            helper.make_node("Sign", ["broken_sine"], ["broken_sign"]),
            helper.make_node("Mul", ["broken_sign", "broken_share"], ["broken_change"]),
            helper.make_node("Add", ["broken_change", "broken_one"], ["broken_factor"]),
            helper.make_node("Mul", ["unbroken", "broken_factor"], [output]),
        ]
    )


def _constant(graph: onnx.ModelProto, output: str) -> None:
    """Predict the same for every request."""
    from onnx import helper, numpy_helper

    _rename_last(graph, output)
    for name, value in (("broken_zero", 0.0), ("broken_constant", CONSTANT_MBPS)):
        graph.graph.initializer.append(numpy_helper.from_array(_float32(value), name))
    graph.graph.node.extend(
        [
            helper.make_node("Mul", ["unbroken", "broken_zero"], ["broken_product"]),
            helper.make_node("Add", ["broken_product", "broken_constant"], [output]),
        ]
    )


def _nan(graph: onnx.ModelProto, output: str) -> None:
    """Predict NaN above a limit; the server's warm-up requests stay below it and pass."""
    from onnx import helper, numpy_helper

    _rename_last(graph, output)
    for name, value in (("broken_limit", NAN_ABOVE_MBPS), ("broken_nan", float("nan"))):
        graph.graph.initializer.append(numpy_helper.from_array(_float32(value), name))
    graph.graph.node.extend(
        [
            helper.make_node("Greater", ["unbroken", "broken_limit"], ["broken_where"]),
            helper.make_node("Where", ["broken_where", "broken_nan", "unbroken"], [output]),
        ]
    )


def _rename_last(graph: onnx.ModelProto, output: str) -> None:
    """Rename the current output, so that a node added at the end can produce it."""
    for node in graph.graph.node:
        node.output[:] = ["unbroken" if name == output else name for name in node.output]
        node.input[:] = ["unbroken" if name == output else name for name in node.input]


def _float32(value: float) -> NDArray[np.float32]:
    return np.array(value, np.float32)


FAULTS: Final[dict[str, tuple[str, Callable[[onnx.ModelProto, str], None]]]] = {
    "scale": (f"every prediction is {SCALE} times too high", partial(_scale, SCALE)),
    "slight_scale": (
        f"every prediction is {SLIGHT_SCALE} times too high",
        partial(_scale, SLIGHT_SCALE),
    ),
    "constant": (f"every prediction is {CONSTANT_MBPS:g} Mbit/s", _constant),
    "noise": (f"every prediction is {NOISE:.0%} too high or too low", _noise),
    "nan": (f"every prediction above {NAN_ABOVE_MBPS:g} Mbit/s is NaN", _nan),
}
"""Name -> description, and the function that changes the graph."""
