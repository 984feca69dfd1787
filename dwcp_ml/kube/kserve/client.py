"""Reads and writes of one InferenceService, on the condition that it is still what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import INFERENCE_SERVICE, Api, Conflict, Object
from dwcp_ml.kube.kserve.predictors import covers
from dwcp_ml.kube.kserve.router import ObservedTraffic


class Writer:
    """One InferenceService of an API server."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    def get(self) -> Object | None:
        """Return the InferenceService; ``None`` if there is none."""
        return self._api.get(INFERENCE_SERVICE, self._namespace, self._name)

    def unchanged(self, live: ObservedTraffic) -> Object | None:
        """Return the InferenceService as it was when ``live`` was read.

        Raises
        ------
        Conflict
            If it is another by now.
        """
        found = self.get()
        version = "" if found is None else found["metadata"]["resourceVersion"]
        if version != live.resource_version:
            raise Conflict(f"InferenceService {self._name} has changed since it was read.")
        return found

    def create(self, service: Object) -> None:
        """Create the InferenceService."""
        self._api.create(service)

    def replace(self, found: Object, spec: Mapping[str, Any]) -> bool:
        """Write a new spec, if it is one; return whether it was.

        The resourceVersion of ``found`` is the condition: whoever wrote since wins.
        """
        if covers(found["spec"], spec) and found["spec"].keys() == spec.keys():
            return False
        self._api.replace({**found, "spec": dict(spec)})
        return True


def check_share(percent: int) -> None:
    """Check a share of the traffic.

    Raises
    ------
    UsageError
        If it is none.
    """
    if not 0 <= percent <= 100:
        raise UsageError(f"a share of the traffic is 0 to 100 percent, not {percent}.")
