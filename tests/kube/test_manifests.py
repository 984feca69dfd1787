"""The manifests say what KServe reads: names, shares, modes."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, MODELS
from dwcp_ml.kube.kserve import deployment_name, predictor_name
from dwcp_ml.kube.manifests import (
    MODES,
    inference_service,
    manifests,
    parse_mode,
    revision_name,
    storage_uri,
)
from dwcp_ml.training_run.options import run_options
from tests.errors import about
from tests.kube.kserve.sdk import typed

CANDIDATE = "s3://models/bandwidth_predictor/20260102-000000"
STABLE = "s3://models/bandwidth_predictor/20260101-000000"


def test_standard_mode_adds_a_canary_at_one_percent_beside_what_is_live():
    spec = inference_service(BANDWIDTH, "20260102-000000", CANDIDATE, STABLE)["spec"]
    (canary,) = spec["canary"]
    assert canary["trafficPercent"] == 1
    assert canary["predictor"]["model"]["storageUri"] == CANDIDATE
    assert spec["predictor"]["model"]["storageUri"] == STABLE
    names = [spec["predictor"]["name"], canary["predictor"]["name"]]
    assert len(set(names)) == 2
    # KServe's own rule for the name of a predictor.
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) for name in names)
    # A canary inherits the stable runtime unless both runtime and protocol are set.
    assert {"runtime", "protocolVersion"} <= canary["predictor"]["model"].keys()


def test_knative_mode_names_the_candidate_and_one_percent():
    service = inference_service(BANDWIDTH, "v2", CANDIDATE, STABLE, "knative")
    assert service["spec"]["predictor"]["canaryTrafficPercent"] == 1
    assert "canary" not in service["spec"]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_a_first_deployment_has_no_canary(mode):
    text = yaml.safe_dump(inference_service(BANDWIDTH, "v1", CANDIDATE, "", mode))
    assert "canary" not in text


VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}", fullmatch=True)


@given(
    model=st.sampled_from(list(MODELS.values())),
    version=VERSIONS,
    stable=st.none() | VERSIONS,
    prefix=st.sampled_from(["", "s3://models", "gs://m/x/"]),
    mode=st.sampled_from(MODES),
)
def test_whatever_the_gate_writes_has_the_types_of_kserve(model, version, stable, prefix, mode):
    uri = storage_uri(prefix, "", model, version)
    stable_uri = storage_uri(prefix, "", model, stable) if stable else ""
    files = manifests(model, version, uri, "ab" * 32, stable_uri, mode)
    written = yaml.safe_load(files["inferenceservice.yaml"])
    spec = typed(written).spec
    predictors = [spec.predictor, *(entry.predictor for entry in spec.canary or ())]
    expected = [stable_uri, uri] if stable and mode == "standard" else [uri]
    assert [predictor.model.storage_uri for predictor in predictors] == expected


def test_the_next_release_finds_the_name_that_this_one_gave():
    first = inference_service(BANDWIDTH, "20260101-000000", STABLE)["spec"]["predictor"]["name"]
    then = inference_service(BANDWIDTH, "20260102-000000", CANDIDATE, STABLE)["spec"]["predictor"]
    assert then["name"] == first


@pytest.mark.parametrize("version", ["20260101-000000", "V1.2_rc", "9", "a" * 80])
def test_a_revision_name_is_a_kubernetes_name(version):
    name = revision_name(version)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
    longest = deployment_name("bandwidth-predictor", revision_name(version, "bandwidth-predictor"))
    assert len(f"isvc.{longest}") <= 63


@pytest.mark.parametrize(
    ("one", "other"), [("1.0", "1-0"), ("a", "A"), ("a" * 60 + "1", "a" * 60 + "2")]
)
def test_versions_that_look_alike_have_names_of_their_own(one, other):
    """The canary must not be named like its stable; the rule is the operator's."""
    uri = f"s3://models/bandwidth_predictor/{one}"
    spec = inference_service(BANDWIDTH, other, CANDIDATE, uri)["spec"]
    (canary,) = spec["canary"]
    assert spec["predictor"]["name"] != canary["predictor"]["name"]
    for version, predictor in ((one, spec["predictor"]), (other, canary["predictor"])):
        assert predictor["name"] == predictor_name("", BANDWIDTH.kubernetes_name, version)


def test_the_rollout_names_digest_and_steps():
    files = manifests(COMPRESSION, "v1", "pvc://m/compression_selector/v1", "ab" * 32)
    rollout = yaml.safe_load(files["modelrollout.yaml"])
    assert [s["trafficPercent"] for s in rollout["spec"]["steps"]] == [1, 5, 25, 50, 100]
    assert rollout["spec"]["candidate"]["digest"] == "sha256:" + "ab" * 32
    assert "storageUri" not in rollout["spec"]["template"]["predictor"]["model"]


def test_where_a_cluster_finds_a_bundle():
    assert storage_uri("s3://m/", "gs://x", BANDWIDTH, "1") == "s3://m/bandwidth_predictor/1"
    assert storage_uri("", "gs://x/b", BANDWIDTH, "1") == "gs://x/b/bandwidth_predictor/1"
    assert storage_uri("", "/tmp/x", BANDWIDTH, "1") == "pvc://dwcp-models/bandwidth_predictor/1"


def test_a_stable_uri_stands_for_one_model_or_is_a_list():
    one = run_options(models="bandwidth", stable_uri=STABLE)
    assert one.stable_uris() == {"bandwidth_predictor": STABLE}
    two = run_options(stable_uri=f"bandwidth={STABLE}, latency=s3://x/y")
    assert two.stable_uris() == {"bandwidth_predictor": STABLE, "consensus_latency": "s3://x/y"}
    with pytest.raises(UsageError, check=about(ErrorCode.AMBIGUOUS, "--stable-uri")):
        run_options(stable_uri=STABLE).stable_uris()
    assert run_options(models=",".join(MODELS)).stable_uris() == {}


def test_an_unknown_mode_is_refused():
    with pytest.raises(UsageError, match="did you mean 'knative'"):
        parse_mode("knativ")
