"""A real API server takes our definitions, and keeps their rules."""

import time

import pytest
import yaml
from kubernetes import client
from kubernetes.client.rest import ApiException

from docs.generators.crd import RESOURCES, crd_files
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.parts import GROUP, VERSION
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.conditions import status_of_rollout
from dwcp_ml.operator.state_store import RolloutState
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.verdict import MAX_EVIDENCE, Outcome, Verdict
from tests.operator.crd_examples import CHANGES, FULL, REFUSED, ROLLOUT, TAKEN, TRAINING, edited

pytestmark = pytest.mark.cluster

PLURALS = {one.names.kind: one.names.plural for one in RESOURCES}
LONGEST = 30
"""Seconds for one request, and for the API server to serve a new kind."""


@pytest.fixture(scope="module")
def objects(cluster, definitions):
    """Reads and writes custom objects in a namespace of this module's own."""
    with cluster.namespace("dwcp-crds") as namespace:
        made = Objects(client.CustomObjectsApi(cluster.api), namespace)
        _until(lambda: made.create(TRAINING, dry_run="All"))
        yield made


def _until(works, status=404):
    """A kind that was just established may not be found for a moment, or have an older schema."""
    deadline = time.monotonic() + LONGEST
    while True:
        try:
            return works()
        except ApiException as error:
            if error.status != status or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Objects:
    """Custom objects; a field that the schema does not list is an error, not dropped."""

    def __init__(self, api, namespace):
        self._api = api
        self.namespace = namespace

    def create(self, body, **how):
        return self._api.create_namespaced_custom_object(
            *self._where(body), body, field_validation="Strict", _request_timeout=LONGEST, **how
        )

    def replace(self, body, **how):
        return self._api.replace_namespaced_custom_object(
            *self._where(body), body["metadata"]["name"], body,
            field_validation="Strict", _request_timeout=LONGEST, **how,
        )  # fmt: skip

    def replace_status(self, body):
        return self._api.replace_namespaced_custom_object_status(
            *self._where(body), body["metadata"]["name"], body,
            field_validation="Strict", _request_timeout=LONGEST,
        )  # fmt: skip

    def merge(self, body, patch):
        return self._api.patch_namespaced_custom_object(
            *self._where(body), body["metadata"]["name"], patch, _request_timeout=LONGEST
        )

    def delete(self, body):
        return self._api.delete_namespaced_custom_object(
            *self._where(body), body["metadata"]["name"], _request_timeout=LONGEST
        )

    def _where(self, body):
        return GROUP, VERSION, self.namespace, PLURALS[body["kind"]]


@pytest.fixture
def kept(objects):
    """Create an object that is deleted after the test."""
    made = []

    def make(body):
        made.append(objects.create(body))
        return made[-1]

    yield make
    for one in made:
        objects.delete(one)


def changed(old, new):
    """Return the object that is there, with the spec that is desired."""
    return {**new, "metadata": {**old["metadata"], **new["metadata"]}}


@pytest.mark.parametrize("example", TAKEN, ids=lambda one: one.name)
def test_the_api_server_takes(objects, example):
    objects.create(example.new, dry_run="All")


@pytest.mark.parametrize("example", REFUSED, ids=lambda one: one.name)
def test_the_api_server_refuses(objects, example):
    with pytest.raises(ApiException) as refusal:
        objects.create(example.new, dry_run="All")
    assert refusal.value.status == 422
    assert example.refused in refusal.value.body


@pytest.mark.parametrize("example", CHANGES, ids=lambda one: one.name)
def test_the_api_server_takes_or_refuses_a_change(objects, kept, example):
    there = kept(example.old)
    if not example.refused:
        objects.replace(changed(there, example.new), dry_run="All")
        return
    with pytest.raises(ApiException) as refusal:
        objects.replace(changed(there, example.new), dry_run="All")
    assert refusal.value.status == 422
    assert example.refused in refusal.value.body


RULES = "x-kubernetes-validations"


def without_rules(schema):
    """Return a schema that takes any string, and has no rules: that of an older release."""
    if isinstance(schema, list):
        return [without_rules(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_rules(one)
        for key, one in schema.items()
        if key != RULES and not (key == "pattern" and isinstance(one, str))
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"spec.storagePrefix": "https://models.example.com/m"},
        {"spec.data.uri": "hdfs://namenode/t.csv"},
        {
            "spec.models": ["consensus_latency"],
            "spec.modelOptions": [{"name": "bandwidth_predictor"}],
        },
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_that_was_stored_before_a_rule_can_be_cancelled(cluster, objects, changes):
    invalid = edited(TRAINING, {"metadata.name": "older", **changes})
    definitions = client.ApiextensionsV1Api(cluster.api)
    name = f"{PLURALS['TrainingRun']}.{GROUP}"
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
    (ours,) = [one for one in map(yaml.safe_load, crd_files().values())
               if one["metadata"]["name"] == name]  # fmt: skip
    spec = ours["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    def define(schema):
        patch = [{"op": "replace", "path": path, "value": schema}]
        definitions.patch_custom_resource_definition(name, patch, _request_timeout=LONGEST)

    define(without_rules(spec))
    try:
        _until(lambda: objects.create(invalid), 422)
        define(spec)
        # By another name: a schema that is not in force yet would answer 409 for this one.
        another = edited(invalid, {"metadata.name": "newer"})
        _until(lambda: _refused(lambda: objects.create(another, dry_run="All")))
        assert objects.merge(invalid, {"spec": {"cancel": True}})["spec"]["cancel"] is True
        with pytest.raises(ApiException, match="cancel is final"):
            objects.merge(invalid, {"spec": {"cancel": False}})
        with pytest.raises(ApiException, match="can't be changed"):
            objects.merge(invalid, {"spec": {"seed": 1}})
    finally:
        define(spec)
        objects.delete(invalid)


def _refused(create):
    """Raise 404, which is waited for, while an object is still taken."""
    try:
        create()
    except ApiException as error:
        if error.status == 422:
            return
        raise
    raise ApiException(status=404)


def test_the_api_server_fills_in_what_the_type_does(kept):
    there = kept(ROLLOUT)
    assert ModelRollout.parse(there).spec == ModelRollout.parse(ROLLOUT).spec
    assert there["spec"] == ModelRollout.parse(ROLLOUT).spec.to_dict()


def test_every_field_of_the_predictor_is_kept(kept):
    assert kept(FULL)["spec"]["template"]["predictor"] == FULL["spec"]["template"]["predictor"]


def test_a_test_that_is_off_stays_off_through_a_merge_patch(objects, kept):
    there = kept(edited(ROLLOUT, {"spec.analysis": {"latency": {"enabled": False}}}))
    after = objects.merge(there, {"spec": {"analysis": {"alpha": 0.02}}})
    assert after["spec"]["analysis"]["latency"]["enabled"] is False
    assert after["spec"]["analysis"]["alpha"] == 0.02


def test_a_status_comes_back_byte_for_byte_and_changes_no_generation(objects, kept):
    there = kept(ROLLOUT)
    verdict = Verdict(
        test="error_rate", outcome=Outcome.PASS, evidence=MAX_EVIDENCE, sentence="ok."
    )
    now = 1_767_268_800.25
    rollout = RolloutStatus(
        phase=Phase.PROGRESSING, target_percent=5, verdicts=(verdict,), last_reconciled=now
    )
    state = '{"float": 1.0, "z": 1e-300, "a": "é\\u0000"}'
    before = ModelRolloutStatus()
    shown = status_of_rollout(
        RolloutState(rollout=rollout), before, 5, (1, 5, 100), now, stalled=False
    ).replace(state=state)
    after = objects.replace_status({**there, "status": shown.to_dict()})
    assert after["status"]["state"] == state
    assert ModelRollout.parse(after).status == shown.model_validate(shown.to_dict())
    assert after["metadata"]["generation"] == there["metadata"]["generation"]
    forged = {**after, "status": {**after["status"], "livePercent": 100}}
    assert objects.replace(forged)["status"]["livePercent"] == 5, "the spec's path writes no status"


def test_a_status_out_of_bounds_is_refused(objects, kept):
    there = kept(ROLLOUT)
    for status in (
        {"livePercent": 101},
        {"phase": "Happy"},
        {"state": "s" * 524_289},
        {"reason": "Mood"},
    ):
        with pytest.raises(ApiException) as refusal:
            objects.replace_status({**there, "status": status})
        assert refusal.value.status == 422


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one.names.kind)
def test_kubectl_finds_columns_short_name_and_category(cluster, objects, kept, resource):
    kept(ROLLOUT if resource is ModelRollout else TRAINING)
    names = resource.names
    listed = _get(cluster.api, f"/apis/{GROUP}/{VERSION}")["resources"]
    (found,) = [one for one in listed if one["name"] == names.plural]
    assert (found["shortNames"], found["categories"]) == ([names.short], ["dwcp"])
    table = _get(
        cluster.api,
        f"/apis/{GROUP}/{VERSION}/namespaces/{objects.namespace}/{names.plural}",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    shown = [one["name"] for one in table["columnDefinitions"]]
    assert shown == ["Name", *(column.name for column in resource.columns)]
    assert len(table["rows"]) == 1


def _get(api, path, accept="application/json"):
    answer, status, _ = api.call_api(
        path, "GET", header_params={"Accept": accept}, auth_settings=["BearerToken"],
        response_type="object", _request_timeout=LONGEST,
    )  # fmt: skip
    assert status == 200
    return answer
