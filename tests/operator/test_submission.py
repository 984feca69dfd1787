"""What a TrainingRun may have Kubeflow do with the operator's token."""

import pytest

from dwcp_ml.kubeflow.client import KubeflowError, RunRequest
from dwcp_ml.operator.app import kubeflow_of
from dwcp_ml.operator.policy import Policy
from dwcp_ml.operator.settings import OperatorSettings
from dwcp_ml.operator.submission import RestrictedKubeflow, refusal_of_run


def request(account="", **arguments):
    return RunRequest("n", "e", "ns", {}, arguments, service_account=account)


@pytest.mark.parametrize("account", ["", "pipeline-runner", "dwcp-ml-pipeline"])
def test_the_usual_accounts_are_allowed(account):
    assert refusal_of_run(request(account, data_path="s3://telemetry/x.parquet"), Policy()) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        request("cluster-admin"),
        request(data_path="https://169.254.169.254/latest"),
        request(incidents_path="http://example.com/x"),
        request(data_path="file:///etc/passwd"),
    ],
    ids=str,
)
def test_another_account_or_address_never_reaches_kubeflow(wrong):
    """The address is closed: a request would be an error without a status."""
    kubeflow = RestrictedKubeflow("http://127.0.0.1:9", None, Policy())
    with pytest.raises(KubeflowError, match="not allowed here") as rejection:
        kubeflow.submit(wrong)
    assert not rejection.value.transient


def test_an_account_is_allowed_by_the_setting():
    assert refusal_of_run(request("trainer"), Policy(pipeline_accounts=("trainer",))) == ""


def test_the_operator_uses_it():
    kubeflow = kubeflow_of(OperatorSettings(kubeflow="http://127.0.0.1:9"))
    assert isinstance(kubeflow, RestrictedKubeflow)
