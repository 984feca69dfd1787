"""Where the champion of a run is, and what becomes of one that can't be compared with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from components.find_champions import find_champions
from dwcp_ml.bundle_store import push
from dwcp_ml.contract.bundle import ONNX_NAME, Manifest
from dwcp_ml.contract.champion import (
    ChampionCheck,
    ChampionSource,
    Lineage,
    NotCompared,
    difference_record,
)
from dwcp_ml.contract.comparison import ReferenceKind
from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.provenance import provenance
from dwcp_ml.export.verify import bundle_digest, open_bundle
from dwcp_ml.kube import client
from dwcp_ml.kube.api import AccessDenied
from dwcp_ml.training_run.champions import CHAMPIONS_VARIABLE, champions_of, compare, to_json
from dwcp_ml.training_run.options import run_options
from dwcp_ml.training_run.session import Session
from tests.errors import about
from tests.evaluation.cases import run
from tests.evaluation.conftest import bandwidth_case, good_records
from tests.export.bundles import replace_file
from tests.kube.publishing import NAMESPACE, existing_rollout
from tests.operator.memory_api import MemoryApi
from tests.serving.bundles import graph, make_bundle, report
from tests.training_run.test_previous_run import past_run

NAME, OUTPUT = "bandwidth_predictor", "next_throughput_mbps"


@pytest.fixture(scope="module")
def case():
    """Data, the predictions of a good challenger, and its evaluation."""
    data, prediction = bandwidth_case()
    training = good_records()[0].replace(form=data.form)
    evaluation, _ = run(data, {OUTPUT: prediction}, training)
    return data, {OUTPUT: prediction}, evaluation


@pytest.fixture
def champion(tmp_path):
    return make_bundle(tmp_path / "models", NAME, "v0")


def against(case, uri, *, digest=None, named=True, spec=BANDWIDTH, form=None, rule="not_worse"):
    data, predictions, evaluation = case
    evaluation = evaluation if form is None else evaluation.replace(form=form)
    source = ChampionSource(uri=str(uri), digest=digest, named=named)
    return compare(evaluation, data, predictions, spec, source, rule)


# comparing


@pytest.mark.slow
@pytest.mark.parametrize("place", ["path", "file", "s3"])
def test_the_live_bundle_predicts_the_new_test_split(case, champion, place, request):
    data, predictions, evaluation = case
    uri = champion if place == "path" else champion.as_uri()
    if place == "s3":
        uri = push(champion, request.getfixturevalue("bucket").address("models")).address
    found = against(case, uri, digest=bundle_digest(champion))
    session = onnxruntime.InferenceSession((champion / ONNX_NAME).read_bytes())
    (theirs,) = session.run([OUTPUT], {"features": data.test.inputs})
    mape = float(np.mean(np.abs(theirs - data.test.truth) / data.test.truth) * 100.0)
    record = found.champion.record
    assert record.metrics["mape_percent"] == pytest.approx(mape)
    links = data.test.series
    assert record.difference == difference_record(OUTPUT, theirs, predictions[OUTPUT], links)
    assert (record.version, record.digest) == ("v0", bundle_digest(champion))
    assert found.champion.source.uri == str(uri)
    assert found.champion.not_compared is None
    *others, last = found.comparisons
    assert tuple(others) == evaluation.comparisons
    assert (last.kind, last.passed) == (ReferenceKind.CHAMPION, True)
    assert found.notes == evaluation.notes, "the fake bundle does not say when its data were"


def changed_graph(path):
    replace_file(path, ONNX_NAME, (path / ONNX_NAME).read_bytes()[:-1] + b"\0")


def without_manifest(path):
    (path / "manifest.json").unlink()


def nothing_there(path):
    path.rename(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (changed_graph, NotCompared.INVALID),
        (without_manifest, NotCompared.UNREADABLE),
        (nothing_there, NotCompared.UNREADABLE),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_champion_that_can_not_be_read_is_a_note_and_no_comparison(
    case, champion, broken, reason, named
):
    broken(champion)
    found = against(case, champion, named=named)
    assert found.champion.not_compared is reason
    assert found.champion.source.named is named
    assert found.champion.record is None
    assert found.champion.version is None
    assert found.comparisons == case[2].comparisons
    assert found.notes[-1].endswith(found.champion.detail)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"digest": "0" * 64}, NotCompared.INVALID),
        ({"form": "bandwidth_class"}, NotCompared.OTHER_FORM),
        ({"spec": MODELS["consensus_latency"]}, NotCompared.OTHER_FORM),
        ({"spec": replace(BANDWIDTH, window=12)}, NotCompared.OTHER_CONTRACT),
        ({"spec": replace(BANDWIDTH, features=BANDWIDTH.features[::-1])},
         NotCompared.OTHER_CONTRACT),
    ],
)  # fmt: skip
def test_another_bundle_than_the_live_one_or_another_contract(case, champion, changes, reason):
    found = against(case, champion, **changes)
    assert found.champion.not_compared is reason
    assert found.comparisons == case[2].comparisons
    assert (found.champion.version is None) is (reason is NotCompared.INVALID)


@pytest.mark.parametrize("uri", ["oci://models/v0", "s3://key:secret@bucket/v0", "pvc://gone/v0"])
def test_an_address_that_can_not_be_used_is_unreadable_and_no_secret_is_kept(case, uri):
    found = against(case, uri)
    assert found.champion.not_compared is NotCompared.UNREADABLE
    assert "secret" not in found.to_json()


def test_a_champion_that_predicts_what_is_no_number_is_not_compared(case, tmp_path):
    """The logarithm of a negative number: the graph itself is valid."""
    from onnx import helper

    model = graph(BANDWIDTH)
    last = model.graph.node[-1]
    log = helper.make_node("Log", [f"{OUTPUT}_before"], [OUTPUT])
    subtract = helper.make_node("Sub", [f"{OUTPUT}_plain", "high"], [f"{OUTPUT}_before"])
    last.output[0] = f"{OUTPUT}_plain"
    model.graph.node.extend([subtract, log])
    bundle = make_bundle(tmp_path, NAME, "v0", model)
    assert against(case, bundle).champion.not_compared is NotCompared.NO_PREDICTIONS


# the lineage


def challenger_report(check, trigger="drift"):
    made = report(BANDWIDTH, "v1")
    data = made.data.replace(
        first_timestamp="2026-01-01T00:00:00Z", last_timestamp="2026-01-04T23:59:30.500Z"
    )
    return made.replace(
        data=data,
        evaluation=made.evaluation.replace(champion=check),
        export=made.export.replace(trigger=trigger),
    )


def finalized(root, made):
    destination = root / NAME / made.version
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(graph(BANDWIDTH).SerializeToString())
        return finalize_bundle(directory, destination, BANDWIDTH, made)


@pytest.mark.slow
def test_the_manifest_says_where_a_bundle_comes_from_and_the_next_run_reads_it(
    case, champion, tmp_path
):
    data, _, _ = case
    check = against(case, champion).champion
    bundle = finalized(tmp_path, challenger_report(check))
    found = open_bundle(bundle).manifest.provenance
    assert found.champion == check.record
    assert found.lineage.model_dump(mode="json") == {
        "parent_version": "v0", "parent_digest": bundle_digest(champion),
        "data_first": "2026-01-01T00:00:00Z", "data_last": "2026-01-04T23:59:30.500000Z",
        "trigger": "drift",
    }  # fmt: skip
    assert len(against(case, bundle).notes) == len(case[2].notes), "its data are of other years"
    made = challenger_report(None)
    first = made.data.replace(first_timestamp="1970-01-01T00:00:00Z")
    overlapping = finalized(tmp_path / "overlapping", made.replace(data=first))
    assert data.test.timestamp.max() < 1e6, "the test split is of 1970"
    assert len(against(case, overlapping).notes) == len(case[2].notes) + 1


def test_the_lineage_of_a_run_on_a_window_states_its_bounds():
    made = challenger_report(None)
    assert not {"data_start", "data_end"} & provenance(made).lineage.model_dump().keys()
    data = made.data.replace(data_start="2026-01-01T00:00:00Z", data_end="2026-01-05T00:00:00.250Z")
    lineage = provenance(made.replace(data=data)).lineage.model_dump(mode="json")
    assert lineage["data_start"] == "2026-01-01T00:00:00Z"
    assert lineage["data_end"] == "2026-01-05T00:00:00.250000Z"
    assert lineage["data_last"] == "2026-01-04T23:59:30.500000Z"


def test_of_a_champion_with_another_contract_the_lineage_remains():
    check = ChampionCheck(
        source=ChampionSource(uri="/v0", named=False), version="v0", digest="ab" * 32,
        not_compared=NotCompared.OTHER_CONTRACT,
    )  # fmt: skip
    found = provenance(challenger_report(check))
    assert found.champion is None
    assert (found.lineage.parent_version, found.lineage.parent_digest) == ("v0", "ab" * 32)


def test_a_first_bundle_has_no_champion_in_its_manifest():
    found = provenance(report(BANDWIDTH, "v0"))
    assert "champion" not in found.model_dump()
    assert found.lineage == Lineage()


def test_a_manifest_of_before_has_no_lineage(champion):
    stored = json.loads((champion / "manifest.json").read_text())
    del stored["provenance"]["lineage"]
    assert Manifest.model_validate(stored).provenance.lineage is None


@pytest.mark.parametrize("trigger", ["", " x", "-x", "a\nb", "<b>", "x" * 101, "ä"])
def test_a_trigger_is_short_and_plain(trigger):
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "trigger")):
        run_options(trigger=trigger)
    assert run_options(trigger="drift: rtt_ms@eu-1 2026-01-02").trigger


# finding


def test_on_one_machine_the_previous_bundle_is_the_champion_unless_one_is_named(
    tmp_path, monkeypatch
):
    past = past_run(tmp_path, "20260101-000000", {NAME: "APPROVED"})
    (tmp_path / "20260102-000000").mkdir()
    session = Session(tmp_path / "20260102-000000")

    def found(**options):
        return champions_of(session, run_options(models=NAME, **options))

    bundle = past.models / NAME / past.name
    assert found() == {NAME: ChampionSource(uri=str(bundle), named=False)}
    assert found(storage_prefix="s3://m") == found(), "the bundle on this machine is read"
    assert found(stable_uri="none") == {}
    monkeypatch.chdir(tmp_path)
    for given, uri in (("v0", str(tmp_path / "v0")), ("s3://m/v0", "s3://m/v0")):
        assert found(stable_uri=given) == {NAME: ChampionSource(uri=uri, named=True)}


@pytest.fixture
def api(monkeypatch):
    api = MemoryApi()
    monkeypatch.setattr(client, "connect", lambda **options: api)
    monkeypatch.delenv(CHAMPIONS_VARIABLE, raising=False)
    return api


def task(stable_uri="", namespace=NAMESPACE):
    return find_champions.python_func(
        stable_uri=stable_uri, models=",".join(MODELS), rollout_namespace=namespace
    )


def revision(version, digest="cd"):
    return {
        "storageUri": f"s3://m/{version}",
        "version": version,
        "digest": f"sha256:{digest * 32}",
    }


@pytest.mark.parametrize(
    ("status", "version"),
    [
        ({"phase": "Promoted", "candidate": revision("v2"), "stable": revision("v1")}, "v2"),
        ({"phase": "Progressing", "candidate": revision("v2"), "stable": revision("v1")}, "v1"),
        ({"phase": "Progressing", "candidate": revision("v2")}, ""),
        ({}, ""),
    ],
)
def test_on_a_cluster_the_live_bundle_is_the_champion(api, status, version):
    rollout = existing_rollout(api)
    api.aside().replace({**rollout, "status": status}, status=True)
    source = {"uri": f"s3://m/{version}", "digest": "cd" * 32, "named": False}
    assert task() == ({NAME: source} if version else {})
    named = {"uri": "s3://other/v9", "named": True}
    assert task(stable_uri=f"{NAME}=s3://other/v9") == {NAME: named}
    assert task(stable_uri="none") == {}
    assert task(namespace="") == {}


def test_if_it_is_unknown_what_is_live_the_task_fails(api, monkeypatch):
    def denied(*_):
        raise AccessDenied("no")

    monkeypatch.setattr(api, "get", denied)
    with pytest.raises(AccessDenied):
        task()


def test_the_pipeline_of_one_machine_gets_them_from_the_process_that_starts_it(api, monkeypatch):
    sources = {NAME: ChampionSource(uri=str(Path("/runs/v0")), named=False)}
    monkeypatch.setenv(CHAMPIONS_VARIABLE, json.dumps(to_json(sources)))
    assert task(stable_uri=f"{NAME}=pvc://dwcp-models/v0") == to_json(sources)
