"""The server does not start on invalid input: one sentence, an exit code, and nothing is served."""

import json
import shutil

import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from tests.errors import about
from tests.serving.bundles import MODELS, VERSION, graph, make_bundle

NAME = "reliability_detector"


@pytest.fixture
def models_copy(model_dir, tmp_path):
    place = tmp_path / "models"
    shutil.copytree(model_dir, place)
    return place


@pytest.fixture
def fails(capsys, tmp_path, monkeypatch, failures):
    """Assert that ``serve`` ends with a code and one sentence; return the error."""

    def never(*arguments):
        raise AssertionError("the server started")

    monkeypatch.setattr("dwcp_ml.serving.server.Engine", never)

    def serve(code, directory, *words):
        ports = tmp_path / "ports.json"
        assert (
            main(["serve", "--model_dir", str(directory), "--port-file", str(ports), *words])
            == code
        )
        assert not ports.exists()
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.strip().splitlines()
        assert line.startswith("dwcp-ml: ")
        assert line.endswith(".")
        return failures[-1]

    return serve


def test_no_bundle(fails, tmp_path):
    assert about(ErrorCode.WRONG_TYPE, "nowhere")(fails(2, tmp_path / "nowhere"))
    assert about(ErrorCode.NO_DATA, tmp_path)(fails(2, tmp_path))


def test_no_such_model(fails, models_copy):
    assert about(ErrorCode.UNKNOWN_NAME, "x")(fails(2, models_copy, "--model_name", "x"))
    shutil.rmtree(models_copy / NAME)
    error = fails(2, models_copy, "--model_name", "reliability")
    assert about(ErrorCode.MISSING, NAME)(error)


@pytest.mark.parametrize(
    ("spoil", "code", "subject"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b"\x80\x04."), ErrorCode.CHANGED, ONNX_NAME),
        (lambda b: (b / "model.onnx").unlink(), ErrorCode.MISSING, ONNX_NAME),
        (lambda b: (b / "more.txt").write_text("x"), ErrorCode.FORBIDDEN, "more.txt"),
        (lambda b: (b / "manifest.json").write_text("{"), ErrorCode.MALFORMED, MANIFEST_NAME),
        (
            lambda b: b.rename(b.with_name("30000101-000000")),
            ErrorCode.MISMATCH,
            f"{NAME}/{VERSION}",
        ),
    ],
)
def test_a_bad_bundle_among_good_ones(fails, models_copy, spoil, code, subject):
    spoil(models_copy / NAME / VERSION)
    assert about(code, subject)(fails(1, models_copy))


def test_a_graph_that_fails_in_the_warm_up(fails, tmp_path):
    model = graph(MODELS[NAME])
    nodes = {node.op_type: node for node in model.graph.node}
    nodes["Sigmoid"].op_type = "Acosh"  # which nothing below 1 has
    make_bundle(tmp_path / "models", NAME, model=model)
    error = fails(1, tmp_path / "models")
    assert about(ErrorCode.NOT_FINITE, error.subject)(error)


def test_another_digest_than_the_approved_one(fails, models_copy, models):
    error = fails(1, models_copy, "--digest", f"reliability={'0' * 64}")
    assert about(ErrorCode.CHANGED, "digest")(error)
    assert models[NAME].digest in str(error)
    error = fails(2, models_copy, "--digest", "reliability")
    assert about(ErrorCode.INVALID_OPTION, "--digest")(error)
    error = fails(2, models_copy, "--model_name", NAME, "--digest", f"latency={'0' * 64}")
    assert about(ErrorCode.UNKNOWN_NAME, "consensus_latency")(error)


def test_no_signature_of_the_key(fails, models_copy, tmp_path):
    private, public = make_key_pair(tmp_path / "keys")
    only = ("--model_name", NAME, "--public-key", str(public))
    assert about(ErrorCode.UNSIGNED)(fails(1, models_copy, *only))
    sign_bundle(models_copy / NAME / VERSION, private)
    _, other = make_key_pair(tmp_path / "other")
    error = fails(1, models_copy, "--model_name", NAME, "--public-key", str(other))
    assert about(ErrorCode.WRONG_KEY, other)(error)
    manifest = models_copy / NAME / VERSION / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text())))
    assert about(ErrorCode.SIGNATURE, SIGNATURE_NAME)(fails(1, models_copy, *only))


def test_a_log_that_cannot_be_written(fails, models_copy, tmp_path):
    (tmp_path / "file").write_text("")
    error = fails(1, models_copy, "--log-predictions", str(tmp_path / "file" / "log"))
    assert about(ErrorCode.CANT_WRITE, "log")(error)
