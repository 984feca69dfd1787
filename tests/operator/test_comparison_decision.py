"""What the decision makes of compared predictions: fakes of the metrics and of the servers."""

import numpy as np
import pytest

from dwcp_ml.contract.champion import difference_record
from dwcp_ml.kube.kserve import DeployedRevision, ObservedTraffic
from dwcp_ml.operator.comparison import Compared
from dwcp_ml.operator.observation import Place, observe
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.observation import ArmSample, Pair
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus, Shadow

STABLE = Revision(version="1", digest="a" * 64)
CANDIDATE = Revision(version="2", digest="c" * 64)
LIVE = ObservedTraffic(
    exists=True, percent=0, error="", unsupported="", promoted=False, candidate_ready=True,
    stable=DeployedRevision("s3://a", STABLE.version, STABLE.digest),
    candidate=DeployedRevision("s3://c", CANDIDATE.version, CANDIDATE.digest), restarts=0,
    pods={"stable": ("10.0.0.1:8080",), "candidate": ("10.0.0.2:8080",)}, resource_version="1",
)  # fmt: skip


class Metrics:
    """A fake source: the candidate's sample is what a test sets."""

    def __init__(self):
        self.of_candidate = {}

    def read(self, arm, expected, live, place):
        sample = ArmSample(
            version=expected.version, digest=expected.digest or STABLE.digest, contracts=("x",),
            requests_port=8082,
        )  # fmt: skip
        return sample.replace(**self.of_candidate) if arm == "candidate" else sample


class Servers:
    """A fake comparison: the candidate predicts 30 % more, as its record says."""

    def __init__(self):
        rng = np.random.default_rng(1)
        champion = np.exp(rng.normal(3.0, 1.0, 2000))
        challenger = champion * rng.normal(1.3, 0.03, 2000)
        self.record = difference_record("next_throughput_mbps", champion, challenger)
        self.signed = rng.normal(0.3, 0.03, 256).tolist()

    def read(self, spec, live, ports, cursor):
        pairs = tuple(Pair(request_id="", difference=abs(x), signed=x) for x in self.signed)
        return Compared(pairs, self.record if ports[1] else None, "c")


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"requests_port": 0, "error": "it gave no response."}, Reason.METRICS_UNAVAILABLE),
        ({"digest": "b" * 64}, Reason.BUNDLE_MISMATCH),
    ],
)
def test_without_the_candidates_metrics_nothing_is_compared(sample, reason):
    """Its record is not known then, and the tolerance accuses a candidate of what was meant."""
    metrics, servers, spec = Metrics(), Servers(), RolloutSpec(
        model="bandwidth_predictor", candidate=CANDIDATE, stable=STABLE
    )  # fmt: skip
    status, evidence = RolloutStatus(), None
    for number, metrics.of_candidate in enumerate(({}, sample, {})):
        seen = observe(spec, LIVE, metrics, Place("n", "x"), servers, status.pairs_cursor)
        status, _ = decide(spec, status, seen, 1e9 + 10.0 * number)
        if number == 0:
            evidence = status.evidence.divergence
        if number == 1:
            assert status.cause.reason is reason
            assert status.evidence.divergence == evidence, "it neither counts nor is lost"
    assert (status.phase, status.shadow) == (Phase.PROGRESSING, Shadow.PASSED)
    assert status.evidence.divergence.pairs == 512


def test_a_stable_whose_digest_only_its_servers_know_is_compared(monkeypatch):
    """The InferenceService of a stable that was made by hand has no digest."""
    found = []
    monkeypatch.setattr(Servers, "read", lambda self, spec, *_: found.append(spec) or Compared())
    spec = RolloutSpec(
        model="bandwidth_predictor", candidate=CANDIDATE, stable=STABLE.replace(digest="")
    )
    observe(spec, LIVE, Metrics(), Place("n", "x"), Servers())
    assert [each.stable.digest for each in found] == [STABLE.digest]
