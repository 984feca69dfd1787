"""KServe's stock server with a custom model: one ONNX graph, V1 over HTTP.

python kserve_custom.py MODEL_DIRECTORY NAME PORT
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

BUNDLE, NAME, PORT = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sys.argv = sys.argv[:1]

import kserve  # noqa: E402 - it reads the command line when it is imported


class Graph(kserve.Model):
    """The graph as a custom model."""

    def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(BUNDLE / "model.onnx"), options)
        self.names = [output.name for output in self.session.get_outputs()]
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):
        rows = np.array(payload["instances"], np.float32)
        outputs = self.session.run(self.names, {"features": rows})
        rows = zip(*(output.tolist() for output in outputs), strict=True)
        return {"predictions": [dict(zip(self.names, row, strict=True)) for row in rows]}


if __name__ == "__main__":
    model = Graph(NAME)
    model.load()
    server = kserve.ModelServer(http_port=PORT, enable_grpc=False, enable_latency_logging=False)
    server.start([model])
