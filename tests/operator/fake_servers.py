"""What a rollout needs beside a fake KServe: servers that count, and a clock that is told.

There is no chance in it: the same shares and seconds, the same counts.
"""

import json
import math
from typing import ClassVar

from dwcp_ml.kube.api import HTTP_ROUTE, INFERENCE_SERVICE, KNATIVE_SERVICE
from dwcp_ml.kube.kserve import deployment_name, predictor_name
from dwcp_ml.operator.observation import SUPPORTED_TESTS
from dwcp_ml.operator.settings import Clock
from dwcp_ml.rollout.observation import ArmSample, BucketCounts, Histogram, ReplicaSample

NAMESPACE, NAME = "models", "bandwidth-predictor"
BEGAN = 1_000_000.0
PERCENT = "canaryTrafficPercent"


class Time:
    """Both clocks; only ``pass_time`` moves them, and ``ahead`` lets the wall clock jump."""

    def __init__(self):
        self.now, self.ahead = BEGAN, 0.0
        self.clock = Clock(wall=lambda: self.now + self.ahead, monotonic=lambda: self.now)

    def pass_time(self, seconds):
        self.now += seconds


def digest_of(predictor):
    """Return the bundle of a predictor, and its runtime where the candidate named one."""
    annotations = predictor.get("annotations") or {}
    digest = annotations.get("ml.dwcp.io/digest", "").removeprefix("sha256:")
    return identity(
        digest or predictor["model"]["storageUri"], annotations.get("ml.dwcp.io/runtime", "-")
    )


def identity(digest, runtime="-"):
    """Return what tells a revision from another."""
    return digest if runtime in ("-", "", None) else f"{digest}/{runtime}"


def stable_in(service):
    """Return the digest of the stable, as the spec of an InferenceService has it."""
    predictor = service["spec"]["predictor"]
    if PERCENT not in predictor:
        return digest_of(predictor)
    return digest_of(json.loads(predictor["annotations"]["ml.dwcp.io/stable"]))


def shares_in(service):
    """Return digest -> percent as the spec of an InferenceService asks for it, in both modes."""
    if service is None:
        return {}
    predictor = service["spec"]["predictor"]
    if PERCENT in predictor:
        candidate, stable = digest_of(predictor), stable_in(service)
        if candidate == stable:
            return {stable: 100}
        return {stable: 100 - predictor[PERCENT], candidate: predictor[PERCENT]}
    canaries = service["spec"].get("canary") or []
    shares = {digest_of(predictor): 100 - sum(one["trafficPercent"] for one in canaries)}
    for one in canaries:
        revision = digest_of(one["predictor"])
        shares[revision] = shares.get(revision, 0) + one["trafficPercent"]
    return shares


def workload_of(number):
    """Return the name of the Deployment of version ``number``, as a candidate."""
    return deployment_name(NAME, predictor_name(NAMESPACE, NAME, f"v{number}"))


def carried_out(found):
    """Return whether the status of an object is about what is asked for now."""
    observed = (found.get("status") or {}).get("observedGeneration")
    return observed == found["metadata"]["generation"]


class Fleet:
    """The servers' counters, by digest, or by digest and runtime.

    ``errors`` is the share of requests that fail, by digest, and ``contracts`` what is not the
    contract of all others; ``broken`` why an arm's metrics can't
    be had, ``incomplete`` why those of another of its replicas can't.
    1 request in 200 takes longer than 10 ms. Predictions are spread over four buckets, or as
    ``predictions`` says: by digest, bucket -> share, or None for servers that do not report them.
    ``losses`` is the same of the losses that callers report, all of them to the stable's replica.
    """

    EDGES = (0.01, 0.1)
    SPREAD: ClassVar = dict.fromkeys(("10", "20", "50", "100"), 0.25)
    supported_tests = SUPPORTED_TESTS
    requests_port = 0

    def __init__(self, api, time, requests_per_second=400.0):
        self.api = api
        self.time = time
        self.requests_per_second = requests_per_second
        self.errors = {}
        self.counts = {}
        self.broken = {}
        self.incomplete = {}
        self.edges = {}
        self.contracts = {}
        self.predictions = {}
        self.losses = {}
        self.revisions = {}
        self._carried_out = {}

    def pass_time(self, seconds):
        """Let traffic flow as it is routed."""
        for digest, share in self.routed().items():
            began, requests, errors, slow = self.counts.get(digest, (self.time.now, 0, 0, 0))
            new = int(self.requests_per_second * seconds * share / 100)
            failed = math.ceil(new * self.errors.get(digest, 0.0))
            self.counts[digest] = (began, requests + new, errors + failed, slow + new // 200)

    def routed(self):
        """Return digest -> percent, as what routes the traffic says."""
        service = self.api.at(INFERENCE_SERVICE, NAMESPACE, NAME)
        if service is None:
            return {}
        knative = self.api.at(KNATIVE_SERVICE, NAMESPACE, f"{NAME}-predictor")
        if knative is not None:
            if carried_out(knative):
                self._carried_out = self._routed_by(knative)
            return self._carried_out  # what was carried out last goes on until the next is
        spec = service["spec"]
        predictors = [spec["predictor"], *(one["predictor"] for one in spec.get("canary") or [])]
        digests = {deployment_name(NAME, one.get("name", "")): digest_of(one) for one in predictors}
        route = self.api.at(HTTP_ROUTE, NAMESPACE, NAME)
        backends = [] if route is None else route["spec"]["rules"][0]["backendRefs"]
        shares = {}
        for one in backends:
            if one["name"] in digests:
                revision = digests[one["name"]]
                shares[revision] = shares.get(revision, 0) + one.get("weight", 100)
        return shares

    def _routed_by(self, knative):
        newest = digest_of({"annotations": knative["spec"]["template"]["metadata"]["annotations"]})
        status = knative["status"]
        if "latestCreatedRevisionName" not in status:  # Knative's first status has neither
            return {}
        # Knative may report a new generation as observed before it has made its revision.
        self.revisions.setdefault(status["latestCreatedRevisionName"], newest)
        shares = {}
        for one in status.get("traffic", []):
            digest = self.revisions[one["revisionName"]]
            shares[digest] = shares.get(digest, 0) + one.get("percent", 0)
        return shares

    def begin_again(self, digest):
        self.counts[digest] = (self.time.now, 0, 0, 0)

    def read(self, arm, expected, live, place):
        if arm in self.broken:
            return ArmSample(version=expected.version, error=self.broken[arm])
        deployed = live.stable if arm == "stable" else live.candidate or live.stable
        runtime = deployed.runtime if deployed is not None else ""
        sample = self._read(arm, expected, identity(expected.digest, runtime))
        return sample.replace(error=self.incomplete.get(arm, ""))

    def _predictions(self, digest, requests):
        shares = self.predictions.get(digest, self.SPREAD)
        if shares is None:
            return None
        counts = {bound: int(share * requests) for bound, share in shares.items()}
        return BucketCounts(buckets="b", counts=counts)

    def _losses(self, arm):
        """Return what callers reported: to the stable's replica, of both versions."""
        if arm != "stable":
            return {}
        found = {}
        for digest, shares in self.losses.items():
            requests = self.counts.get(digest, (0, 0))[1]
            counts = {bound: int(share * requests) for bound, share in shares.items()}
            found[f"v{int(digest[-4:])}"] = BucketCounts(buckets="l", counts=counts)
        return found

    def _read(self, arm, expected, revision):
        began, requests, errors, slow = self.counts.get(revision, (self.time.now, 0, 0, 0))
        latency = Histogram(
            edges=self.edges.get(arm, self.EDGES), counts=(requests - slow, requests, requests)
        )
        replica = ReplicaSample(
            replica=f"{expected.version}-0", started_at=began, requests=requests, errors=errors,
            latency=latency, predictions=self._predictions(expected.digest, requests),
            losses=self._losses(arm),
        )  # fmt: skip
        return ArmSample(
            version=expected.version, digest=expected.digest, replicas=(replica,),
            contracts=(self.contracts.get(expected.digest, "c" * 64),),
            requests_port=self.requests_port,
        )  # fmt: skip
