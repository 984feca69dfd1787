"""What gRPC has besides inference: health, reflection, headers, limits; and its messages."""

import time

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dwcp_ml.serving import proto
from dwcp_ml.serving.proto.fields import has_few_fields
from dwcp_ml.serving.proto.generate import PROTOS, compiled
from tests.serving.bundles import VERSION, rows_for
from tests.serving.running import Server
from tests.serving.test_counts import counts

NAME = "reliability_detector"
SERVING = health_pb2.HealthCheckResponse.SERVING


def request(rows=1, **changes):
    made = proto.message("ModelInferRequest")(model_name=NAME)
    made.inputs.add(name="features", datatype="FP32", shape=[rows, 6], **changes)
    return made


@pytest.mark.parametrize("file", PROTOS, ids=lambda file: file.stem)
def test_the_compiled_messages_are_those_of_the_text(file):
    assert file.with_suffix(".binpb").read_bytes() == compiled(file)


def test_the_messages_are_those_of_the_kserve_sdk(pb):
    """Field by field: name, number, type, label."""
    ours, theirs = (
        {
            f"{message.full_name}.{field.name}": (field.number, field.type, field.is_repeated)
            for message in each
            for field in message.fields
        }
        for each in (
            [proto.message(name).DESCRIPTOR for name in pb.DESCRIPTOR.message_types_by_name
             if not name.startswith(("Repository", "ModelRepository")) or "Load" in name
             or "Unload" in name],
            pb.DESCRIPTOR.message_types_by_name.values(),
        )
    )  # fmt: skip
    assert ours.items() <= theirs.items()
    assert {name for name in theirs if "Repository" not in name} <= ours.keys()
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(proto.methods()) == set(methods)


def test_a_message_of_many_fields_is_told_by_a_scan():
    few = request()
    few.raw_input_contents.append(rows_for(NAME, 1).tobytes())
    assert has_few_fields(few.SerializeToString())
    large = request(4096)
    large.inputs[0].contents.fp32_contents.extend([1.0] * 4096 * 6)
    assert has_few_fields(large.SerializeToString())
    assert not has_few_fields(b"\x2a\x00" * 1000), "empty tensors"
    assert not has_few_fields(b"\x22\x00" * 1000), "empty parameters"
    tensor = b"\x22\x00" * 1000
    assert not has_few_fields(b"\x2a" + b"\xd0\x0f" + tensor), "empty parameters of a tensor"
    assert not has_few_fields(b"\x7b\x7c"), "a group, which protobuf would skip"
    for nothing in (b"", b"\x0a", b"\x0a\xff"):
        assert has_few_fields(nothing), "protobuf will reject it"
    start = time.process_time()
    has_few_fields(b"\xff" * 2_000_000)
    assert time.process_time() - start < 1.0, "numbers have ten bytes at most"


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as made:
        yield made


def infer(channel, content, **options):
    call = channel.unary_unary(f"/{proto.SERVICE}/ModelInfer")
    return call(content, timeout=10.0, **options)


@pytest.mark.server
def test_a_message_of_many_fields_is_rejected(channel):
    with pytest.raises(grpc.RpcError) as raised:
        infer(channel, b"\x2a\x00" * 1_000_000)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.server
def test_a_message_that_no_request_needs_is_too_large(channel):
    with pytest.raises(grpc.RpcError) as raised:
        infer(channel, b"\0" * (7 << 20))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.server
def test_those_who_watch_are_bounded_and_do_not_keep_a_server(model_dir, tmp_path, pb):
    server = Server(model_dir, tmp_path, "--grace-seconds", "20")
    channels = [grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}",
                                      options=[("grpc.use_local_subchannel_pool", 1)])
                for _ in range(4)]  # fmt: skip
    try:
        watches = []
        for channel in channels:
            stub = health_pb2_grpc.HealthStub(channel)
            watches += [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
        ends = []
        for watch in watches:
            try:
                assert next(watch).status == SERVING
            except grpc.RpcError as error:
                ends.append(error.code())
        assert ends == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 16
        message = request()
        message.raw_input_contents.append(rows_for(NAME, 1).tobytes())
        infer(channels[0], message.SerializeToString())
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10.0
        assert "Traceback" not in server.log()
    finally:
        for channel in channels:
            channel.close()
        server.kill()


@pytest.mark.server
@pytest.mark.parametrize("service", ["", proto.SERVICE, proto.FEEDBACK, None])
def test_health_is_grpcs_own(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    if service is not None:
        check = health_pb2.HealthCheckRequest(service=service)
        assert stub.Check(check, timeout=10.0).status == SERVING
        return
    with pytest.raises(grpc.RpcError) as raised:
        stub.Check(health_pb2.HealthCheckRequest(service="no.Such"), timeout=10.0)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.server
def test_reflection_describes_every_service(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**question):
        asked = iter([reflection_pb2.ServerReflectionRequest(**question)])
        (answer,) = stub.ServerReflectionInfo(asked, timeout=10.0)
        return answer

    services = [each.name for each in ask(list_services="").list_services_response.service]
    assert set(services) == {
        proto.SERVICE,
        proto.FEEDBACK,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for name in services:
        answer = ask(file_containing_symbol=name).file_descriptor_response
        files = map(FileDescriptorProto.FromString, answer.file_descriptor_proto)
        assert name in {f"{file.package}.{each.name}" for file in files for each in file.service}


@pytest.mark.server
def test_a_routers_copy_is_counted_apart(server, channel):
    before = counts(server)
    message = request()
    message.raw_input_contents.append(rows_for(NAME, 1).tobytes())
    for _ in range(5):
        infer(channel, message.SerializeToString(), metadata=(("x-dwcp-mirrored", "true"),))
    after = counts(server)
    labels = (("code", "200"), ("model", NAME), ("version", VERSION))
    copies = ("dwcp_mirrored_requests_total", *labels)
    assert after[copies] - before.get(copies, 0) == 5
    live = ("dwcp_requests_total", *labels)
    assert after[live] == before.get(live, 0)


@pytest.mark.server
def test_the_request_id_returns_with_a_rejection_too(channel):
    for content in (request().SerializeToString(), b"\xff"):
        with pytest.raises(grpc.RpcError) as raised:
            infer(channel, content, metadata=(("x-request-id", "client-id"),))
        assert dict(raised.value.trailing_metadata())["x-request-id"] == "client-id"
        assert raised.value.details().endswith(".")
