"""Hands what the gate approved to the cluster: each bundle becomes its ModelRollout's candidate.

Each model is handed over by itself, whatever the gate said of the whole run: what holds for its
manifests holds here. Of a ModelRollout that is there nothing but the candidate is changed; of one
that is not, the gate's is made.

``check_destination``, ``rollout_in`` and ``next_of`` are pure; ``offer`` and ``hand_over`` ask the
API server.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.models import ModelSpec, model_spec
from dwcp_ml.kube.api import MODEL_ROLLOUT, Api, Conflict, Gone, Object, Unavailable
from dwcp_ml.kube.manifests import ROLLOUT_FILE, model_rollout, parse_mode, storage_uri

MANAGER: Final = "dwcp-ml-pipeline"
"""The field manager of what is handed over."""

TRIES: Final = 6
FIRST_WAIT_SECONDS: Final = 0.5
"""Before the second try; each wait is twice the one before."""

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_LARGEST_BYTES: Final = 65_536
_NOT_OURS: Final = (
    yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, RecursionError,
)  # fmt: skip
"""What a document raises that somebody else wrote."""

Say = Callable[[str], None]


# pure


def check_destination(namespace: str, storage_prefix: str) -> None:
    """Refuse to hand over to nowhere, or what no cluster would find.

    Parameters
    ----------
    namespace
        Of the ModelRollouts; empty where nothing is handed over.
    storage_prefix
        Where the cluster finds the bundles.

    Raises
    ------
    UsageError
        If the namespace is none, or there is no address of the bundles.
    """
    if not namespace:
        return
    if _NAMESPACE.fullmatch(namespace) is None:
        raise UsageError(
            f"rollout_namespace '{namespace}' is no namespace: it has at most 63 lower-case "
            f"letters, digits and dashes."
        )
    if not storage_prefix:
        raise UsageError(
            f"rollout_namespace={namespace} needs storage_prefix: no cluster finds the bundles "
            f"where the pipeline leaves them."
        )
    if _ADDRESS.fullmatch(storage_prefix) is None:
        raise UsageError(
            f"storage_prefix '{storage_prefix}' is no address: write it like s3://bucket/models."
        )


def rollout_in(text: str, spec: ModelSpec, version: str, storage_prefix: str) -> Object:
    """Return the ModelRollout of one model, without a namespace, as the gate wrote it.

    Only its digest and its mode are taken from the text, so that whoever can write to the place of
    the artifacts can't hand over anything else.

    Raises
    ------
    UsageError
        If the text is not what the gate writes for this model and version.
    """
    refused = UsageError(
        f"its {ROLLOUT_FILE} is not what the gate writes for {spec.name} {version}."
    )
    try:
        document = yaml.safe_load(text)
        digest = _DIGEST.fullmatch(document["spec"]["candidate"]["digest"])
        mode = parse_mode(document["spec"]["template"]["deploymentMode"])
    except (*_NOT_OURS, UsageError) as error:
        raise refused from error
    if digest is None:
        raise refused
    uri = storage_uri(storage_prefix, "", spec, version)
    wanted = model_rollout(spec, version, uri, digest[1], mode)
    if document != wanted:
        raise refused
    return wanted


def next_of(found: Object | None, made: Object) -> Object | None:
    """Return what is to be written; ``None`` where nothing is.

    Parameters
    ----------
    found
        The ModelRollout that is there, if one is; all but its candidate stays as it is.
    made
        The gate's.

    Raises
    ------
    DwcpError
        If the one that is there is about to go.
    """
    if found is None:
        return made
    if found["metadata"].get("deletionTimestamp"):
        raise DwcpError(
            f"ModelRollout {made['metadata']['name']} is being deleted: hand over again when it "
            f"is gone."
        )
    spec, candidate = found.get("spec"), made["spec"]["candidate"]
    if not isinstance(spec, dict):
        return {**found, "spec": made["spec"]}
    if spec.get("candidate") == candidate:
        return None
    return {**found, "spec": {**spec, "candidate": candidate}}


# asking the API server


def offer(api: Api, made: Object, sleep: Callable[[float], None] = time.sleep) -> str:
    """Make a ModelRollout, or its candidate that of the one that is there; say which in a sentence.

    What others wrote meanwhile is read again, and so is an object of which it is not known whether
    a write was carried out.

    Raises
    ------
    DwcpError
        If the API server takes it not, or does not answer.
    """
    namespace, name = made["metadata"]["namespace"], made["metadata"]["name"]
    version = made["spec"]["candidate"]["version"]
    seconds, left = FIRST_WAIT_SECONDS, TRIES
    while True:
        left -= 1
        try:
            found = api.get(MODEL_ROLLOUT, namespace, name)
            wanted = next_of(found, made)
            if wanted is None:
                return f"ModelRollout {name} has the candidate {version}."
            if found is None:
                api.create(wanted)
                return f"ModelRollout {name} was made, with the candidate {version}."
            api.replace(wanted)
        except (Conflict, Gone, Unavailable):
            if not left:
                raise
            sleep(seconds)
            seconds *= 2.0
        else:
            return f"ModelRollout {name} got the candidate {version}."


def hand_over(
    manifests: Path,
    namespace: str,
    api: Api,
    *,
    version: str,
    storage_prefix: str,
    verdict: str,
    say: Say = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Hand over every model that the gate approved.

    Parameters
    ----------
    manifests
        What the gate wrote: ``<model>/modelrollout.yaml`` of each model that it approved. Where it
        approved none a cluster's store has no such directory.
    namespace
        Of the ModelRollouts.
    api
        With the rights of the pipeline.
    version
        The run's.
    storage_prefix
        Where the cluster finds the bundles.
    verdict
        The gate's, of the whole run.
    say
        Is told what became of each model.

    Raises
    ------
    UsageError
        If there is no destination.
    DwcpError
        If a model could not be handed over; the others were.
    """
    check_destination(namespace, storage_prefix)
    places = sorted(path.parent for path in manifests.glob(f"*/{ROLLOUT_FILE}"))
    if not places:
        if verdict == "APPROVED":
            raise DwcpError("the gate said APPROVED, and left no ModelRollout to hand over.")
        say("the gate approved no model: nothing is handed over.")
        return
    refused = []
    for place in places:
        try:
            made = rollout_in(_text(place), model_spec(place.name), version, storage_prefix)
            made["metadata"]["namespace"] = namespace
            say(offer(api, made, sleep))
        except DwcpError as error:
            sentence = f"{place.name} was not handed over: {error}"
            say(sentence)
            refused.append(sentence)
    if refused:
        raise DwcpError(" ".join(refused))


def _text(place: Path) -> str:
    """Return the manifest of one model."""
    try:
        with (place / ROLLOUT_FILE).open("rb") as stream:
            return stream.read(_LARGEST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"its {ROLLOUT_FILE} can't be read.") from error
