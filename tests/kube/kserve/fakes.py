"""A router over an API server in memory and a fake KServe, in either mode."""

from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.kube.kserve import ROUTERS, DesiredRevision
from tests.kube.kserve.sdk import typed
from tests.operator.fake_kserve import FakeKServe
from tests.operator.fake_kserve_rules import webhook
from tests.operator.memory_api import MemoryApi

SPACE = "models"
NAME = "bandwidth-predictor"
MODES = ("Standard", "Knative")
STEPS = (1, 5, 25, 50, 100)
MODEL = {"modelFormat": {"name": "dwcp-ml-bundle"}, "runtime": "dwcp-ml-server",
         "protocolVersion": "v1"}  # fmt: skip
_MAX_ROUNDS = 30


def bundle(day, digest=None, **changes):
    """Return a candidate: the bundle of a day of January."""
    version = f"202601{day:02d}-000000"
    fields = {
        "version": version,
        "digest": f"sha256:{digest or f'{day:064x}'}",
        "storage_uri": f"s3://models/bandwidth_predictor/{version}",
        "predictor": {"model": dict(MODEL)},
        "model": "bandwidth_predictor",
        "labels": {"app.kubernetes.io/part-of": "dwcp-ml"},
    }
    return DesiredRevision(**{**fields, **changes})


def replicas(minimum, most=None):
    bounds = {"minReplicas": minimum} | ({"maxReplicas": most} if most else {})
    return {"model": dict(MODEL), **bounds}


STABLE, CANDIDATE, NEXT = bundle(1), bundle(2), bundle(3)


def admit(obj):
    if obj["kind"] == "InferenceService":
        typed({key: value for key, value in obj.items() if key != "status"})  # which KServe writes
    return webhook(obj)


class RouterScenario:
    """One InferenceService; everything that is written has KServe's types and passes its rules."""

    def __init__(self, mode="Standard", **options):
        self.mode = mode
        self.api = MemoryApi(admit)
        self.kserve = FakeKServe(self.api, **options)
        self.router = ROUTERS[mode](self.api, SPACE, NAME)

    @property
    def service(self):
        return self.api.at(INFERENCE_SERVICE, SPACE, NAME)

    @property
    def predictor(self):
        return self.service["spec"]["predictor"]

    @property
    def canary(self):
        """The only entry beside the stable, in Standard mode."""
        (only,) = self.service["spec"]["canary"]
        return only

    def writes(self):
        return len(self.api.writes)

    def read(self, desired=CANDIDATE):
        return self.router.read(desired)

    def set(self, percent, desired=CANDIDATE):
        """Ask once for a share, and let KServe carry it out; return what is live then."""
        self.router.set(self.read(desired), desired, percent)
        self.kserve.settle()
        return self.read(desired)

    def deploy(self, desired=STABLE):
        live = self.set(100, desired)
        assert live.promoted
        return live

    def raise_to(self, percent, desired=CANDIDATE):
        """Bring a candidate up step by step."""
        for share in (0, *(step for step in STEPS if step <= percent)):
            live = self.set(share, desired)
            assert (live.percent, live.error) == (share, "")
        return live

    def until(self, done, act, desired=CANDIDATE):
        """Act and let KServe make a single pass, again and again, until it is done."""
        for _ in range(_MAX_ROUNDS):
            live = self.read(desired)
            if done(live):
                return live
            act(live)
            self.kserve.step()
        raise AssertionError(f"it never happens: {live}")

    def promote(self, desired=CANDIDATE):
        act = lambda live: self.router.promote(live, desired)  # noqa: E731
        return self.until(lambda live: live.promoted, act, desired)

    def roll_back(self, desired=CANDIDATE):
        def act(live):
            if live.percent == 0:
                self.router.drop(live)
            elif live.percent is not None:  # Otherwise wait.
                self.router.set(live, desired, 0)

        return self.until(lambda live: live.percent == 0 and live.candidate is None, act, desired)
