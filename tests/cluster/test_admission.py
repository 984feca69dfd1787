"""What a real API server accepts, the types and the admission in memory accept too, and no more.

The rules of a definition exist twice: in CEL, which only an API server evaluates, and on the type,
which checks objects that were stored before a rule existed. Here both answer for the same
documents: each field of each kind with valid, borderline and wrong values, and random documents.
"""

import collections
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from docs.generators.crd import RESOURCES
from dwcp_ml.operator.api.parts import API_VERSION
from tests.cluster.rest import RequestRejected
from tests.operator.admission import admitted, rejection_by_type
from tests.operator.crd_examples import FULL, FULL_TRAINING, PREDICTOR, ROLLOUT, TRAINING, edited
from tests.operator.random_documents import changed, each_value

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PLURALS = {one.names.kind: one.names.plural for one in RESOURCES}
SERVER_ONLY = (
    "expected int, got float64",  # 5.0 in a field of whole numbers that a rule reads
    "must be of type int64",
    "Duplicate value",  # in a list whose items are told apart by a key
)
"""What a server rejects and neither the types nor the admission in memory do. It is never stored,
so nothing of ours ever reads it."""
_AT_ONCE = 4
_RANDOM = 600


class Server:
    """A real API server that is asked what it would store, and stores nothing."""

    def __init__(self, rest, namespace):
        self.rest, self.namespace = rest, namespace

    def admits(self, obj):
        """Return the object as it would be stored, and why it would not be: empty if it would."""
        return self._try("POST", self._path(obj), obj)

    def admits_change(self, stored, obj):
        """Return the same of a new version of an object that is stored."""
        metadata = {**obj["metadata"], "resourceVersion": stored["metadata"]["resourceVersion"]}
        path = f"{self._path(obj)}/{obj['metadata']['name']}"
        return self._try("PUT", path, {**obj, "metadata": metadata})

    def admits_strictly(self, obj):
        """Return the object as ``kubectl apply`` would have it stored: unknown fields are errors.

        Raises
        ------
        RequestRejected
            With the status 400.
        """
        return self.rest.request(
            "POST", f"{self._path(obj)}?dryRun=All&fieldValidation=Strict", obj
        )

    def create(self, obj):
        return self.rest.create(self._path(obj), obj)

    def delete(self, obj):
        self.rest.delete(f"{self._path(obj)}/{obj['metadata']['name']}")

    def _try(self, method, path, obj):
        try:
            return self.rest.request(method, f"{path}?dryRun=All", obj), ""
        except RequestRejected as error:
            if error.status != 422:
                raise
            return None, str(error)

    def _path(self, obj):
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/{PLURALS[obj['kind']]}"


@pytest.fixture(scope="module")
def server(cluster, definitions):
    with cluster.namespace("dwcp-admission") as namespace:
        yield Server(cluster.rest, namespace)


def outcomes(documents, ask, judge, labels):
    """Judge the server's answer to each document; return how often there was which outcome.

    ``labels`` has one note for each document: it is added to a failure.
    """
    counts = collections.Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(ask, documents)
        for document, (stored, rejection), label in zip(documents, answers, labels, strict=True):
            try:
                counts[judge(document, stored, rejection)] += 1
            except AssertionError as error:
                error.add_note(str(label))
                raise
    return counts


def compare(document, stored, rejection, old=None):
    """Hold the type and the admission in memory against the server's answer; name it."""
    stored_here, errors = admitted(document, old)
    of_type = rejection_by_type(stored_here)
    if not of_type and any(text in rejection for text in SERVER_ONLY):
        return "rejected by a server only"
    assert bool(errors) == bool(rejection), (errors, rejection)
    if not rejection:
        assert of_type == ""
        assert stored["spec"] == stored_here["spec"]
        assert rejection_by_type(stored) == ""
        return "accepted"
    if not of_type:
        assert old is not None, rejection
        assert all(error in rejection for error in errors), (errors, rejection)
        return "rejected as a change"
    return "rejected"


GIVES_RIGHTS = [
    ("image", f"{PREDICTOR}.model.image", "attacker/image"),
    ("runtimeVersion", f"{PREDICTOR}.model.runtimeVersion", "latest"),
    ("command", f"{PREDICTOR}.model.command", ["sh", "-c", "id"]),
    ("env", f"{PREDICTOR}.model.env", [{"name": "X", "value": "y"}]),
    ("securityContext", f"{PREDICTOR}.model.securityContext", {"privileged": True}),
    ("storageUri", f"{PREDICTOR}.model.storageUri", "s3://models/other"),
    ("volumes", f"{PREDICTOR}.volumes", [{"name": "root", "hostPath": {"path": "/"}}]),
    ("hostNetwork", f"{PREDICTOR}.hostNetwork", True),
    ("initContainers", f"{PREDICTOR}.initContainers", [{"name": "x", "image": "y"}]),
    ("containers", f"{PREDICTOR}.containers", [{"name": "x", "image": "y"}]),
    ("canaryTrafficPercent", f"{PREDICTOR}.canaryTrafficPercent", 100),
    ("sklearn", f"{PREDICTOR}.sklearn", {"storageUri": "s3://models/pickle"}),
    ("storage", f"{PREDICTOR}.logger", {"mode": "all", "storage": {"key": "secret"}}),
    ("matchFields", f"{PREDICTOR}.affinity", {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "x", "operator": "Exists"}], "matchFields": []}]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "path", "value"), GIVES_RIGHTS, ids=lambda one: str(one)[:30])
def test_a_field_that_gives_rights_is_an_error_and_is_never_stored(server, field, path, value):
    document = edited(ROLLOUT, {path: value})
    with pytest.raises(RequestRejected) as rejection:
        server.admits_strictly(document)
    assert rejection.value.status == 400
    assert field in str(rejection.value)
    stored, rejected = server.admits(document)
    assert rejected == ""
    assert f"'{field}'" not in str(stored["spec"]["template"])


def test_the_full_example_has_no_unknown_field(server):
    assert server.admits_strictly(FULL)["spec"]["template"]["predictor"].keys() >= {"affinity"}


@pytest.mark.parametrize("document", [FULL, FULL_TRAINING], ids=lambda one: one["kind"])
def test_each_value_of_each_field_gets_one_answer(server, document):
    made = list(each_value(document, np.random.default_rng(0)))
    labels = [f"{'.'.join(path)} is {value!r}" for path, value, _ in made]
    counts = outcomes([one for _, _, one in made], server.admits, compare, labels)
    assert min(counts["accepted"], counts["rejected"]) > 200
    assert counts["rejected by a server only"] < 20


@pytest.mark.parametrize("kind", PLURALS)
def test_random_documents_get_one_answer(server, kind):
    rng = np.random.default_rng(0)
    begin = [one for one in (ROLLOUT, FULL, TRAINING, FULL_TRAINING) if one["kind"] == kind]
    documents = []
    for number in range(_RANDOM):
        document = begin[number % len(begin)]
        for _ in range(rng.integers(1, 4)):
            document = changed(document, rng)
        documents.append(document)
    counts = outcomes(documents, server.admits, compare, documents)
    assert min(counts["accepted"], counts["rejected"]) > _RANDOM / 10


@pytest.mark.parametrize(
    "stored",
    [ROLLOUT, edited(FULL, {"spec.abort": True}), TRAINING, edited(FULL_TRAINING,
     {"spec.cancel": True})],
    ids=["rollout", "rollout that is aborted", "training", "training that is cancelled"],
)  # fmt: skip
def test_random_changes_get_one_answer(server, stored):
    rng = np.random.default_rng(4)
    documents = [changed(stored, rng) for _ in range(_RANDOM)]
    made = server.create(stored)
    try:
        counts = outcomes(
            documents,
            lambda one: server.admits_change(made, one),
            lambda *answer: compare(*answer, old=made),
            documents,
        )
    finally:
        server.delete(stored)
    assert min(counts["rejected as a change"], counts["rejected"]) > 5, counts
