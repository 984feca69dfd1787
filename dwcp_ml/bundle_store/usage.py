"""What a cluster says of the bundles in a store: what is served, and what can't be known.

Every text of every ModelRollout and InferenceService counts, whatever its field is called: a
custom container may name its bundle in a variable or an argument, and a status names what the
spec does no longer. ``used_on_cluster`` is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, POD, Api, Gone, Object
from dwcp_ml.kube.kserve.objects import MODE_ANNOTATION, MODES, SERVICE_LABEL
from dwcp_ml.kube.manifests import MODEL_FORMAT
from dwcp_ml.storage.addresses import azure_account

ALL_MODELS: Final = ""
"""The key of what is unknown about every model."""

_ADDRESS: Final = re.compile(r"(?<![\w.-])(?:[A-Za-z][A-Za-z0-9+.-]*:/)?/[^\s\"'<>,;?#]+")
_BUNDLE: Final = re.compile(
    rf"(?<![A-Za-z0-9_])(?P<model>{'|'.join(MODELS)})/(?P<version>[A-Za-z0-9][A-Za-z0-9._+-]*)"
)
_DIGEST: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SLASHES: Final = re.compile(r"(?<!:)/(?:\./|/)+")


@dataclass(frozen=True)
class Stored:
    """One version in a store.

    Parameters
    ----------
    digest
        Empty if the bundle can't be read.
    trained
        When; ``None`` if that is unknown.
    written
        When the store last wrote a part of it; ``None`` if the store does not say.
    fault
        Why it can't be used, as a sentence.
    is_damaged
        Whether it has a manifest, but is not the bundle that the manifest describes.
    """

    model: str
    version: str
    address: str
    digest: str = ""
    trained: datetime | None = None
    written: datetime | None = None
    fault: str = ""
    is_damaged: bool = False


@dataclass
class Used:
    """What is served, or may be gone back to, and what could not be found out.

    Attributes
    ----------
    bundles
        ``<model>/<version>`` -> by whom it is used.
    addresses
        What else is named, in the form of ``normalized`` -> by whom.
    digests
        Digest of a bundle -> by whom it is used.
    unknown
        Full name of a model, or ``ALL_MODELS`` -> why its use is not known.
    """

    bundles: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def add(self, text: str, user: str) -> set[str]:
        """Add every bundle that a text names, and return their models."""
        self.digests |= dict.fromkeys(_DIGEST.findall(text), user)
        if "/" not in text:
            return set()
        plain = _SLASHES.sub("/", unquote(text))
        for address in map(normalized, _ADDRESS.findall(plain)):
            if address.strip("/"):  # the root of a file system says nothing
                self.addresses[address] = user
        models = set()
        for found in _BUNDLE.finditer(plain):
            models.add(found["model"])
            self.bundles[found[0]] = self.bundles[found[0].rstrip(".")] = user
        return models

    def join(self, other: Used) -> None:
        """Add what another cluster or machine uses."""
        self.bundles |= other.bundles
        self.addresses |= other.addresses
        self.digests |= other.digests
        self.unknown |= other.unknown

    def by(self, bundle: Stored) -> str:
        """Return who uses a bundle; empty for nobody.

        Its model and version are enough, because one bundle may be known by several addresses, and
        so is an address above the bundle, because a server there chooses a version itself.
        """
        own = normalized(bundle.address)
        parts = own.split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        return self.by_name(bundle) or next(
            (self.addresses[each] for each in above if each in self.addresses), ""
        )

    def by_name(self, bundle: Stored) -> str:
        """Return who names a bundle by its digest, or by its model and version."""
        return self.digests.get(bundle.digest, "") or self.bundles.get(
            f"{bundle.model}/{bundle.version}", ""
        )

    def has(self, prefix: str) -> bool:
        """Return whether anybody names an address in a store."""
        own = normalized(prefix)
        return any(each == own or each.startswith(f"{own}/") for each in self.addresses)


def normalized(address: str) -> str:
    """Return one form of the forms of an address, without a query and a fragment."""
    plain = unquote(re.split(r"[?#]", address, maxsplit=1)[0])
    if azure_account(plain) is not None:
        plain = f"az://{plain.split('/', 3)[-1]}"
    scheme, separator, rest = plain.rpartition("://")
    rest = _SLASHES.sub("/", rest).rstrip("/").removesuffix("/.")
    return f"{scheme.lower()}{separator}{rest}" if scheme not in ("", "file") else rest


def used_on_cluster(
    rollouts: Iterable[Object], services: Iterable[Object], pods: Iterable[Object] = ()
) -> Used:
    """Return what ModelRollouts, InferenceServices and their pods name, in any field.

    A pod may serve what the spec of its InferenceService named before: until the pods of a new
    address are ready, the earlier ones serve, and each that is restarted copies its bundle again.
    In Knative mode the spec of an InferenceService names the newest revision only. Unless that one
    has all traffic, or a ModelRollout says what the rest serves, the use of its model is unknown.
    So it is where the mode is not stated.
    """
    used = Used()
    known = set()
    for pod in pods:
        for _, text in _pairs(pod):
            used.add(text, f"Pod {'/'.join(_name(pod))}")
    for rollout in rollouts:
        namespace, name = _name(rollout)
        for _, text in _pairs(rollout):
            used.add(text, f"ModelRollout {namespace}/{name}")
        status = rollout.get("status")
        if isinstance(status, dict) and status.get("stable"):
            spec = rollout.get("spec") or {}
            known.add((namespace, spec.get("inferenceService") or name))
    for service in services:
        namespace, name = _name(service)
        user = f"InferenceService {namespace}/{name}"
        texts = list(_pairs(service))
        models = {model for _, text in texts for model in used.add(text, user)}
        if not models and ("name", MODEL_FORMAT) in texts:
            used.unknown[ALL_MODELS] = f"{user} does not say which model and version it serves."
        elif not _is_settled(service) and (namespace, name) not in known:
            used.unknown |= dict.fromkeys(
                models,
                f"{user} does not say that what its spec names has all traffic, and no "
                f"ModelRollout says which bundle is the stable one.",
            )
    return used


def ask_cluster(api: Api) -> Used:
    """Return what the whole cluster uses.

    Raises
    ------
    KubeError
        If it does not say: then nothing may be removed.
    """
    try:
        rollouts = api.list(MODEL_ROLLOUT)
    except Gone:  # a cluster without the operator
        rollouts = []
    services = api.list(INFERENCE_SERVICE)
    return used_on_cluster(rollouts, services, api.list(POD, labels=SERVICE_LABEL))


def _name(obj: Mapping[str, Any]) -> tuple[str, str]:
    metadata = obj.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _pairs(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the key and the value of every text in an object; in a list the key of the list."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            for inner_key, text in _pairs(inner):
                yield inner_key or key, text
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(inner)
    elif isinstance(value, str):
        yield "", value


def _is_settled(service: Object) -> bool:
    """Return whether what the spec of an InferenceService names has all traffic."""
    status = service.get("status") or {}
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    modes = {annotations.get(MODE_ANNOTATION), status.get("deploymentMode")} - {None, ""}
    if modes and modes <= set(MODES["Standard"]):
        return True
    if not modes or not modes <= set(MODES["Knative"]):
        return False
    predictor = (status.get("components") or {}).get("predictor") or {}
    newest = predictor.get("latestCreatedRevision")
    shares = {
        (each.get("revisionName"), each.get("percent"))
        for each in predictor.get("traffic") or ()
        if each.get("percent")
    }
    share = ((service.get("spec") or {}).get("predictor") or {}).get("canaryTrafficPercent", 100)
    return (
        bool(newest)
        and share == 100
        and predictor.get("latestReadyRevision") == newest
        and shares == {(newest, 100)}
    )
