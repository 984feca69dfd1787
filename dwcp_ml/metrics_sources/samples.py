"""Samples of Prometheus metrics -> the counters of one replica; the same for every source.

Nothing is guessed: a series that is missing, doubled, NaN or out of order is an error with a name,
because a zero in its place would look like a healthy server without traffic.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.rollout.observation import ArmSample, Histogram, ReplicaSample

STARTED: Final = "process_start_time_seconds"
REQUESTS: Final = "dwcp_requests_total"
SECONDS: Final = "dwcp_request_seconds_bucket"
INFO: Final = "dwcp_model_info"
FEATURES: Final = "dwcp_feature_bucket"
PREDICTIONS: Final = "dwcp_prediction_bucket"

_SKETCHES: Final = {FEATURES: "feature", PREDICTIONS: "output"}
_CODE: Final = re.compile(r"[1-5][0-9][0-9]")
_LARGEST: Final = 2.0**53


class SourceError(DwcpError):
    """The metrics of a replica are missing, incomplete or contradictory."""


class Sample(NamedTuple):
    """One line of a metrics page, or one series of an instant query."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Expected:
    """What an arm must serve.

    Parameters
    ----------
    model
        Full name.
    version
        Of the model; a replica that serves another one does not belong to the arm.
    digest
        SHA-256 of the bundle's manifest; empty for any, the same on every replica.

    Raises
    ------
    UsageError
        If there is no such model.
    """

    model: str
    version: str
    digest: str = ""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UsageError(f"There is no model {self.model!r}: it is one of {', '.join(MODELS)}.")


@dataclass(frozen=True)
class Replica:
    """What one replica told, or why that can't be used.

    Parameters
    ----------
    name
        Its address.
    sample
        ``None`` where there is an error.
    digest
        Of the bundle that it serves.
    sketches
        ``feature:<name>`` or ``output:<name>`` -> distribution.
    error
        One sentence that names the replica.
    """

    name: str
    sample: ReplicaSample | None = None
    digest: str = ""
    sketches: Mapping[str, Histogram] | None = None
    error: str = ""


def replica_of(name: str, samples: Iterable[Sample], expected: Expected) -> Replica:
    """Return what the samples of one replica say about the expected model.

    Samples with a label ``mirrored="true"`` are passed over: nobody waited for those answers.

    Parameters
    ----------
    name
        Of the replica.
    samples
        May hold anything else, too.
    """
    try:
        series = _by_name(samples, expected.model)
        digest = _digest(series.get(INFO, []), expected)
        mine = {
            family: [each for each in found if each.labels.get("version") == expected.version]
            for family, found in series.items()
        }
        requests, errors = _requests(mine.get(REQUESTS, []), expected)
        return Replica(
            name,
            ReplicaSample(
                replica=name,
                started_at=_started_at(series.get(STARTED, [])),
                requests=requests,
                errors=errors,
                latency=_histogram(SECONDS, mine.get(SECONDS, [])),
            ),
            digest,
            _sketches(mine),
        )
    except SourceError as error:
        return Replica(name, error=f"{name}: {error}")


def arm_of(replicas: Iterable[Replica], expected: Expected) -> ArmSample:
    """Return the arm: the replicas that can be used, and the first reason why one can't.

    With an error the counts are not the whole arm: they are shown, and nothing is decided on them.
    """
    replicas = tuple(replicas)
    errors = [each.error for each in replicas if each.error]
    digests = sorted({each.digest for each in replicas if each.sample is not None})
    if not replicas:
        errors.append(f"nobody serves {expected.model} {expected.version}.")
    if len(digests) > 1:
        errors.append(f"the replicas serve different bundles: {', '.join(digests)}.")
    sketches: dict[str, Histogram] = {}
    try:
        sketches = _sum([each.sketches or {} for each in replicas])
    except SourceError as error:
        errors.append(str(error))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ArmSample(
        version=expected.version,
        digest=digests[0] if len(digests) == 1 else "",
        replicas=tuple(each.sample for each in replicas if each.sample is not None),
        error=f"{errors[0]}{more}" if errors else "",
        sketches=sketches,
    )


def _by_name(samples: Iterable[Sample], model: str) -> dict[str, list[Sample]]:
    wanted = {STARTED, REQUESTS, SECONDS, INFO, FEATURES, PREDICTIONS}
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        of_model = sample.name == STARTED or sample.labels.get("model") == model
        if sample.name in wanted and of_model and sample.labels.get("mirrored") != "true":
            found.setdefault(sample.name, []).append(sample)
    return found


def _digest(infos: list[Sample], expected: Expected) -> str:
    versions = {each.labels.get("version", ""): each for each in infos if each.value == 1.0}
    if not versions:
        raise SourceError(f"it tells nothing of {expected.model}.")
    if versions.keys() != {expected.version}:
        found = ", ".join(sorted(versions))
        raise SourceError(f"it serves {expected.model} {found}, not {expected.version}.")
    digest = versions[expected.version].labels.get("digest", "")
    if expected.digest and digest != expected.digest:
        raise SourceError(
            f"its bundle of {expected.model} {expected.version} has the digest "
            f"{digest or '(none)'}, not {expected.digest}."
        )
    return digest


def _started_at(samples: list[Sample]) -> float:
    if len(samples) != 1:
        raise SourceError(f"it tells {STARTED} {len(samples)} times, not once.")
    value = samples[0].value
    if not (math.isfinite(value) and value > 0):
        raise SourceError(f"its {STARTED} is {value}.")
    return value


def _requests(samples: list[Sample], expected: Expected) -> tuple[int, int]:
    """Return all requests and those answered with 5xx."""
    if not samples:
        raise SourceError(f"it has no {REQUESTS} of {expected.model} {expected.version}.")
    counts: dict[str, int] = {}
    for sample in samples:
        code = sample.labels.get("code", "")
        if not _CODE.fullmatch(code):
            raise SourceError(f"its {REQUESTS} has the code {code!r}.")
        if code in counts:
            raise SourceError(f"its {REQUESTS} of code {code} is there twice.")
        counts[code] = _count(REQUESTS, sample.value)
    errors = sum(count for code, count in counts.items() if code.startswith("5"))
    return sum(counts.values()), errors


def _count(name: str, value: float) -> int:
    if not (0.0 <= value <= _LARGEST and value.is_integer()):
        raise SourceError(f"its {name} is {value}, which is no count.")
    return int(value)


def _histogram(name: str, samples: list[Sample]) -> Histogram:
    buckets: dict[float, int] = {}
    for sample in samples:
        text = sample.labels.get("le", "")
        try:
            bound = float(text)
        except ValueError:
            bound = math.nan
        if math.isnan(bound) or bound in buckets:
            raise SourceError(f"its {name} has the bound {text!r} twice, or it is no number.")
        buckets[bound] = _count(name, sample.value)
    bounds = sorted(buckets)
    counts = tuple(buckets[bound] for bound in bounds)
    if not bounds or bounds[-1] != math.inf:
        raise SourceError(f"its {name} is not complete: there is no bucket +Inf.")
    if any(later < sooner for sooner, later in itertools.pairwise(counts)):
        raise SourceError(f"the counts of its {name} fall from one bucket to the next.")
    return Histogram(edges=tuple(bounds[:-1]), counts=counts)


def _sketches(series: Mapping[str, list[Sample]]) -> dict[str, Histogram]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for family, label in _SKETCHES.items():
        for sample in series.get(family, []):
            key = f"{label}:{sample.labels.get(label, '')}"
            groups.setdefault((key, family), []).append(sample)
    return {key: _histogram(family, found) for (key, family), found in groups.items()}


def _sum(parts: list[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Add the sketches of several replicas.

    Raises
    ------
    SourceError
        If their buckets differ.
    """
    total: dict[str, Histogram] = {}
    for part in parts:
        for name, histogram in part.items():
            before = total.get(name)
            if before is None:
                total[name] = histogram
                continue
            if before.edges != histogram.edges:
                raise SourceError(f"the replicas count {name} in different buckets.")
            counts = zip(before.counts, histogram.counts, strict=True)
            total[name] = Histogram(edges=before.edges, counts=tuple(map(sum, counts)))
    return total
