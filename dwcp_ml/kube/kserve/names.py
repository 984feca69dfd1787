"""The names of what KServe makes of a predictor, and those of our own annotations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Final

from dwcp_ml.kube.kserve.router import ChangeRejected

VERSION: Final = "ml.dwcp.io/version"
DIGEST: Final = "ml.dwcp.io/digest"
TEMPLATE: Final = "ml.dwcp.io/template"
"""Annotation of a predictor: a hash of the template that it was made of.

Without it a field that was taken out of the template could not be told from one that KServe has
filled in.
"""
STABLE: Final = "ml.dwcp.io/stable"
"""Annotation of a candidate: what the stable was when it came, as JSON.

Our annotations stand in the predictor, not in the InferenceService: what stands there KServe hands
on to all pods, and a change would restart the stable for each candidate.
"""

MODE: Final = "serving.kserve.io/deploymentMode"
SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""Annotation of a pod template by KServe: the address of its bundle."""
STOPPED: Final = "serving.kserve.io/stop"
VISIBILITY: Final = "networking.kserve.io/visibility"
CLUSTER_LOCAL: Final = "cluster-local"

_LONGEST_LABEL: Final = 63
"""KServe makes a label of ``isvc.`` and a Deployment's name, and a host of that name, ``-`` and the
namespace; without room for it the service never gets ready."""
_HASH: Final = 8


def bare(digest: str) -> str:
    """Return a digest as servers and bundles write it: without the name of its algorithm."""
    return digest.removeprefix("sha256:")


def deployment_name(service: str, predictor: str) -> str:
    """Return the name of a predictor's Deployment and Service."""
    return f"{service}-{predictor}-predictor" if predictor else f"{service}-predictor"


def predictor_name(
    namespace: str, service: str, version: str, *, digest: str = "", taken: Collection[str] = ()
) -> str:
    """Return the name of a version's predictor in an InferenceService.

    Two versions never get the same: where letters had to be replaced, or the name is too long, a
    hash of the version stands at its end.

    Parameters
    ----------
    digest
        Of the bundle, to tell it from another one of the same version.
    taken
        Names of other predictors, which the candidate's can't be: under the same name KServe
        would change the pods of another bundle one by one.

    Raises
    ------
    ChangeRejected
        If the other names leave no room.
    """
    around = len(deployment_name(service, "-")) - 1 + max(len("isvc."), len(f"-{namespace}"))
    room = _LONGEST_LABEL - around
    if room < 1 + _HASH:
        raise ChangeRejected(
            f"the names of InferenceService {service} and namespace {namespace} are too long: "
            f"KServe makes names of over {_LONGEST_LABEL} letters of them."
        )
    cleaned = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")
    name = f"v{cleaned}"
    if cleaned != version or len(name) > room:
        name = _with_hash(name, version, room)
    if name in taken:
        name = _with_hash(name, bare(digest), room)
    return name


def _with_hash(name: str, text: str, room: int) -> str:
    short = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{name[: room - _HASH - 1].rstrip('-')}-{short}" if room > _HASH + 2 else f"v{short}"
