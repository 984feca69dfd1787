"""The counters from a replica's samples, and every way in which the samples can be unusable."""

import re

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.metrics_sources.samples import Expected, Sample, arm_of, replica_of
from dwcp_ml.metrics_sources.scrape import parse
from dwcp_ml.rollout.observation import Histogram
from tests.errors import about
from tests.metrics_sources.metrics import CONTRACT, DIGEST, MODEL, VERSION, lines, page

EXPECTED = Expected(MODEL, VERSION)
LABELS = f'model="{MODEL}",version="{VERSION}"'


def read(content, expected=EXPECTED, name="a:1"):
    return replica_of(name, list(parse(content)), expected)


def test_the_page_of_a_server_is_read_as_it_counted():
    found = read(page(codes=[200] * 5 + [400] * 2 + [500, 503, 503], seconds=0.0021))
    assert found.error == ""
    assert found.digest == DIGEST
    sample = found.sample
    assert (sample.replica, sample.requests, sample.errors) == ("a:1", 10, 3)
    assert sample.started_at > 1.6e9
    bounds = dict(zip(sample.latency.edges, sample.latency.counts, strict=False))
    assert (bounds[0.002], bounds[0.003], sample.latency.counts[-1]) == (0, 10, 10)
    assert len(sample.latency.counts) == len(sample.latency.edges) + 1


def test_sketches_are_named_by_what_they_count():
    assert read(lines()).sketches == {
        "feature:rtt_ms": Histogram(edges=(), counts=(9,)),
        "output:next_throughput_mbps": Histogram(edges=(), counts=(9,)),
    }


def test_mirrored_answers_do_not_count():
    mirrored = f'dwcp_requests_total{{{LABELS},code="200",mirrored="true"}} 100'
    user = f'dwcp_requests_total{{{LABELS},code="200",mirrored="false"}} 7.0'
    assert read(lines(ok=user, more=mirrored)).sample.requests == 9


def test_other_models_and_versions_of_counters_do_not_count():
    other = 'dwcp_requests_total{model="consensus_latency",version="x",code="200"} 100'
    old = f'dwcp_requests_total{{model="{MODEL}",version="old",code="200"}} 100'
    assert read(lines(more=f"{other}\n{old}")).sample.requests == 9


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"started": None}, "process_start_time_seconds 0 times"),
        ({"started": "process_start_time_seconds NaN"}, "is nan"),
        ({"started": "process_start_time_seconds 0"}, "is 0"),
        ({"info": None}, f"has no dwcp_model_info of {MODEL}"),
        ({"info": f'dwcp_model_info{{{LABELS},digest="d"}} NaN'}, "has no dwcp_model_info of"),
        ({"info": f'dwcp_model_info{{model="{MODEL}",version="w"}} 1'}, f"w, not {VERSION}"),
        (
            {"more": f'dwcp_model_info{{model="{MODEL}",version="w",digest="x"}} 1'},
            f"{VERSION}, w, not {VERSION}",
        ),
        ({"ok": None, "bad": None}, "has no dwcp_requests_total"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="200"}} NaN'}, "is nan, which is not a count"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="200"}} +Inf'}, "is inf"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="200"}} -1'}, "is -1"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="200"}} 1.5'}, "is 1.5"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="20x"}} 1'}, "has the code '20x'"),
        ({"ok": f"dwcp_requests_total{{{LABELS}}} 1"}, "has the code ''"),
        ({"ok": f'dwcp_requests_total{{{LABELS},code="503"}} 1'}, "code 503 is duplicated"),
        ({"inf": None}, r"no bucket \+Inf"),
        ({"low": None, "inf": None}, r"no bucket \+Inf"),
        (
            {"low": f'dwcp_request_seconds_bucket{{{LABELS},le="0.01"}} 10'},
            "decrease from one bucket",
        ),
        ({"low": f'dwcp_request_seconds_bucket{{{LABELS},le="NaN"}} 1'}, "is not a number"),
        ({"low": f'dwcp_request_seconds_bucket{{{LABELS},le="inf"}} 9'}, r"'(\+Inf|inf)' twice"),
        ({"low": f"dwcp_request_seconds_bucket{{{LABELS}}} 1"}, "is not a number"),
        (
            {"feature": f'dwcp_feature_bucket{{{LABELS},feature="rtt_ms",le="1"}} 1'},
            "dwcp_feature_bucket is incomplete",
        ),
    ],
)
def test_what_is_wrong_is_named_and_never_zero(changed, said):
    found = read(lines(**changed))
    assert found.sample is None
    assert found.error.startswith("a:1: ")
    assert re.search(said, found.error), found.error


def test_another_digest_than_the_approved_one_is_an_error():
    assert read(lines(), Expected(MODEL, VERSION, DIGEST)).error == ""
    found = read(lines(), Expected(MODEL, VERSION, "e" * 64))
    assert found.sample is None
    assert "e" * 64 in found.error


def test_an_unknown_model_is_refused():
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "bandwith")):
        Expected("bandwith", VERSION)


def test_an_arm_adds_its_sketches_and_keeps_its_replicas_apart():
    arm = arm_of([read(lines(), name="a"), read(lines(), name="b")], EXPECTED)
    assert arm.error == ""
    assert (arm.version, arm.digest) == (VERSION, DIGEST)
    assert [each.replica for each in arm.replicas] == ["a", "b"]
    assert [each.requests for each in arm.replicas] == [9, 9]
    assert arm.sketches["feature:rtt_ms"].counts == (18,)


def test_one_replica_that_is_wrong_makes_the_arm_an_error():
    broken = read(lines(info=None), name="b")
    arm = arm_of([read(lines(), name="a"), broken], EXPECTED)
    assert arm.error == broken.error
    assert [each.replica for each in arm.replicas] == ["a"]
    arm = arm_of([broken, broken], EXPECTED)
    assert arm.error.endswith("(and 1 more)")


def test_an_arm_without_replicas_is_an_error():
    assert "No replica serves" in arm_of([], EXPECTED).error


def test_replicas_with_different_bundles_are_an_error():
    other = f'dwcp_model_info{{{LABELS},digest="{"e" * 64}"}} 1.0'
    arm = arm_of([read(lines()), read(lines(info=other))], EXPECTED)
    assert "different bundles" in arm.error
    assert arm.digest == ""


def test_replicas_with_different_buckets_are_an_error():
    other = lines(more=f'dwcp_feature_bucket{{{LABELS},feature="rtt_ms",le="5"}} 1')
    assert "in different buckets" in arm_of([read(lines()), read(other)], EXPECTED).error


def test_a_sample_needs_nothing_but_name_labels_and_value():
    assert replica_of("a", [Sample("up", {}, 1.0)], EXPECTED).sample is None


@pytest.mark.parametrize(
    ("reported", "contracts"),
    [
        ([f',contract="{CONTRACT}"'] * 2, (CONTRACT,)),
        ([f',contract="{CONTRACT}"', ""], ("", CONTRACT)),
        ([f',contract="{CONTRACT}"', ',contract="x"'], (CONTRACT, "x")),
        ([""], ("",)),
    ],
)
def test_the_contracts_of_the_replicas_are_those_of_the_arm(reported, contracts):
    info = f'dwcp_model_info{{{LABELS},digest="{DIGEST}"'
    replicas = [read(lines(info=f"{info}{label}}} 1.0")) for label in reported]
    arm = arm_of(replicas, EXPECTED)
    assert arm.error == ""
    assert arm.contracts == contracts


def test_the_servers_own_page_has_the_contract():
    assert read(page()).contract == CONTRACT
