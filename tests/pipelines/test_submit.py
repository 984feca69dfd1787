"""``dwcp-ml pipeline submit``: what is sent to a Kubeflow, and what is refused before."""

import os
import subprocess
import sys

import pytest
import yaml

from dwcp_ml.cli import main
from dwcp_ml.contract.errors import ErrorCode
from tests.errors import about
from tests.pipelines.conftest import CHAIN, PACKAGE
from tests.pipelines.fake_kubeflow import TOKEN, polls
from tests.pipelines.kubeflow_api import faults_of_request

pytestmark = pytest.mark.server

MODELS_IN_S3 = ("--argument", "storage_prefix=s3://models")
CLOSED = "http://127.0.0.1:9"


def cached(kubeflow):
    """Return name -> whether a task may come from the cache, of the run that was sent."""
    tasks = kubeflow.run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    return {
        name: task["cachingOptions"].get("enableCache", False)
        for name, task in tasks.items()
        if "cachingOptions" in task
    }


def test_the_package_goes_whole_with_arguments_account_and_experiment(submit, kubeflow, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    kubeflow.tokens = {TOKEN}
    code, out, err = submit(
        "--namespace", "models", "--experiment", "nightly", "--service-account", "runner",
        "--token-file", str(token), "--pipeline-root", "s3://runs/root", "--run-name", "first",
        "--argument", "seed=7", "--argument", "strict=true", "--argument", "requests_per_second=50",
        "--argument", 'model_options={"bandwidth_predictor": {"epochs": 3}}',
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out == f"run first: {kubeflow.address}/#/runs/details/run-1\n"
    spec, platform = yaml.safe_load_all(PACKAGE.read_text())
    sent = kubeflow.run
    assert (sent["display_name"], sent["service_account"]) == ("first", "runner")
    assert sent["runtime_config"] == {
        "parameters": {
            "seed": 7, "strict": True, "requests_per_second": 50.0,
            "model_options": {"bandwidth_predictor": {"epochs": 3}},
        },
        "pipeline_root": "s3://runs/root",
    }  # fmt: skip
    assert kubeflow.experiments["experiment-1"]["display_name"] == "nightly"
    assert kubeflow.experiments["experiment-1"]["namespace"] == "models"
    assert sent["experiment_id"] == "experiment-1"
    assert sent["pipeline_spec"]["platform_spec"] == platform
    assert sent["pipeline_spec"]["pipeline_spec"]["deploymentSpec"] == spec["deploymentSpec"]


def test_where_to_publish_goes_along(submit, kubeflow):
    where = ("--argument", "rollout_namespace=models")
    code, _, err = submit(*MODELS_IN_S3, *where, "--service-account", "dwcp-ml-pipeline")
    assert (code, err) == (0, "")
    assert kubeflow.run["runtime_config"]["parameters"] == {
        "rollout_namespace": "models", "storage_prefix": "s3://models",
    }  # fmt: skip
    assert kubeflow.run["service_account"] == "dwcp-ml-pipeline"


def test_it_sends_what_kubeflows_own_client_sends(submit, kubeflow):
    """``kfp.Client`` filters experiments in a way that the description forbids: it gets an id."""
    program = (
        "import sys, kfp\n"
        "client = kfp.Client(host=sys.argv[1])\n"
        "client.run_pipeline('experiment-1', 'n', sys.argv[2], params={'seed': 7}, "
        "service_account='s', enable_caching=False)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, kubeflow.address, str(PACKAGE)],
        check=True, capture_output=True, timeout=60, env={**os.environ, "HOME": "/nonexistent"},
    )  # fmt: skip
    theirs = kubeflow.sent("POST", "/runs")[0]
    assert (
        submit(
            "--run-name", "m", "--argument", "seed=7", "--service-account", "s", "--no-cache"
        )[0]
        == 0
    )  # fmt: skip
    ours = kubeflow.sent("POST", "/runs")[1]
    assert ours["experiment_id"] == theirs["experiment_id"]
    assert ours.pop("display_name") == "m"
    assert theirs.pop("display_name") == "n"
    assert ours.pop("description"), "by which its run is found"
    for body in (ours, theirs):
        parsed = body.pop("pipeline_spec")
        assert set(parsed) == {"pipeline_spec", "platform_spec"}
        tasks = parsed["pipeline_spec"]["root"]["dag"]["tasks"]
        assert not any(task.get("cachingOptions", {}).get("enableCache") for task in tasks.values())
    assert {key: value for key, value in ours.items() if value} == theirs


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--argument", "sede=7"), "did you mean 'seed'"),
        (("--argument", "seed"), "is not NAME=VALUE"),
        (("--argument", "seed=seven"), "seed=seven is not a whole number"),
        (("--argument", "seed=1.5"), "seed=1.5 is not a whole number"),
        (("--argument", "seed=-1"), "seed"),
        (("--argument", "requests_per_second=nan"), "is not a number"),
        (("--argument", "strict=maybe"), "strict=maybe is not true or false"),
        (("--argument", "model_options=[1]"), "is not a JSON object"),
        (("--argument", 'model_options={"bandwidth": {"epocs": 1}}'), "epocs"),
        (("--argument", "kserve_mode=raw"), "'standard' or 'knative'"),
        (("--argument", "packet_loss_unit=ppm"), "packet_loss_unit"),
        (("--argument", "export_formats=onxn"), "did you mean 'onnx'"),
        (("--argument", "seed=1", "--argument", "seed=2"), "is given twice"),
        (("--argument", "rollout_namespace=models"), "needs storage_prefix"),
        ((*MODELS_IN_S3, "--argument", "rollout_namespace=Models"), "is not a namespace"),
        (
            ("--argument", "rollout_namespace=m", "--argument", "storage_prefix=/mnt/models"),
            "is not a URI",
        ),
        (("--package", "/does/not/exist.yaml"), "compile it"),
        (("--token-file", "/does/not/exist"), "Can't read /does/not/exist"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(submit, kubeflow, words, sentence):
    code, out, err = submit(*words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert kubeflow.requests == []


@pytest.mark.parametrize(
    "host", ["localhost:8080", "ftp://kubeflow", "http://", "http://a:b", "http://x/?y=1"]
)
def test_what_is_no_address_is_refused(submit, kubeflow, failures, host):
    code, _, err = submit(host=host)
    assert (code, err.count("\n")) == (2, 1)
    assert about(ErrorCode.INVALID_ADDRESS, host)(failures[-1])


def test_no_server_at_the_address_is_one_sentence_at_once(submit):
    code, out, err = submit(host=CLOSED)
    assert (code, out) == (1, "")
    assert err == "dwcp-ml: Kubeflow gave no response: connection refused.\n"


def test_a_login_page_is_one_sentence(submit, kubeflow, failures):
    kubeflow.faults = {("GET", "/runs"): [302]}
    code, _, err = submit()
    assert (code, err.count("\n")) == (1, 1)
    assert about(ErrorCode.STATUS, 302)(failures[-1])


def test_a_name_that_is_taken_is_refused(submit, kubeflow, failures):
    assert submit("--run-name", "once")[0] == 0
    assert submit("--run-name", "once")[0] == 2
    assert about(ErrorCode.ALREADY_EXISTS, "once")(failures[-1])
    assert len(kubeflow.runs) == 1


def test_an_answer_that_got_lost_does_not_make_a_second_run(submit, kubeflow):
    kubeflow.faults = {
        ("POST", "/runs"): ["lost"],
        ("GET", "/experiments"): [503, "dropped", "dropped"],
    }
    code, out, err = submit()
    assert code == 0
    assert list(kubeflow.runs) == ["run-1"]
    assert "run-1" in out
    assert err.count("Retrying in") == 2
    assert err.count("Looking for the run.") == 1
    assert "responded with 503: upstream connect error" in err


def test_the_cache_is_keyed_on_the_data(submit, kubeflow, tmp_path):
    """Simulated, named by md5, readable here: known. A path that only the cluster has: not."""
    assert submit()[0] == 0
    assert cached(kubeflow)["validate-data"] is True, "simulated data are known by their seed"
    assert cached(kubeflow)["evaluate"] is True
    assert not cached(kubeflow)["gate"]
    kubeflow.runs.clear()
    code, _, err = submit("--argument", "data_path=/data/t.parquet")
    assert (code, "validated again" in err) == (0, True)
    assert not cached(kubeflow)["validate-data"]
    assert cached(kubeflow)["evaluate"] is True, "keyed by the digest of what was validated"
    kubeflow.runs.clear()
    named = f"/data/t.parquet#md5={'a' * 32}"
    assert submit("--argument", f"data_path={named}")[0] == 0
    assert cached(kubeflow)["validate-data"] is True
    kubeflow.runs.clear()
    (tmp_path / "t.csv").write_text("content")
    assert submit("--argument", f"data_path={tmp_path / 't.csv'}")[0] == 0
    assert kubeflow.run["runtime_config"]["parameters"]["data_path"].endswith(
        "t.csv#md5=9a0364b9e99bb480dd25e1f0284c8555"
    )
    kubeflow.runs.clear()
    assert submit("--no-cache")[0] == 0
    assert not any(cached(kubeflow).values())


def test_a_data_window_reaches_the_run_and_leaves_a_directory_without_its_md5(
    submit, kubeflow, tmp_path
):
    """With the md5 all files of the directory would be read."""
    data = f"data_path={tmp_path}"
    assert submit("--argument", data, "--argument", "data_start=2026-02-30")[0] == 2
    assert not kubeflow.runs
    window = ("--argument", "data_start=2026-01-01", "--argument", "data_end=2026-02-01")
    assert submit("--argument", data, *window)[0] == 0
    sent = kubeflow.run["runtime_config"]["parameters"]
    assert (sent["data_path"], sent["data_start"]) == (str(tmp_path), "2026-01-01")
    assert sent["data_end"] == "2026-02-01"
    assert not cached(kubeflow)["validate-data"]
    kubeflow.runs.clear()
    assert submit("--argument", data)[0] == 0
    assert "#md5=" in kubeflow.run["runtime_config"]["parameters"]["data_path"]


def test_every_option_has_an_environment_variable(kubeflow, capsys, monkeypatch):
    kubeflow.script = polls(*CHAIN, ["rejected"])
    for name, value in {
        "HOST": kubeflow.address, "PACKAGE": str(PACKAGE), "EXPERIMENT": "from-environment",
        "SERVICE_ACCOUNT": "someone", "WAIT": "1", "POLL_SECONDS": "0.1", "ARGUMENT": "seed=3",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"DWCP_{name}", value)
    assert main(["pipeline", "submit"]) == 3
    capsys.readouterr()
    assert kubeflow.run["service_account"] == "someone"
    assert kubeflow.run["runtime_config"]["parameters"] == {"seed": 3}
    assert kubeflow.experiments["experiment-1"]["display_name"] == "from-environment"


def test_the_description_refuses_what_kubeflow_does_not_have():
    """The fake is no rubber stamp; the artifacts are what the released servers do not serve."""
    runs, json_ = "/apis/v2beta1/runs", {"Content-Type": "application/json"}
    good = b'{"display_name": "n", "pipeline_spec": {}, "runtime_config": {"parameters": {"a": 1}}}'
    assert faults_of_request("POST", runs, json_, good) == []
    for method, url, headers, body, sentence in (
        ("GET", "/apis/v2beta1/artifacts/17?view=DOWNLOAD", {}, b"", "there is no operation"),
        ("PUT", runs, json_, good, "there is no operation"),
        ("POST", runs, {}, good, "its Content-Type"),
        ("POST", runs, json_, b"no JSON", "is no V2beta1Run"),
        ("POST", runs, json_, b'{"display_nam": "n"}', "V2beta1Run has no display_nam"),
        ("POST", runs, json_, b'{"service_account": 1}', "body.service_account is no str"),
        ("POST", runs, json_, b'{"runtime_config": {"params": {}}}', "has no params"),
        ("POST", runs, json_, b'{"created_at": "now"}', "body.created_at is no time"),
        ("POST", runs, json_, b'{"state": "DONE"}', "not one of"),
        ("GET", runs + "?page_size=many", {}, b"", "is no integer"),
        ("GET", runs + "?limit=1", {}, b"", "has no limit"),
        ("GET", runs + "?filter=%7B%22predicates%22%3A1%7D", {}, b"", "predicates is no list"),
    ):
        (fault,) = faults_of_request(method, url, headers, body)
        assert sentence in fault
