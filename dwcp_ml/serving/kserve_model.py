"""Our models as the KServe SDK knows them: for its registry, health and metadata.

Inference over HTTP and gRPC goes to the engine directly; ``predict`` returns the same predictions
to a program that embeds the model in a plain ``kserve.ModelServer``.
"""

from __future__ import annotations

from typing import Any

import orjson
from kserve import InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput

from dwcp_ml.contract.bundle import TensorRecord
from dwcp_ml.serving import v1
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.rejections import RequestRejected
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.tensors import rows_of
from dwcp_ml.serving.v2 import DATATYPES


class KServeModel(Model):  # type: ignore[misc]
    """One served model.

    Parameters
    ----------
    served
        The model; it is ready when its engine is.
    """

    def __init__(self, served: ServedModel, engine: Engine) -> None:
        super().__init__(served.name)
        self._served = served
        self._engine = engine
        self.ready = served.ready

    def load(self) -> bool:
        """Return whether the model is ready; it was loaded before the server started."""
        self.ready = self._served.ready
        return self._served.ready

    async def healthy(self) -> bool:
        """Return whether the model is warm and the server is not shutting down."""
        return self._served.ready and not self._engine.draining

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return name, type and shape of the input as V2 metadata has them."""
        return [_tensor(tensor) for tensor in self._served.manifest.inputs]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return name, type and shape of each output as V2 metadata has them."""
        return [_tensor(tensor) for tensor in self._served.outputs]

    def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - the SDK's arguments
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> dict[str, Any] | InferResponse:
        """Return the predictions for a V1 dictionary or a V2 request.

        Raises
        ------
        kserve.errors.InvalidInput
            If it does not match the model's contract.
        """
        model = self._served
        try:
            if isinstance(payload, InferRequest):
                given = payload.inputs[0].as_numpy().tolist()
            else:
                given = payload.get("instances")
            rows = rows_of(given, model.shape, self._engine.limits, plain=False)
        except RequestRejected as rejected:
            raise InvalidInput(str(rejected)) from None
        outputs = model.run(rows)
        if not isinstance(payload, InferRequest):
            decoded: dict[str, Any] = orjson.loads(v1.encode(outputs))
            return decoded
        tensors = []
        for name, values in outputs.items():
            output = InferOutput(name, list(values.shape), DATATYPES[values.dtype.name])
            output.set_data_from_numpy(values, binary_data=False)
            tensors.append(output)
        return InferResponse(payload.id or "", model.name, tensors, model_version=model.version)


def _tensor(tensor: TensorRecord) -> dict[str, Any]:
    shape = [-1, *tensor.shape]
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": shape}
