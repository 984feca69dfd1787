"""A link of any script gets from a client's header into the prediction log, on every protocol."""

import json

import grpc
import pytest

from dwcp_ml.prediction_log.log import read_log
from dwcp_ml.serving import proto
from dwcp_ml.serving.headers import link_header
from tests.serving.bundles import rows_for
from tests.serving.running import Server, plain

pytestmark = pytest.mark.server

NAME = "reliability_detector"
LINKS = ["n1/n2", "zürich/東京", "50%", "с пробелом/b"]


def test_links_are_logged_as_the_telemetry_names_them(model_dir, tmp_path):
    log = tmp_path / "log"
    server = Server(model_dir, tmp_path / "server", "--log-predictions", str(log))
    try:
        rows = rows_for(NAME, 1)
        tensor = {"name": "features", "datatype": "FP32", "shape": [1, 6],
                  "data": rows.astype(float).ravel().tolist()}  # fmt: skip
        message = proto.message("ModelInferRequest")(model_name=NAME)
        message.inputs.add(name="features", datatype="FP32", shape=[1, 6])
        message.raw_input_contents.append(rows.tobytes())
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            infer = channel.unary_unary(f"/{proto.SERVICE}/ModelInfer")
            for link in LINKS:
                headers = {"X-DWCP-Link": link_header(link)}
                v1 = {"instances": rows.astype(float).tolist()}
                assert server.post(f"/v1/models/{NAME}:predict", v1, headers)[0] == 200
                v2 = {"inputs": [tensor]}
                assert server.post(f"/v2/models/{NAME}/infer", v2, headers)[0] == 200
                metadata = (("x-dwcp-link", link_header(link)),)
                infer(message.SerializeToString(), metadata=metadata, timeout=10.0)
        raw = plain(f"/v1/models/{NAME}:predict", json.dumps(v1).encode())
        raw = raw.replace(b"\r\n\r\n", "\r\nX-DWCP-Link: zürich\r\n\r\n".encode(), 1)
        ((status, _, body),) = server.responses(raw)
        assert status == 400
        assert b"percent-encoded" in body
        assert server.stop() == 0
    finally:
        server.kill()
    logged = sorted((record.link, record.protocol) for record in read_log(log))
    assert logged == sorted((link, way) for link in LINKS for way in ("v1", "v2", "grpc"))
