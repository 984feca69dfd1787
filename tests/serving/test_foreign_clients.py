"""Clients and a gateway of others: each gets the predictions of the same model run in this process.

tritonclient, the KServe SDK, curl, Go's net/http and grpc-go, and Envoy in front of the server,
over HTTP/1.1, HTTP/2 without TLS and gRPC.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from dwcp_ml.local_rollout import envoy as rollout_envoy
from dwcp_ml.training_run.go_client_check import find_client
from tests.metrics_sources.fakes import post
from tests.serving.bundles import MODELS, VERSION, rows_for
from tests.serving.running import TIMEOUT_SECONDS, Server

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

NAMES = list(MODELS)
ROWS = 3
FLOAT_TOLERANCE = 1e-6
"""Predictions of several rows at once and of one differ in the last digit, and no more."""


@pytest.fixture(scope="module", autouse=True)
def ignored_library_warnings():
    """Import what warns about itself before the tests, in which warnings are errors."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kserve  # noqa: F401


@pytest.fixture(scope="module")
def address(server):
    return f"127.0.0.1:{server.http_port}"


@pytest.fixture(scope="module")
def grpc_address(server):
    return f"127.0.0.1:{server.grpc_port}"


@pytest.fixture(params=NAMES)
def case(request, models):
    """A model, rows, and what the model predicts for them here."""
    rows = rows_for(request.param, ROWS)
    return request.param, rows, models[request.param].run(rows)


def assert_same(outputs, expected):
    assert set(outputs) == set(expected)
    for name, values in expected.items():
        given = np.asarray(outputs[name])
        if values.dtype.kind == "f":
            np.testing.assert_allclose(given, values, rtol=FLOAT_TOLERANCE, atol=FLOAT_TOLERANCE)
        else:
            np.testing.assert_array_equal(given, values)


def v1_path(name):
    return f"/v1/models/{name}:predict"


def v2_path(name):
    return f"/v2/models/{name}/infer"


def v1_body(rows):
    return json.dumps({"instances": rows.astype(float).tolist()}).encode()


def v2_body(rows):
    tensor = {"name": "features", "datatype": "FP32", "shape": list(rows.shape)}
    return json.dumps(
        {"inputs": [{**tensor, "data": rows.astype(float).ravel().tolist()}]}
    ).encode()


def v1_outputs(content, expected):
    predictions = json.loads(content)["predictions"]
    if len(expected) == 1 and not isinstance(predictions[0], dict):
        return {next(iter(expected)): predictions}
    return {name: [prediction[name] for prediction in predictions] for name in expected}


def v2_outputs(content):
    outputs = json.loads(content)["outputs"]
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in outputs}


# tritonclient


@pytest.fixture(scope="module")
def triton(address):
    import tritonclient.http

    with tritonclient.http.InferenceServerClient(
        address, connection_timeout=TIMEOUT_SECONDS, network_timeout=TIMEOUT_SECONDS
    ) as client:
        yield client


def test_tritonclient_reads_health_over_http(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    for name in NAMES:
        assert triton.is_model_ready(name)
        assert triton.is_model_ready(name, VERSION)


def test_tritonclient_reads_metadata_over_http(triton):
    assert {"name", "version", "extensions"} <= set(triton.get_server_metadata())
    for name, spec in MODELS.items():
        metadata = triton.get_model_metadata(name)
        assert (metadata["name"], metadata["versions"]) == (name, [VERSION])
        (tensor,) = metadata["inputs"]
        assert (tensor["name"], tensor["datatype"]) == (spec.input.name, "FP32")
        assert tensor["shape"][1:] == list(spec.input.shape)


@pytest.mark.parametrize("compressed", [None, "gzip"])
@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_tritonclient_infers_over_http(triton, case, binary, compressed):
    import tritonclient.http

    name, rows, expected = case
    given = tritonclient.http.InferInput("features", rows.shape, "FP32")
    given.set_data_from_numpy(rows, binary_data=binary)
    wanted = [
        tritonclient.http.InferRequestedOutput(output, binary_data=binary) for output in expected
    ]
    result = triton.infer(
        name, [given], outputs=wanted, request_id="of-triton",
        request_compression_algorithm=compressed,
    )  # fmt: skip
    assert result.get_response()["id"] == "of-triton"
    assert_same({output: result.as_numpy(output) for output in expected}, expected)


def test_tritonclient_infers_over_http_at_the_same_time(address, case):
    import tritonclient.http

    name, rows, expected = case
    given = tritonclient.http.InferInput("features", rows.shape, "FP32")
    given.set_data_from_numpy(rows)
    with tritonclient.http.InferenceServerClient(address, concurrency=8) as client:
        calls = [client.async_infer(name, [given]) for _ in range(24)]
        results = [call.get_result() for call in calls]
    for result in results:
        assert_same({output: result.as_numpy(output) for output in expected}, expected)


def test_tritonclient_is_told_of_an_unknown_model_over_http(triton):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="no_such_model"):
        triton.get_model_metadata("no_such_model")


def test_tritonclient_over_grpc(grpc_address, models):
    rows = {name: rows_for(name, ROWS) for name in NAMES}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_grpc_client.py")), grpc_address],
        input=json.dumps({name: values.astype(float).tolist() for name, values in rows.items()}),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["live"], told["ready"], bool(told["server"])) == (True, True, True)
    assert told["unknown"][0] == "StatusCode.NOT_FOUND"
    assert "no_such_model" in told["unknown"][1]
    for name, spec in MODELS.items():
        model = told["models"][name]
        assert (model["ready"], model["name"], model["id"]) == (True, name, "of-triton")
        assert model["version"] == VERSION
        ((given, datatype, shape),) = model["inputs"]
        assert (given, datatype, shape[1:]) == ("features", "FP32", list(spec.input.shape))
        assert_same(model["outputs"], models[name].run(rows[name]))


# The KServe SDK


def kserve_request(name, rows, *, binary):
    from kserve import InferInput, InferRequest
    from kserve.protocol.infer_type import RequestedOutput

    given = InferInput("features", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows, binary_data=binary)
    outputs = [
        RequestedOutput(output.name, {"binary_data": binary})
        for output in MODELS[name].form().outputs
    ]
    return InferRequest(model_name=name, infer_inputs=[given], request_outputs=outputs)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_the_sdk_reads_health_over_rest(server, run, protocol):
    from kserve import InferenceRESTClient, RESTConfig

    async def go():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=TIMEOUT_SECONDS))
        base = f"http://127.0.0.1:{server.http_port}"
        async with client:
            assert await client.is_server_live(base)
            if protocol == "v2":
                assert await client.is_server_ready(base)
            for name in NAMES:
                assert await client.is_model_ready(base, name)

    run(go())


@pytest.mark.parametrize("form", ["v1", "v2 JSON", "v2 binary"])
def test_the_sdk_infers_over_rest(server, run, case, form):
    from kserve import InferenceRESTClient, RESTConfig

    name, rows, expected = case
    protocol = form[:2]

    async def go():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=TIMEOUT_SECONDS))
        data = json.loads(v1_body(rows))
        if protocol == "v2":
            data = kserve_request(name, rows, binary=form.endswith("binary"))
        async with client:
            return await client.infer(f"http://127.0.0.1:{server.http_port}", data, name)

    response = run(go())
    if protocol == "v1":
        assert_same(v1_outputs(json.dumps(response), expected), expected)
    else:
        assert_same({output.name: output.as_numpy() for output in response.outputs}, expected)


def test_the_sdk_infers_over_grpc(grpc_address, run, case):
    from kserve import InferenceGRPCClient

    name, rows, expected = case

    async def go():
        async with InferenceGRPCClient(grpc_address, timeout=TIMEOUT_SECONDS) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(name)
            return await client.infer(kserve_request(name, rows, binary=True))

    response = run(go())
    assert_same({output.name: output.as_numpy() for output in response.outputs}, expected)


# curl


@pytest.fixture(scope="module")
def curl():
    """Run curl and return (HTTP version, status, body)."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed on this machine")

    def call(*words, body=None):
        wanted = ["--silent", "--show-error", "--max-time", str(TIMEOUT_SECONDS), "--noproxy", "*"]
        done = subprocess.run(
            [program, *wanted, "--write-out", "\n%{http_version} %{http_code}", *words],
            input=body, capture_output=True, timeout=2 * TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        content, _, last = done.stdout.rpartition(b"\n")
        version, status = last.decode().split()
        return version, int(status), content

    return call


@pytest.mark.parametrize(
    ("option", "version"), [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")]
)
@pytest.mark.parametrize("sent", ["whole", "chunked", "after 100-continue"])
def test_curl_predicts(curl, address, case, option, version, sent):
    name, rows, expected = case
    more = {
        "whole": ["-H", "Content-Type: application/json"],
        "chunked": ["-H", "Transfer-Encoding: chunked"] if version == "1.1" else ["-T", "-"],
        # Over HTTP/2 the server sends no 100, which it may leave out: curl waits, and sends then.
        "after 100-continue": ["-H", "Expect: 100-continue", "--expect100-timeout", "0.5"],
    }[sent]
    send = [] if "-T" in more else ["--data-binary", "@-"]
    for path, body, read in (
        (v1_path(name), v1_body(rows), lambda content: v1_outputs(content, expected)),
        (v2_path(name), v2_body(rows), v2_outputs),
    ):
        words = [option, "-X", "POST", *send, *more, f"http://{address}{path}"]
        spoken, status, content = curl(*words, body=body)
        assert (spoken, status) == (version, 200), content
        assert_same(read(content), expected)


@pytest.mark.parametrize("option", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_reads_health_and_rejections(curl, address, option):
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{NAMES[0]}", "/metrics"):
        assert curl(option, f"http://{address}{path}")[1] == 200
    _, status, content = curl(option, f"http://{address}/v2/models/no_such_model")
    assert status == 404
    assert "no_such_model" in json.loads(content)["error"]
    assert curl(option, "--head", f"http://{address}/v2/health/live")[1] in (200, 405)


# Go


@pytest.fixture(scope="module")
def go():
    return find_client()


@pytest.mark.go
def test_net_http_and_grpc_go_of_the_go_client_predict_the_same(
    go, models, address, grpc_address, tmp_path
):
    program = tmp_path / "dwcp-predict"
    subprocess.run(
        [str(go.go), "build", "-o", str(program), "./cmd/dwcp-predict"], cwd=go.source, check=True
    )
    rows = {name: rows_for(name, 5, seed=9) for name in NAMES}
    lines = [
        json.dumps({"model": name, "features": row.astype(float).ravel().tolist()})
        for name in NAMES
        for row in rows[name]
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    for target in (f"http://{address}", f"grpc://{grpc_address}"):
        done = subprocess.run(
            [str(program), "-address", target, "-input", str(tmp_path / "rows.jsonl")],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for name in NAMES:
            expected = models[name].run(rows[name])
            mine = [one["prediction"] for one in answers if one["model"] == name]
            assert_same({key: [one[key] for one in mine] for key in expected}, expected)


@pytest.mark.go
def test_go_speaks_http2_without_tls_and_the_standard_services_of_grpc(go, address, grpc_address):
    environment = {
        **os.environ, "DWCP_MODELS_HTTP": address, "DWCP_MODELS_GRPC": grpc_address,
        "GOTOOLCHAIN": "local",
    }  # fmt: skip
    tests = (
        "^(TestUnencryptedHTTP2|TestStandardHealthService|TestReflectionService"
        "|TestOutcomesAreCounted)$"
    )
    done = subprocess.run(
        [str(go.go), "test", "-v", "-count=1", "-run", tests, "."],
        cwd=go.source, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--- PASS: Test") == 4, done.stdout


# Envoy


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def gateway(request, server):
    """The rollout's Envoy in front of the server, with this protocol between them."""
    target = f"127.0.0.1:{server.http_port}"
    with through_envoy(target, http2=request.param == "HTTP/2") as running:
        yield running.address


def through_envoy(target, *, http2):
    """Return the Envoy of a rollout; with ``http2`` that is how it speaks to the server."""
    configure = rollout_envoy.bootstrap

    def bootstrap(*arguments, **words):
        configuration = configure(*arguments, **words)
        for cluster in configuration["static_resources"]["clusters"]:
            (options,) = cluster["typed_extension_protocol_options"].values()
            options["explicit_http_config"] = {"http2_protocol_options": {}}
        return configuration

    class Gateway(rollout_envoy.EnvoyProcess):
        def _start(self):
            with pytest.MonkeyPatch.context() as patch:
                if http2:
                    patch.setattr(rollout_envoy, "bootstrap", bootstrap)
                super()._start()

    return Gateway([target], [target])


def test_predictions_come_through_envoy(gateway, case):
    name, rows, expected = case
    status, _, content = post(gateway, v1_body(rows), path=v1_path(name))
    assert status == 200, content
    assert_same(v1_outputs(content, expected), expected)
    status, _, content = post(gateway, v2_body(rows), path=v2_path(name))
    assert status == 200, content
    assert_same(v2_outputs(content), expected)


def test_curl_comes_through_envoy_over_http2(curl, gateway, case):
    name, rows, expected = case
    words = ["--http2-prior-knowledge", "--data-binary", "@-", f"http://{gateway}{v1_path(name)}"]
    version, status, content = curl(*words, body=v1_body(rows))
    assert (version, status) == ("2", 200)
    assert_same(v1_outputs(content, expected), expected)


def test_the_identifier_of_a_request_comes_back_through_envoy(curl, gateway):
    identifier = str(uuid.uuid4())
    name = NAMES[0]
    words = ["--include", "-H", f"X-Request-Id: {identifier}", "--data-binary", "@-"]
    _, status, content = curl(
        *words, f"http://{gateway}{v1_path(name)}", body=v1_body(rows_for(name, 1))
    )
    assert status == 200
    assert content.lower().count(f"x-request-id: {identifier}".encode()) == 1


def test_rejections_and_large_bodies_come_through_envoy(curl, gateway):
    name = "bandwidth_predictor"
    assert post(gateway, b'{"instances": []}', path=v1_path(name))[0] == 400
    assert post(gateway, b"{}", path=v1_path("no_such_model"))[0] == 404
    status, _, content = post(gateway, v1_body(rows_for(name, 2000)), path=v1_path(name))
    assert status == 200
    assert len(json.loads(content)["predictions"]) == 2000
    url = f"http://{gateway}{v1_path(name)}"
    _, status, _ = curl("--data-binary", "@-", url, body=b" " * (9 << 20))
    assert status == 413


def test_grpc_comes_through_envoy(grpc_address, run, case):
    from kserve import InferenceGRPCClient

    name, rows, expected = case

    async def go(address):
        async with InferenceGRPCClient(address, timeout=TIMEOUT_SECONDS) as client:
            assert await client.is_model_ready(name)
            calls = (client.infer(kserve_request(name, rows, binary=True)) for _ in range(16))
            return await asyncio.gather(*calls)

    with through_envoy(grpc_address, http2=True) as envoy:
        responses = run(go(envoy.address))
    for response in responses:
        assert_same({output.name: output.as_numpy() for output in response.outputs}, expected)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_no_request_is_lost_through_envoy_when_the_server_stops(model_dir, tmp_path, http2):
    """Envoy learns that a connection closes before it sends the next request on it."""
    name = NAMES[0]
    body = v1_body(rows_for(name, 1))
    server = Server(model_dir, tmp_path / "stopping", "--drain-seconds", "2")
    try:
        with through_envoy(f"127.0.0.1:{server.http_port}", http2=http2) as envoy:
            assert post(envoy.address, body, path=v1_path(name))[0] == 200
            server.terminate()
            ends = time.monotonic() + 1.0  # then the server may end: there is no other behind Envoy
            sent = 0
            while time.monotonic() < ends:
                assert post(envoy.address, body, path=v1_path(name))[0] == 200
                sent += 1
            assert sent >= 5
        assert server.wait() == 0
    finally:
        server.kill()
