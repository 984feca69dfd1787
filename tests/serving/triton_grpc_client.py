"""tritonclient over gRPC, in a process of its own: its messages have the names of KServe's.

    python triton_grpc_client.py ADDRESS < {"model": [row, ...], ...}

Prints what it was told, as JSON: health, metadata, outputs, and the error for an unknown model.
"""

import json
import sys

import numpy as np
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

SECONDS = 10.0


def told_of(client, name, rows):
    """Return what the server says of a model, and its predictions."""
    metadata = client.get_model_metadata(name, client_timeout=SECONDS)
    given = tritonclient.grpc.InferInput("features", rows.shape, "FP32")
    given.set_data_from_numpy(rows)
    result = client.infer(name, [given], request_id="of-triton", client_timeout=SECONDS)
    response = result.get_response()
    return {
        "ready": client.is_model_ready(name, client_timeout=SECONDS),
        "name": metadata.name,
        "inputs": [[one.name, one.datatype, list(one.shape)] for one in metadata.inputs],
        "id": response.id,
        "version": response.model_version,
        "outputs": {one.name: result.as_numpy(one.name).tolist() for one in response.outputs},
    }


def main(address):
    inputs = {name: np.array(rows, np.float32) for name, rows in json.load(sys.stdin).items()}
    with tritonclient.grpc.InferenceServerClient(address) as client:
        told = {
            "live": client.is_server_live(client_timeout=SECONDS),
            "ready": client.is_server_ready(client_timeout=SECONDS),
            "server": client.get_server_metadata(client_timeout=SECONDS).name,
            "models": {name: told_of(client, name, rows) for name, rows in inputs.items()},
        }
        try:
            client.get_model_metadata("no_such_model", client_timeout=SECONDS)
        except InferenceServerException as error:
            told["unknown"] = [error.status(), error.message()]
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
