"""Outdated bundles go; what is in use, came before it, or is unknown stays."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from dwcp_ml.bundle_store import push
from dwcp_ml.bundle_store.retention import (
    Fate,
    Policy,
    list_store,
    plan,
    remove,
    remove_outdated,
)
from dwcp_ml.bundle_store.usage import ALL_MODELS, Stored, Used, ask_cluster, used_on_cluster
from dwcp_ml.cli import main
from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.kube import client
from dwcp_ml.kube.api import ApiUnavailable
from dwcp_ml.kube.manifests import inference_service, model_rollout
from dwcp_ml.storage.remote_objects import Remote, StorageError
from dwcp_ml.training_run.options import run_options
from dwcp_ml.training_run.session import Session, new_session
from tests.errors import coded
from tests.operator.memory_api import MemoryApi
from tests.serving.bundles import make_bundle

MODEL = "bandwidth_predictor"
PREFIX = "s3://models"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def stored(number, model=MODEL, **changes):
    version = f"v{number}"
    fields = {
        "address": f"{PREFIX}/{model}/{version}", "digest": f"{number:064x}",
        "trained": datetime(2026, 1, 1 + number, tzinfo=UTC), "written": NOW - timedelta(days=30),
        **changes,
    }  # fmt: skip
    return Stored(model, version, **fields)


def address(number):
    return stored(number).address


def used_by(user, *texts):
    used = Used()
    for text in texts:
        used.add(text, user)
    return used


def fates(bundles, used=None, keep=1):
    """Return version -> fate."""
    decisions = plan(bundles, used or Used(), Policy(keep), NOW)
    assert all(each.why.endswith(".") for each in decisions)
    return {each.item.version: each.fate.value for each in decisions}


FIVE = [stored(number) for number in (3, 1, 5, 2, 4)]


def test_the_newest_of_each_model_stay():
    others = [stored(number, "consensus_latency") for number in (1, 2)]
    decisions = plan([*FIVE, *others], Used(), Policy(2), NOW)
    outdated = {each.item.address for each in decisions if each.fate is Fate.OUTDATED}
    assert outdated == {address(3), address(2), address(1)}


def test_what_is_in_use_stays_and_what_came_before_it():
    used = used_by("somebody", address(3))
    assert fates(FIVE, used) == {
        "v5": "Newest", "v4": "Outdated", "v3": "InUse", "v2": "PredecessorOfOneInUse",
        "v1": "Outdated",
    }  # fmt: skip
    used.add(address(2), "somebody else")
    assert fates(FIVE, used)["v2"] == "InUse"
    assert fates(FIVE, used)["v1"] == "PredecessorOfOneInUse"


def test_the_newest_one_in_use_protects_what_came_before_it():
    used = used_by("somebody", address(5))
    assert fates(FIVE, used)["v4"] == "PredecessorOfOneInUse"
    assert fates(FIVE, used)["v3"] == "Outdated"


@pytest.mark.parametrize(
    "used",
    [
        used_by("u", text)
        for text in (
            f"{address(2)}/", f"{PREFIX}/{MODEL}", PREFIX, f"pvc://claim/{MODEL}/v2",
            f"{address(2)}?sv=1", f"{address(2)}#md5=0", f"{PREFIX}/{MODEL}//v2",
            f"{PREFIX}/{MODEL}/./v2", f"{PREFIX}/{MODEL}/%76%32", f"--bundle={address(2)}",
            f"{MODEL}/v2", f"It failed to load {address(2)}.", f"--store={PREFIX}/",
            f'{{"storageUri":"{address(2)}"}}', f"sha256:{2:064x}", f"S3://models/{MODEL}/v2/x",
        )
    ],
)  # fmt: skip
def test_a_bundle_is_known_by_its_address_by_one_above_and_by_its_digest(used):
    assert fates(FIVE, used)["v2"] == "InUse"


def test_another_model_of_the_same_version_is_not_in_use():
    others = (
        f"{PREFIX}/consensus_latency/v2",
        f"{address(2)}2",
        f"{address(2)}.1",
        "/",
        "",
        "s3://m",
    )
    assert fates(FIVE, used_by("u", *others))["v2"] == "Outdated"


@pytest.mark.parametrize("key", [MODEL, ALL_MODELS])
def test_where_the_use_is_unknown_nothing_goes(key):
    assert "Outdated" not in fates(FIVE, Used(unknown={key: "It can't be known."})).values()


def test_a_version_that_can_not_be_read_stays_and_does_not_count():
    broken = stored(9, trained=None, fault="It has no manifest.")
    assert fates([*FIVE, broken], keep=4) == {
        "v9": "Unknown", "v5": "Newest", "v4": "Newest", "v3": "Newest", "v2": "Newest",
        "v1": "Outdated",
    }  # fmt: skip
    used = used_by("somebody", broken.address)
    assert "Outdated" not in fates([*FIVE, broken], used).values(), "what came before is unknown"


def rollout(candidate, stable=None, phase="Progressing"):
    found = model_rollout(BANDWIDTH, f"v{candidate}", address(candidate), f"{candidate:064x}")
    found["metadata"]["namespace"] = "a"
    if stable is not None:
        # Without an address: an older operator did not write it.
        live = {"version": f"v{stable}", "digest": f"sha256:{stable:064x}"}
        found["status"] = {"phase": phase, "stable": live}
    return found


def service(candidate, stable=None, mode="standard"):
    uri = "" if stable is None else address(stable)
    found = inference_service(BANDWIDTH, f"v{candidate}", address(candidate), uri, mode)
    found["metadata"]["namespace"] = "a"
    return found


def test_both_arms_of_a_rollout_are_in_use():
    used = used_on_cluster([rollout(5, stable=2)], [])
    assert fates(FIVE, used)["v2"] == "InUse"
    assert fates(FIVE, used)["v1"] == "PredecessorOfOneInUse"
    assert used.by(stored(5)) == "ModelRollout a/bandwidth-predictor"


def test_both_arms_of_an_inference_service_are_in_use():
    used = used_on_cluster([], [service(5, stable=2)])
    assert fates(FIVE, used)["v2"] == "InUse"
    assert used.by(stored(5)) == "InferenceService a/bandwidth-predictor"


def test_a_split_in_knative_mode_needs_a_rollout_that_names_the_stable():
    split = service(5, stable=2, mode="knative")
    split["metadata"]["annotations"] = {"serving.kserve.io/deploymentMode": "Knative"}
    assert "Outdated" not in fates(FIVE, used_on_cluster([], [split])).values()
    assert "Outdated" not in fates(FIVE, used_on_cluster([rollout(5)], [split])).values()
    known = fates(FIVE, used_on_cluster([rollout(5, stable=2)], [split]))
    assert known["v2"] == "InUse"
    assert known["v3"] == "Outdated"


def test_a_service_of_an_unknown_bundle_stops_everything_and_one_of_others_nothing():
    found = service(5)
    found["spec"]["predictor"]["model"]["storageUri"] = "pvc://somewhere"
    assert "Outdated" not in fates(FIVE, used_on_cluster([], [found])).values()
    found["spec"]["predictor"]["model"]["modelFormat"]["name"] = "sklearn"
    assert fates(FIVE, used_on_cluster([], [found]))["v3"] == "Outdated"


STANDARD = {"annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"}}


@pytest.mark.parametrize(
    "predictor",
    [
        {"model": {"modelFormat": {"name": "onnx"}, "storageUri": address(2)}},
        {"model": {"modelFormat": {"name": "onnx"}, "storage": {"path": f"{MODEL}/v2"}}},
        {"containers": [{"env": [{"name": "STORAGE_URI", "value": address(2)}]}]},
        {"containers": [{"args": ["--bundle", address(2)]}]},
        {"model": {"storageUris": [{"uri": address(2)}]}},
    ],
)
def test_any_server_that_names_a_bundle_uses_it(predictor):
    service = {"metadata": {"name": "x", "namespace": "a", **STANDARD}}
    found = used_on_cluster([], [{**service, "spec": {"predictor": predictor}}])
    assert fates(FIVE, found)["v2"] == "InUse"
    assert fates(FIVE, found)["v3"] == "Outdated"
    found = used_on_cluster([], [{**service, "status": {"any": predictor}}])
    assert fates(FIVE, found)["v2"] == "InUse"


def knative(*traffic, created="b-2", ready="b-2", mode="status", **predictor):
    """A service whose spec names v5, and whose revisions have these shares of the traffic."""
    found = service(5)
    metadata = found["metadata"]
    del metadata["annotations"]
    if mode == "annotation":
        metadata["annotations"] = {"serving.kserve.io/deploymentMode": "Serverless"}
    found["spec"]["predictor"].update(predictor)
    found["status"] = {
        "components": {"predictor": {
            "latestCreatedRevision": created, "latestReadyRevision": ready,
            "traffic": [{"revisionName": name, "percent": share} for name, share in traffic],
        }},
        **({"deploymentMode": "Knative"} if mode == "status" else {}),
    }  # fmt: skip
    return found


@pytest.mark.parametrize(
    "found",
    [
        knative(("b-2", 10), ("b-1", 90), canaryTrafficPercent=10),
        knative(("b-2", 100), canaryTrafficPercent=10),
        knative(("b-1", 100), ready="b-1", mode="annotation"),
        knative(("b-1", 100)),
        knative(("b-2", 90), ("b-1", 10)),
        knative(),
        knative(("b-2", 100), created=None, ready=None),
        knative(("b-2", 100), mode="not stated"),
    ],
)
def test_what_another_revision_may_serve_stays(found):
    assert "Outdated" not in fates(FIVE, used_on_cluster([], [found])).values()
    others = [stored(number, "consensus_latency") for number in (1, 2)]
    assert fates(others, used_on_cluster([], [found]))["v1"] == "Outdated"


@pytest.mark.parametrize("mode", ["status", "annotation"])
def test_a_revision_with_all_traffic_is_all_that_is_in_use(mode):
    for traffic in ([("b-2", 100)], [("b-2", 100), ("b-1", 0)]):
        found = knative(*traffic, mode=mode)
        assert fates(FIVE, used_on_cluster([], [found])) == {
            "v5": "Newest", "v4": "PredecessorOfOneInUse", "v3": "Outdated", "v2": "Outdated",
            "v1": "Outdated",
        }  # fmt: skip


def test_a_rollout_speaks_for_its_own_service_only():
    split = knative(("b-2", 10), ("b-1", 90), canaryTrafficPercent=10)
    other = rollout(5, stable=4)
    other["spec"]["inferenceService"] = "another"
    assert "Outdated" not in fates(FIVE, used_on_cluster([other], [split])).values()
    other["metadata"]["name"] = "another"
    other["spec"]["inferenceService"] = "bandwidth-predictor"
    assert "Outdated" in fates(FIVE, used_on_cluster([other], [split])).values()
    other["metadata"]["namespace"] = "another"
    assert "Outdated" not in fates(FIVE, used_on_cluster([other], [split])).values()


def test_what_was_written_lately_stays():
    ages = [stored(1, written=NOW - timedelta(hours=23)), stored(2, written=None), stored(3)]
    assert fates([*ages, stored(4)]) == {
        "v4": "Newest", "v3": "Outdated", "v2": "Unknown", "v1": "Recent",
    }  # fmt: skip


def test_what_comes_into_use_between_two_removals_stays():
    removed, answers = [], iter([Used(), used_by("somebody", address(2))])
    bundles = [stored(number) for number in (2, 3, 4)]
    final = remove_outdated(
        plan(bundles, Used(), Policy(1), NOW),
        lambda: plan(bundles, next(answers), Policy(1), NOW),
        lambda bundle: removed.append(bundle.version) is None,
    )
    assert removed == ["v3"]
    assert [each.fate for each in final] == [Fate.NEWEST, Fate.OUTDATED, Fate.IN_USE]


def test_a_cluster_is_asked_in_every_namespace():
    api = MemoryApi()
    of_others = pod(3)
    del of_others["metadata"]["labels"]
    for namespace, found in (("a", rollout(5)), ("b", service(2)), ("c", pod(1)), ("c", of_others)):
        found["metadata"]["namespace"] = namespace
        api.create(found)
    assert set(ask_cluster(api).bundles) == {f"{MODEL}/v5", f"{MODEL}/v2", f"{MODEL}/v1"}


def pod(number):
    """A pod of an InferenceService, whose init container copies a bundle."""
    initializer = {"name": "storage-initializer", "args": [address(number), "/mnt/models"]}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": f"p{number}", "namespace": "c",
            "labels": {"serving.kserve.io/inferenceservice": "bandwidth-predictor"},
        },
        "spec": {"initContainers": [initializer]},
    }  # fmt: skip


def test_what_a_pod_serves_while_the_next_one_does_not_get_ready_is_in_use():
    used = used_on_cluster([], [service(5)], [pod(2), pod(5)])
    assert fates(FIVE, used)["v2"] == "InUse"
    assert fates(FIVE, used)["v3"] == "Outdated"


class TestStores:
    """Real stores: a directory, and a fake of S3."""

    pytestmark = pytest.mark.slow

    @pytest.fixture(params=["s3", "path"])
    def prefix(self, request, tmp_path):
        if request.param == "s3":
            return request.getfixturevalue("bucket").address("models")
        return str(tmp_path / "store")

    @pytest.fixture
    def filled(self, prefix, tmp_path):
        """A store with three versions, and something that is no bundle."""
        for number in (1, 2, 3):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), prefix)
        return prefix

    def versions(self, prefix):
        return {each.version for each in list_store(prefix)}

    def test_what_is_there_is_listed(self, filled, bucket, tmp_path):
        if filled.startswith("s3"):
            bucket.put(f"models/{MODEL}/v4/model.onnx", b"unfinished")
            bucket.put("models/readme.txt", b"")
        else:
            unfinished = tmp_path / "store" / MODEL / "v4"
            unfinished.mkdir()
            (unfinished / "model.onnx").write_bytes(b"unfinished")
            (tmp_path / "store/readme.txt").write_text("")
        found = {each.version: each for each in list_store(filled)}
        assert found.keys() == {"v1", "v2", "v3", "v4"}
        assert found["v4"].fault
        assert found["v3"].address == f"{filled}/{MODEL}/v3"
        assert len({found[name].digest for name in ("v1", "v2", "v3")}) == 3
        assert found["v1"].trained is not None

    def test_one_is_removed_whole(self, filled, bucket, tmp_path):
        first = next(each for each in list_store(filled) if each.version == "v1")
        assert first.written is not None
        remove(first)
        assert self.versions(filled) == {"v2", "v3"}
        assert bucket.keys(f"models/{MODEL}/v1") == []
        if not filled.startswith("s3"):
            assert {path.name for path in (tmp_path / "store" / MODEL).iterdir()} == {"v2", "v3"}

    def test_a_removal_that_is_interrupted_leaves_no_bundle(self, bucket, tmp_path, monkeypatch):
        prefix = bucket.address("models")
        push(make_bundle(tmp_path / "made", MODEL, "v1", reports=True), prefix)
        (only,) = list_store(prefix)

        def killed(self):
            raise KeyboardInterrupt

        monkeypatch.setattr("dwcp_ml.storage.remote_objects.Remote.exists", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(only)
        assert MANIFEST_NAME not in str(bucket.keys())
        assert bucket.keys()

    def test_a_store_that_is_not_there_is_an_error(self, bucket, tmp_path):
        for prefix in (str(tmp_path / "none"), "s3://there-is-none/m", bucket.address("m")):
            with pytest.raises(UsageError, check=coded(ErrorCode.MISSING)):
                list_store(prefix)

    @pytest.mark.parametrize("change", ["missing", "size", "extra"])
    def test_a_damaged_one_does_not_count(self, filled, bucket, tmp_path, change):
        name = f"{MODEL}/v3/{'extra' if change == 'extra' else 'model.onnx'}"
        if filled.startswith("s3"):
            key = f"models/{name}"
            bucket.remove(key) if change == "missing" else bucket.put(key, b"other")
        elif change == "missing":
            (tmp_path / "store" / name).unlink()
        else:
            (tmp_path / "store" / name).write_bytes(b"other")
        decisions = plan(list_store(filled), Used(), Policy(1, timedelta()), datetime.now(UTC))
        fates = {each.item.version: each.fate.value for each in decisions}
        assert fates == {"v2": "Newest", "v1": "Outdated", "v3": "Damaged"}
        assert name.rpartition("/")[2] in decisions[-1].why

    def test_markers_of_folders_are_no_files(self, bucket, tmp_path):
        for key in ("models/", f"models/{MODEL}/", f"models/{MODEL}/v1/"):
            bucket.put(key, b"")
        push(make_bundle(tmp_path / "made", MODEL, "v1"), bucket.address("models"))
        (only,) = list_store(bucket.address("models"))
        assert (only.version, only.fault) == ("v1", "")

    def test_what_is_pushed_again_during_its_removal_is_not_half_removed(
        self, bucket, tmp_path, monkeypatch
    ):
        made, prefix = make_bundle(tmp_path / "made", MODEL, "v1"), bucket.address("models")
        push(made, prefix)
        (only,) = list_store(prefix)
        delete, removed = Remote.remove, []

        def again(self):
            delete(self)
            removed.append(self.address)
            if len(removed) == 1:
                push(made, prefix)

        monkeypatch.setattr(Remote, "remove", again)
        with pytest.raises(StorageError, check=coded(ErrorCode.CONFLICT)):
            remove(only)
        assert removed == [f"{only.address}/{MANIFEST_NAME}"]
        assert list_store(prefix)[0].fault == ""

    def test_what_was_written_since_it_was_listed_stays(self, filled, bucket, tmp_path):
        first = next(each for each in list_store(filled) if each.version == "v1")
        if filled.startswith("s3"):
            bucket.put(f"models/{MODEL}/v1/extra", b"new")
        else:
            (tmp_path / "store" / MODEL / "v1/extra").write_text("new")
        with pytest.raises(StorageError, check=coded(ErrorCode.CONFLICT)):
            remove(first)
        assert self.versions(filled) == {"v1", "v2", "v3"}

    def test_the_command_asks_the_cluster_and_removes_only_if_told_to(
        self, bucket, tmp_path, monkeypatch, capsys
    ):
        prefix = bucket.address("models")
        for number in (1, 2, 3, 4):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), prefix)
        api = MemoryApi()
        monkeypatch.setattr(client, "connect", lambda *arguments, **options: api)
        words = ["bundle", "prune", prefix, "--keep", "1", "--json", "--min-age", "0"]
        assert main([*words, "--delete"]) == 2, "no cluster uses it: it may be the wrong one"
        assert self.versions(prefix) == {"v1", "v2", "v3", "v4"}
        live = rollout(4)
        live["spec"]["candidate"]["storageUri"] = f"{prefix}/{MODEL}/v4"
        api.aside().create(live)
        assert main(words) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [each["fate"] for each in shown["bundles"]] == [
            "Newest", "PredecessorOfOneInUse", "Outdated", "Outdated",
        ]  # fmt: skip
        assert not shown["removed"]
        assert main([*words[:-2], "--delete"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert [each["fate"] for each in shown["bundles"]][2:] == ["Recent", "Recent"]
        assert self.versions(prefix) == {"v1", "v2", "v3", "v4"}
        assert main([*words, "--delete"]) == 0
        assert self.versions(prefix) == {"v3", "v4"}

    def test_each_of_several_clusters_is_asked(self, bucket, tmp_path, monkeypatch):
        prefix = bucket.address("models")
        for number in (1, 2, 3, 4):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), prefix)
        clusters = {"a": MemoryApi(), "b": MemoryApi()}
        monkeypatch.setattr(client, "connect", lambda path: clusters[path.name])
        words = [
            "bundle", "prune", prefix, "--keep", "1", "--min-age", "0", "--delete",
            "--kubeconfig", "a", "--kubeconfig", "b",
        ]  # fmt: skip
        for cluster, number in (("a", 4), ("b", 1)):
            assert main(words) == 2, "one of them names nothing of this store"
            live = rollout(number)
            live["spec"]["candidate"]["storageUri"] = f"{prefix}/{MODEL}/v{number}"
            clusters[cluster].aside().create(live)
        assert main(words) == 0
        assert self.versions(prefix) == {"v1", "v3", "v4"}

    def test_a_store_that_nothing_uses_is_pruned_only_if_told_so(
        self, bucket, tmp_path, monkeypatch
    ):
        prefix = bucket.address("models")
        for number in (1, 2):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), prefix)
        monkeypatch.setattr(client, "connect", lambda path: MemoryApi())
        words = ["bundle", "prune", prefix, "--keep", "1", "--min-age", "0", "--delete"]
        assert main(words) == 2
        assert main([*words, "--allow-unused"]) == 0
        assert self.versions(prefix) == {"v2"}

    def test_a_cluster_that_does_not_respond_stops_the_command(self, bucket, tmp_path, monkeypatch):
        prefix = bucket.address("models")
        for number in (1, 2):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), prefix)
        api = MemoryApi()

        def down(call):
            raise ApiUnavailable("no response")

        api.before = down
        monkeypatch.setattr(client, "connect", lambda *arguments, **options: api)
        assert main(["bundle", "prune", prefix, "--keep", "1", "--delete"]) == 1
        assert self.versions(prefix) == {"v1", "v2"}

    def test_on_one_machine_the_newest_run_and_the_rollouts_are_in_use(
        self, tmp_path, monkeypatch, capsys
    ):
        store, runs = tmp_path / "store", tmp_path / "runs"
        for number in range(1, 7):
            push(make_bundle(tmp_path / "made", MODEL, f"v{number}"), str(store))
        words = [
            "bundle", "prune", str(store), "--keep", "1", "--runs", str(runs), "--json", "--delete",
            "--min-age", "0",
        ]  # fmt: skip
        assert main(words) == 0
        assert self.versions(str(store)) == {f"v{number}" for number in range(1, 7)}, "no run yet"
        capsys.readouterr()

        session: Session = new_session(runs, run_options())
        shutil.copytree(tmp_path / "made" / MODEL / "v5", session.models / MODEL / "v5")
        session.publish()
        request = {"stable_bundle": str(store / MODEL / "v2"), "candidate_bundle": "/gone/v9"}
        directory = session.rollouts / "demo"
        directory.mkdir(parents=True)
        (directory / "spec.json").write_text(json.dumps(rollout_request(request)))
        assert main(words) == 0
        fates = {
            each["address"].rpartition("/")[2]: each["fate"]
            for each in json.loads(capsys.readouterr().out)["bundles"]
        }
        assert fates == {
            "v6": "Newest", "v5": "InUse", "v4": "PredecessorOfOneInUse", "v3": "Outdated",
            "v2": "InUse", "v1": "PredecessorOfOneInUse",
        }  # fmt: skip
        assert self.versions(str(store)) == {"v1", "v2", "v4", "v5", "v6"}


def rollout_request(run):
    """Return what a rollout on this machine stores of itself."""
    from dwcp_ml.rollout.spec import any_rollout

    options = {"telemetry": "t.csv", "requests_per_second": 1.0, **run}
    return {"rollout": any_rollout().model_dump(mode="json"), "run": options}
