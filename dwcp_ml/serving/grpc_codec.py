"""How V2 over gRPC writes a request and its response."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from dwcp_ml.serving import proto
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput
from dwcp_ml.serving.request import Body, Encoded, PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Cells, cells_of_bytes, cells_of_typed
from dwcp_ml.serving.v2 import DATATYPES, check_input, check_outputs, little_endian

_Response: Final = proto.message("ModelInferResponse")

_FIELDS: Final = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT32", "INT16", "INT8"), "int_contents"),
    **dict.fromkeys(("UINT32", "UINT16", "UINT8"), "uint_contents"),
}
"""The field of the protocol that holds the values of each numeric type."""


class Grpc:
    """An inference request and its response over gRPC.

    Parameters
    ----------
    message
        The request, parsed.
    """

    protocol: ClassVar[str] = "grpc"

    def __init__(self, message: Any) -> None:
        self._message = message
        self._names: tuple[str, ...] = ()

    def decode(self, _body: Body, model: ServedModel, limits: Limits) -> Cells:
        """Return the values of the request.

        Raises
        ------
        BadInput, TooLarge
            If it does not match the model's contract.
        """
        message = self._message
        self._names = check_outputs([output.name for output in message.outputs], model)
        if len(message.inputs) != 1:
            raise BadInput(f"{model.name} has one input, '{model.input.name}'.")
        tensor = message.inputs[0]
        check_input(tensor.name, tensor.datatype, model)
        raw = message.raw_input_contents
        if not raw:
            values = getattr(tensor.contents, _FIELDS[tensor.datatype])
            return cells_of_typed(values, tensor.shape, model.shape, limits)
        if len(raw) != 1 or tensor.HasField("contents"):
            raise BadInput("Values must be in raw_input_contents or in contents, not in both.")
        if tensor.datatype != "FP32":
            raise BadInput("raw_input_contents must be FP32.")
        return cells_of_bytes(raw[0], tensor.shape, model.shape, limits)

    @staticmethod
    def columns(outputs: Outputs) -> Outputs:
        """Return the outputs as they are."""
        return outputs

    def encode(self, columns: Outputs, start: int, stop: int, request: PredictRequest) -> Encoded:
        """Return the serialized response."""
        model = request.model
        response = _Response(
            model_name=model.name,
            model_version=model.version,
            id=self._message.id or request.request_id,
        )
        for name in self._names or columns:
            values = model.output(name, columns, slice(start, stop))
            datatype = DATATYPES[values.dtype.name]
            response.outputs.add(name=name, datatype=datatype, shape=values.shape)
            # Raw contents: the protocol wants one form for all outputs, and bytes are the cheapest.
            response.raw_output_contents.append(little_endian(values))
        return Encoded(response.SerializeToString())
