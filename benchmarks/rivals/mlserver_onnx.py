"""MLServer's runtime for the ONNX graph: a custom runtime, as its documentation shows."""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):
    """The graph as a runtime."""

    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = ort.InferenceSession(path, options)
        self.names = [output.name for output in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        outputs = self.session.run(self.names, {"features": rows})
        tensors = [
            NumpyCodec.encode_output(name, values)
            for name, values in zip(self.names, outputs, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=tensors)
