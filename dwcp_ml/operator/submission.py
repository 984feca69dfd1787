"""Kubeflow as TrainingRuns may use it: accounts and addresses are compared with the allow-lists."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kubeflow.client import KubeflowApi, KubeflowError, RunRequest
from dwcp_ml.kubeflow.volumes import missing_volume
from dwcp_ml.operator.addresses import refusal_of_uri
from dwcp_ml.operator.policy import Policy
from dwcp_ml.storage.addresses import scheme_of, without_digest

_ADDRESSES: Final = {
    "data_path": "data.uri",
    "incidents_path": "data.incidentsUri",
    "storage_prefix": "storagePrefix",
}
"""Parameter of the pipeline -> the field of the TrainingRun that it comes from."""


class RestrictedKubeflow(KubeflowApi):
    """A Kubeflow that is asked for nothing that the policy does not allow.

    The operator submits runs with its own token, so Kubeflow can't tell who wrote a TrainingRun.
    """

    def __init__(self, address: str, token_file: Path | None, policy: Policy) -> None:
        super().__init__(address, token_file)
        self._policy = policy

    def check(self, request: RunRequest) -> None:
        """Check that the policy allows a run.

        Raises
        ------
        KubeflowError
            If it does not, as a rejection that no retry helps.
        """
        why = refusal_of_run(request, self._policy)
        if why:
            raise KubeflowError(why, HTTPStatus.FORBIDDEN)


def refusal_of_run(request: RunRequest, policy: Policy) -> str:
    """Return why a run is not allowed, in one sentence; empty if it is."""
    account = request.service_account
    if account and account not in policy.pipeline_accounts:
        known = ", ".join(policy.pipeline_accounts) or "none"
        return f"spec.serviceAccountName {account!r} is not allowed here; allowed: {known}."
    for parameter, field in _ADDRESSES.items():
        address = str(request.arguments.get(parameter) or "")
        why = _refusal_of_address(request, parameter, address, policy) if address else ""
        if why:
            return f"spec.{field} is not allowed here: {why}."
    return ""


def _refusal_of_address(request: RunRequest, parameter: str, address: str, policy: Policy) -> str:
    """Return why an address is not allowed; of a path only volumes of the pipeline are."""
    address, _ = without_digest(address)
    try:
        if scheme_of(address) not in ("", "file"):
            why = refusal_of_uri(address, policy.uri_schemes, policy.uri_hosts)
            if why:
                return why
        return missing_volume(request.pipeline, parameter, address)
    except UsageError as error:
        return str(error).rstrip(".")
