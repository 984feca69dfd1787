"""Samples of Prometheus metrics -> the counters of one replica; the same for every source.

Nothing is guessed: a series that is missing, duplicated, NaN or out of order is an error that
names it, because a zero in its place would look like a healthy server without traffic.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import sub
from typing import Final, NamedTuple

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.rollout.observation import (
    ArmSample,
    BucketCounts,
    Histogram,
    ReplicaSample,
)

STARTED: Final = "process_start_time_seconds"
REQUESTS: Final = "dwcp_requests_total"
SECONDS: Final = "dwcp_request_seconds_bucket"
INFO: Final = "dwcp_model_info"
FEATURES: Final = "dwcp_feature_bucket"
PREDICTIONS: Final = "dwcp_prediction_bucket"
FIRST_PREDICTIONS: Final = "dwcp_request_prediction_bucket"
LOSSES: Final = "dwcp_reported_loss_bucket"
KEPT: Final = "dwcp_kept_requests"

FAMILIES: Final = (REQUESTS, SECONDS, INFO, FIRST_PREDICTIONS, LOSSES, KEPT)
"""What is read of each replica, besides the sketches."""

_SKETCHES: Final = {FEATURES: "feature", PREDICTIONS: "output"}
_CODE: Final = re.compile(r"[1-5][0-9][0-9]")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
MAX_PORT: Final = 65535
_MAX_EXACT: Final = 2.0**53


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
    version
        Of the model; a replica that serves another version does not belong to the arm.
    digest
        SHA-256 of the bundle's manifest; if empty, any digest that all replicas share.

    Raises
    ------
    UsageError
        If the model is unknown.
    """

    model: str
    version: str
    digest: str = ""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UsageError(
                f"There is no model {self.model!r}: it is one of {', '.join(MODELS)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=self.model,
            )


@dataclass(frozen=True)
class Replica:
    """The counters of one replica, or why they can't be used.

    Parameters
    ----------
    sample
        ``None`` where there is an error.
    digest, contract
        Of the served bundle, and of its inputs and outputs; the latter is empty if the server does
        not report it.
    requests_port
        As of an ``ArmSample``.
    sketches
        ``feature:<name>`` or ``output:<name>`` -> distribution.
    """

    name: str
    sample: ReplicaSample | None = None
    digest: str = ""
    contract: str = ""
    requests_port: int = 0
    sketches: Mapping[str, Histogram] | None = None
    error: str = ""


def replica_of(name: str, samples: Iterable[Sample], expected: Expected) -> Replica:
    """Return the counters of one replica for the expected model.

    Samples with a label ``mirrored="true"`` are ignored: no client waited for those responses.

    Parameters
    ----------
    samples
        Other metrics are ignored.
    """
    try:
        series = _by_name(samples, expected.model)
        info = _info(series.get(INFO, []), expected)
        of_version = {
            family: [each for each in group if each.labels.get("version") == expected.version]
            for family, group in series.items()
        }
        requests, errors, rejected = _requests(of_version.get(REQUESTS, []), expected)
        return Replica(
            name,
            ReplicaSample(
                replica=name,
                started_at=_started_at(series.get(STARTED, [])),
                requests=requests,
                errors=errors,
                rejected=rejected,
                latency=_histogram(SECONDS, of_version.get(SECONDS, [])),
                predictions=_buckets(FIRST_PREDICTIONS, of_version.get(FIRST_PREDICTIONS, [])),
                losses=_losses(series.get(LOSSES, [])),
            ),
            info.labels.get("digest", ""),
            info.labels.get("contract", ""),
            _requests_port(of_version.get(KEPT, [])),
            _sketches(of_version),
        )
    except SourceError as error:
        return Replica(name, error=f"{name}: {error}")


def arm_of(replicas: Iterable[Replica], expected: Expected) -> ArmSample:
    """Return the arm: the usable replicas, and the first reason why another one is not.

    With an error the counts are incomplete: they are displayed, and no decision uses them.
    """
    replicas = tuple(replicas)
    errors = [each.error for each in replicas if each.error]
    digests = sorted({each.digest for each in replicas if each.sample is not None})
    contracts = sorted({each.contract for each in replicas if each.sample is not None})
    if not replicas:
        errors.append(f"No replica serves {expected.model} {expected.version}.")
    if len(digests) > 1:
        errors.append(f"The replicas serve different bundles: {', '.join(digests)}.")
    sketches: dict[str, Histogram] = {}
    try:
        sketches = _sum([each.sketches or {} for each in replicas])
    except SourceError as error:
        errors.append(str(error))
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return ArmSample(
        version=expected.version,
        digest=digests[0] if len(digests) == 1 else "",
        contracts=tuple(contracts),
        requests_port=max((each.requests_port for each in replicas), default=0),
        replicas=tuple(each.sample for each in replicas if each.sample is not None),
        error=f"{errors[0]}{more}" if errors else "",
        sketches=sketches,
    )


def _by_name(samples: Iterable[Sample], model: str) -> dict[str, list[Sample]]:
    families = {STARTED, *FAMILIES, *_SKETCHES}
    series: dict[str, list[Sample]] = {}
    for sample in samples:
        of_model = sample.name == STARTED or sample.labels.get("model") == model
        if sample.name in families and of_model and sample.labels.get("mirrored") != "true":
            series.setdefault(sample.name, []).append(sample)
    return series


def _info(infos: list[Sample], expected: Expected) -> Sample:
    """Return what a replica reports of the bundle that it serves."""
    versions = {each.labels.get("version", ""): each for each in infos if each.value == 1.0}
    if not versions:
        raise SourceError(f"it has no {INFO} of {expected.model}.")
    if versions.keys() != {expected.version}:
        served = ", ".join(sorted(versions))
        raise SourceError(f"it serves {expected.model} {served}, not {expected.version}.")
    info = versions[expected.version]
    digest = info.labels.get("digest", "")
    if expected.digest and digest != expected.digest:
        raise SourceError(
            f"its bundle of {expected.model} {expected.version} has the digest "
            f"{digest or '(none)'}, not {expected.digest}."
        )
    return info


def _started_at(samples: list[Sample]) -> float:
    if len(samples) != 1:
        raise SourceError(f"it has {STARTED} {len(samples)} times, not once.")
    value = samples[0].value
    if not (math.isfinite(value) and value > 0):
        raise SourceError(f"its {STARTED} is {value}.")
    return value


def _requests(samples: list[Sample], expected: Expected) -> tuple[int, int, int]:
    """Return the number of requests, of those that failed, and of those with a 4xx response.

    A client that left before it had one counts as code 499, a 4xx; its time is in the histogram.
    """
    if not samples:
        raise SourceError(f"it has no {REQUESTS} of {expected.model} {expected.version}.")
    counts: dict[str, int] = {}
    for sample in samples:
        code = sample.labels.get("code", "")
        if not _CODE.fullmatch(code):
            raise SourceError(f"its {REQUESTS} has the code {code!r}.")
        if code in counts:
            raise SourceError(f"its {REQUESTS} of code {code} is duplicated.")
        counts[code] = _count(REQUESTS, sample.value)
    errors, rejected = (
        sum(count for code, count in counts.items() if code.startswith(first)) for first in "54"
    )
    return sum(counts.values()), errors, rejected


def _count(name: str, value: float) -> int:
    if not (0.0 <= value <= _MAX_EXACT and value.is_integer()):
        raise SourceError(f"its {name} is {value}, which is not a count.")
    return int(value)


def _requests_port(samples: list[Sample]) -> int:
    """Return where a replica hands out the requests that it keeps; 0 if it keeps none."""
    port = samples[0].labels.get("port", "") if samples else ""
    return int(port) if _PORT.fullmatch(port) and int(port) <= MAX_PORT else 0


def _histogram(name: str, samples: list[Sample]) -> Histogram:
    buckets: dict[float, int] = {}
    for sample in samples:
        text = sample.labels.get("le", "")
        try:
            bound = float(text)
        except ValueError:
            bound = math.nan
        if math.isnan(bound) or bound in buckets:
            raise SourceError(f"its {name} has the bound {text!r} twice, or it is not a number.")
        buckets[bound] = _count(name, sample.value)
    bounds = sorted(buckets)
    counts = tuple(buckets[bound] for bound in bounds)
    if not bounds or bounds[-1] != math.inf:
        raise SourceError(f"its {name} is incomplete: it has no bucket +Inf.")
    if any(upper < lower for lower, upper in itertools.pairwise(counts)):
        raise SourceError(f"the counts of its {name} decrease from one bucket to the next.")
    return Histogram(edges=tuple(bounds[:-1]), counts=counts)


def _losses(samples: list[Sample]) -> dict[str, BucketCounts]:
    """Return version -> losses that were reported to a replica."""
    versions: dict[str, list[Sample]] = {}
    for sample in samples:
        versions.setdefault(sample.labels.get("version", ""), []).append(sample)
    found = {version: _buckets(LOSSES, group) for version, group in versions.items()}
    return {version: counts for version, counts in found.items() if counts is not None}


def _buckets(name: str, samples: list[Sample]) -> BucketCounts | None:
    """Return the counts of a histogram in a replica; ``None`` if it has none of that name."""
    if not samples:
        return None
    histogram = _histogram(name, samples)
    bounds = [f"{edge:g}" for edge in histogram.edges] + ["+Inf"]
    outputs = sorted({sample.labels.get("output", "") for sample in samples})
    text = ",".join([*outputs, *bounds])
    single = map(sub, histogram.counts, (0, *histogram.counts))
    counts = {bound: count for bound, count in zip(bounds, single, strict=True) if count}
    return BucketCounts(buckets=hashlib.sha256(text.encode()).hexdigest()[:12], counts=counts)


def _sketches(series: Mapping[str, list[Sample]]) -> dict[str, Histogram]:
    groups: dict[tuple[str, str], list[Sample]] = {}
    for family, label in _SKETCHES.items():
        for sample in series.get(family, []):
            key = f"{label}:{sample.labels.get(label, '')}"
            groups.setdefault((key, family), []).append(sample)
    return {key: _histogram(family, group) for (key, family), group in groups.items()}


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
                raise SourceError(f"The replicas count {name} in different buckets.")
            counts = zip(before.counts, histogram.counts, strict=True)
            total[name] = Histogram(edges=before.edges, counts=tuple(map(sum, counts)))
    return total
