"""Publishes what the gate approved: each bundle becomes the candidate of its ModelRollout.

Every model is published on its own, whatever the gate said of the whole run, as with the manifests.
First its bundle is copied to where the cluster reads it, and verified there; only then a
ModelRollout names it. An existing ModelRollout keeps everything but its candidate's bundle; a
missing one is created as the gate wrote it.

``check_destination``, ``parse_rollout``, ``desired_rollout`` and ``live_uri`` are pure; ``publish``
and ``publish_candidates`` call the API server.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import ModelSpec, model_spec
from dwcp_ml.files import write_text
from dwcp_ml.kube.api import MODEL_ROLLOUT, Api, ApiUnavailable, Conflict, Gone, Object
from dwcp_ml.kube.manifests import (
    ROLLOUT_FILE,
    manifests,
    model_rollout,
    parse_mode,
    storage_uri,
)
from dwcp_ml.rollout.status import Phase
from dwcp_ml.storage.addresses import claim_of, is_writable, scheme_of

MANAGER: Final = "dwcp-ml-pipeline"
"""The field manager of the published ModelRollouts."""

MAX_TRIES: Final = 6
FIRST_WAIT_SECONDS: Final = 0.5
"""Before the second try; each wait is twice the one before."""

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_MANIFEST_BYTES: Final = 65_536
_PARSE_ERRORS: Final = (
    yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, RecursionError,
)  # fmt: skip
"""What reading an untrusted document can raise."""

Say = Callable[[str], None]

Deliver = Callable[[str, str], None]
"""Full name of a model, and the approved digest of its bundle -> copies the bundle to where the
cluster reads it, and verifies it there; raises ``DwcpError`` if it can't be there."""


# pure


def check_destination(namespace: str, storage_prefix: str) -> None:
    """Check that there is a namespace to publish in, and an address that a cluster can read.

    Parameters
    ----------
    namespace
        Of the ModelRollouts; empty where nothing is published.
    storage_prefix
        Where the cluster finds the bundles.

    Raises
    ------
    UsageError
        If the namespace is invalid, or the bundles have no address.
    """
    if not namespace:
        return
    if _NAMESPACE.fullmatch(namespace) is None:
        raise UsageError(
            f"rollout_namespace '{namespace}' is not a namespace: use at most 63 lower-case "
            f"letters, digits and dashes."
        )
    if not storage_prefix:
        raise UsageError(
            f"rollout_namespace={namespace} needs storage_prefix: a cluster can't read the bundles "
            f"where the pipeline stores them."
        )
    if _URI.fullmatch(storage_prefix) is None:
        raise UsageError(
            f"storage_prefix '{storage_prefix}' is not a URI: write it like s3://bucket/models."
        )
    check_storage(storage_prefix)


def check_storage(prefix: str) -> None:
    """Check that bundles can be written to an address, and that KServe reads it.

    Raises
    ------
    UsageError
        If not.
    """
    scheme = scheme_of(prefix)
    if scheme in ("", "az", "file") or not is_writable(prefix):
        why = {
            "az": "KServe reads Azure as https://ACCOUNT.blob.core.windows.net/CONTAINER",
            "file": "a file is on one machine, not on the cluster",
            "": "a path is on one machine, not on the cluster",
        }.get(scheme, "a web server takes no bundles")
        raise UsageError(
            f"storage_prefix '{prefix}' can't hold bundles: {why}; write s3://, gs:// or pvc://.",
            code=ErrorCode.UNSUPPORTED,
            subject="storage_prefix",
        )
    if scheme == "pvc":
        claim_of(prefix)


def parse_rollout(text: str, spec: ModelSpec, version: str, storage_prefix: str) -> Object:
    """Return the ModelRollout of one model, without a namespace, as the gate wrote it.

    Only the digest and the mode are read from the text; the rest must equal what the gate writes.
    A user who can write to the artifact store therefore can't publish anything else.

    Raises
    ------
    UsageError
        If the text is not what the gate writes for this model and version.
    """
    invalid = UsageError(
        f"Its {ROLLOUT_FILE} is not what the gate writes for {spec.name} {version}."
    )
    try:
        document = yaml.safe_load(text)
        digest = _DIGEST.fullmatch(document["spec"]["candidate"]["digest"])
        mode = parse_mode(document["spec"]["template"]["deploymentMode"])
    except (*_PARSE_ERRORS, UsageError) as error:
        raise invalid from error
    if digest is None:
        raise invalid
    uri = storage_uri(storage_prefix, "", spec, version)
    expected = model_rollout(spec, version, uri, digest[1], mode)
    if document != expected:
        raise invalid
    return expected


def desired_rollout(existing: Object | None, approved: Object) -> Object | None:
    """Return the object to write; ``None`` where nothing changes.

    Parameters
    ----------
    existing
        The ModelRollout in the cluster, if there is one; everything but its candidate is kept, and
        the candidate's runtime, which the platform engineer chose.

    Raises
    ------
    DwcpError
        If the existing one is being deleted, or has another bundle of the same version: a version
        is never overwritten.
    """
    if existing is None:
        return approved
    if existing["metadata"].get("deletionTimestamp"):
        raise DwcpError(
            f"ModelRollout {approved['metadata']['name']} is being deleted: publish again when it "
            f"is gone."
        )
    spec, candidate = existing.get("spec"), approved["spec"]["candidate"]
    if not isinstance(spec, dict):
        return {**existing, "spec": approved["spec"]}
    former = spec.get("candidate")
    if isinstance(former, dict) and "runtime" in former:
        candidate = {**candidate, "runtime": former["runtime"]}
    if former == candidate:
        return None
    _check_not_overwritten(existing, candidate)
    return {**existing, "spec": {**spec, "candidate": candidate}}


def _check_not_overwritten(existing: Object, candidate: Object) -> None:
    status = existing.get("status")
    known = [existing["spec"].get("candidate"), existing["spec"].get("stable")]
    if isinstance(status, dict):
        known += [status.get("candidate"), status.get("stable")]
    for revision in known:
        if not isinstance(revision, dict) or revision.get("version") != candidate["version"]:
            continue
        digest = revision.get("digest")
        if digest and digest != candidate["digest"]:
            raise DwcpError(
                f"ModelRollout {existing['metadata']['name']} has the version "
                f"{candidate['version']} with another digest, {digest}: a version is never "
                f"overwritten; publish under another version.",
                code=ErrorCode.ALREADY_EXISTS,
                subject=candidate["version"],
            )


def live_uri(rollout: Object | None) -> str:
    """Return the address of the bundle that serves now, by the status of its ModelRollout.

    It is that of the promoted candidate, or of the stable while a candidate is under way; empty if
    nothing is live yet, or the status does not say it.
    """
    uri = _live(rollout).get("storageUri")
    return uri if isinstance(uri, str) else ""


def live_digest(rollout: Object | None) -> str | None:
    """Return the digest of that bundle, 64 hexadecimal digits; None if the status has none."""
    digest = _DIGEST.fullmatch(str(_live(rollout).get("digest")))
    return digest[1] if digest else None


def _live(rollout: Object | None) -> Object:
    status = (rollout or {}).get("status")
    if not isinstance(status, dict):
        return {}
    live = status.get("candidate" if status.get("phase") == Phase.PROMOTED else "stable")
    return live if isinstance(live, dict) else {}


# calling the API server


@dataclass(frozen=True)
class Published:
    """A candidate that a ModelRollout names.

    Parameters
    ----------
    sentence
        What was done.
    live_uri
        The bundle that served before; empty for none, or if it is unknown.
    """

    sentence: str
    live_uri: str


def publish(api: Api, approved: Object, sleep: Callable[[float], None] = time.sleep) -> Published:
    """Create a ModelRollout, or set the candidate of the existing one.

    After a conflict, or a write whose outcome is unknown, the object is read again.

    Raises
    ------
    DwcpError
        If the API server rejects it, or gives no response.
    """
    namespace, name = approved["metadata"]["namespace"], approved["metadata"]["name"]
    version = approved["spec"]["candidate"]["version"]
    seconds, left = FIRST_WAIT_SECONDS, MAX_TRIES
    while True:
        left -= 1
        try:
            existing = api.get(MODEL_ROLLOUT, namespace, name)
            desired = desired_rollout(existing, approved)
            live = live_uri(existing)
            if desired is None:
                sentence = f"ModelRollout {name} already has the candidate {version}."
            elif existing is None:
                api.create(desired)
                sentence = f"ModelRollout {name} was created with the candidate {version}."
            else:
                api.replace(desired)
                sentence = f"ModelRollout {name} was given the candidate {version}."
        except (Conflict, Gone, ApiUnavailable):
            if not left:
                raise
            sleep(seconds)
            seconds *= 2.0
        else:
            return Published(sentence, live)


def publish_candidates(  # noqa: PLR0913 - what the gate said, and where it goes
    directory: Path,
    namespace: str,
    api: Api,
    *,
    version: str,
    storage_prefix: str,
    verdict: str,
    deliver: Deliver,
    output: Path | None = None,
    say: Say = print,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Publish every model that the gate approved.

    Parameters
    ----------
    directory
        What the gate wrote: ``<model>/modelrollout.yaml`` of each approved model. If it approved
        none, the artifact store has no such directory.
    storage_prefix
        Where the cluster finds the bundles.
    deliver
        Copies the bundle of one model there.
    output
        Gets ``<model>/inferenceservice.yaml`` and ``<model>/modelrollout.yaml`` of each published
        model, the first as a canary of what is live; ``None`` for nothing.
    say
        Called with one sentence about each model.

    Raises
    ------
    UsageError
        If there is no destination.
    DwcpError
        If a model could not be published; the others were.
    """
    check_destination(namespace, storage_prefix)
    directories = sorted(path.parent for path in directory.glob(f"*/{ROLLOUT_FILE}"))
    if not directories:
        if verdict == "APPROVED":
            raise DwcpError("The gate said APPROVED, but left no ModelRollout to publish.")
        say("The gate approved no model: nothing is published.")
        return
    failures = []
    for source in directories:
        try:
            model = model_spec(source.name)
            approved = parse_rollout(_manifest(source), model, version, storage_prefix)
            candidate = approved["spec"]["candidate"]
            deliver(model.name, candidate["digest"].removeprefix("sha256:"))
            approved["metadata"]["namespace"] = namespace
            published = publish(api, approved, sleep)
            say(published.sentence)
            if output is not None:
                _write_manifests(output / model.name, model, approved, published.live_uri)
        except DwcpError as error:
            sentence = f"{source.name} was not published: {error}"
            say(sentence)
            failures.append(sentence)
    if failures:
        raise DwcpError(" ".join(failures))


def _write_manifests(directory: Path, model: ModelSpec, approved: Object, live: str) -> None:
    """Write both manifests of a published model; of what is live already there is no canary."""
    candidate = approved["spec"]["candidate"]
    uri = candidate["storageUri"]
    files = manifests(
        model,
        candidate["version"],
        uri,
        candidate["digest"].removeprefix("sha256:"),
        live if live != uri else "",
        parse_mode(approved["spec"]["template"]["deploymentMode"]),
    )
    for name, text in files.items():
        write_text(directory / name, text)


def _manifest(directory: Path) -> str:
    """Return the manifest of one model."""
    try:
        with (directory / ROLLOUT_FILE).open("rb") as stream:
            return stream.read(_MAX_MANIFEST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Its {ROLLOUT_FILE} can't be read.") from error
