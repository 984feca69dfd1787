"""Reports of outcomes over gRPC, to a server in a process of its own."""

import grpc
import pytest

from dwcp_ml.serving import proto
from dwcp_ml.serving.outcomes import MAX_BYTES, MAX_OUTCOMES
from tests.serving.bundles import MODELS, VERSION
from tests.serving.running import Server
from tests.serving.test_feedback import BANDWIDTH, PATH, metric
from tests.serving.test_feedback import report as json_report

pytestmark = pytest.mark.server

Request, Response = proto.methods(proto.FEEDBACK)["ReportOutcomes"]
CODES = grpc.StatusCode


def send(channel, content):
    call = channel.unary_unary(f"/{proto.FEEDBACK}/ReportOutcomes")
    return Response.FromString(call(content, timeout=10.0))


def report(*outcomes, model=BANDWIDTH):
    return Request(model_name=model, outcomes=outcomes).SerializeToString()


def outcome(prediction=5.0, truth=10.0, version=VERSION, **more):
    return {"version": version, "prediction": prediction, "outcome": truth, **more}


def refusal(channel, content):
    with pytest.raises(grpc.RpcError) as raised:
        send(channel, content)
    assert raised.value.details().endswith(".")
    return raised.value.code()


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as made:
        yield made


def test_reports_are_counted_by_version_as_those_over_http(server, channel):
    other = "20310101-000000"
    before = metric(server, "dwcp_reported_loss_count", other)
    first = outcome(version=other, id="grpc-1")
    assert send(channel, report(first)) == Response(counted=1)
    batch = report(first, outcome(version=other), outcome(3.0, 0.5, other))
    assert send(channel, batch) == Response(counted=1, duplicates=1, undefined=1)
    _, _, content = server.request("POST", PATH, json_report(first))
    assert b'"duplicates":1' in content, "the ids are those of both protocols"
    assert metric(server, "dwcp_reported_loss_count", other) == before + 2


@pytest.mark.parametrize(("model", "value"), list(zip(MODELS, (5.0, 6.0, 1.0, 0.0), strict=True)))
def test_each_model_counts_numbers_levels_and_yes_or_no(channel, model, value):
    assert send(channel, report(outcome(value, value), model=model)) == Response(counted=1)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (report(outcome(), model="nothing"), CODES.NOT_FOUND),
        (report(), CODES.INVALID_ARGUMENT),
        (report({"version": VERSION, "prediction": 1.0}), CODES.INVALID_ARGUMENT),
        (report(outcome(-1.0)), CODES.INVALID_ARGUMENT),
        (report(outcome(float("nan"))), CODES.INVALID_ARGUMENT),
        (report(outcome(version="v 1")), CODES.INVALID_ARGUMENT),
        (report(outcome(id="x" * 129)), CODES.INVALID_ARGUMENT),
        (report(outcome(), outcome(6.0, -1.0)), CODES.INVALID_ARGUMENT),
        (report(outcome(6.5, 6.0), model="compression_selector"), CODES.INVALID_ARGUMENT),
        (b"\xff", CODES.INVALID_ARGUMENT),
        (report(*[outcome()] * (MAX_OUTCOMES + 1)), CODES.RESOURCE_EXHAUSTED),
        (b"\x12\x00" * (MAX_BYTES // 2 + 1), CODES.RESOURCE_EXHAUSTED),
    ],
)
def test_what_is_wrong_is_refused_with_all_of_its_report(server, channel, content, code):
    before = metric(server, "dwcp_reported_loss_count", VERSION)
    assert refusal(channel, content) is code
    assert metric(server, "dwcp_reported_loss_count", VERSION) == before


def test_the_most_of_one_report_fits(channel):
    longest = outcome(id="x" * 128, version="v" * 64)
    found = send(channel, report(*[longest] * MAX_OUTCOMES))
    assert found == Response(counted=1, duplicates=MAX_OUTCOMES - 1)


def test_a_server_without_feedback_says_so(model_dir, tmp_path):
    server = Server(model_dir, tmp_path, "--no-feedback")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            assert refusal(channel, report(outcome())) is CODES.NOT_FOUND
    finally:
        server.kill()
