"""Reads an arm's counters from Prometheus: instant queries, raw counters, never ``rate()``.

All queries are evaluated at the same time. An instant query repeats a sample for minutes after the
last scrape: so the age of the samples is queried, too, by Prometheus's own clock.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.http_client import HttpError, HttpSession
from dwcp_ml.metrics_sources.samples import (
    FAMILIES,
    FEATURES,
    PREDICTIONS,
    STARTED,
    Expected,
    Replica,
    Sample,
    SourceError,
    arm_of,
    replica_of,
)
from dwcp_ml.rollout.observation import ArmSample

TIMEOUT_SECONDS: Final = 5.0
MAX_AGE_SECONDS: Final = 60.0

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SKETCHES: Final = (FEATURES, PREDICTIONS)


class PrometheusSource:
    """The counters of one arm in a Prometheus.

    Parameters
    ----------
    address
        ``http://host:port``, or the prefix of ``/api/v1``.
    matchers
        Label -> value; they must select all targets of this arm and no others, so that a replica
        that is down is known to be missing.
    max_age_seconds
        An older sample is an error; use a few scrape intervals.
    timeout_seconds
        Limit for all queries of one reading together.
    headers
        Sent with each query, such as an authorisation.

    Raises
    ------
    UsageError
        If a label or a value is invalid, or there is no matcher.
    """

    def __init__(
        self,
        address: str,
        expected: Expected,
        matchers: Mapping[str, str],
        *,
        instance_label: str = "instance",
        max_age_seconds: float = MAX_AGE_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        sketches: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not matchers:
            raise UsageError("Name the labels of the arm's targets, such as job=candidate.")
        for label in (instance_label, *matchers):
            if not _LABEL.fullmatch(label) or label.startswith("__"):
                raise UsageError(f"{label!r} is not the name of a Prometheus label.")
        if any("\ud800" <= letter <= "\udfff" for value in matchers.values() for letter in value):
            raise UsageError("The value of a matcher is not valid text.")
        self._address = address.rstrip("/")
        self._expected = expected
        self._targets = selector(matchers)
        families = FAMILIES + (_SKETCHES if sketches else ())
        self._counters = selector({"model": expected.model, **matchers}, families)
        self._instance_label = instance_label
        self._max_age_seconds = max_age_seconds
        self._timeout_seconds = timeout_seconds
        self._headers = dict(headers or {})

    def read(self) -> ArmSample:
        """Return the arm; a failure is in its ``error``."""
        try:
            with HttpSession() as http:
                return self._read(http)
        except (HttpError, SourceError) as error:
            return ArmSample(version=self._expected.version, error=f"Prometheus: {error}")

    def _read(self, http: HttpSession) -> ArmSample:
        deadline = time.monotonic() + self._timeout_seconds
        moment, up = self._query(http, f"up{self._targets}", deadline)
        if not up:
            raise SourceError(f"it has no target {self._targets}.", code=ErrorCode.MISSING)
        started = self._query(http, f"{STARTED}{self._targets}", deadline, moment)[1]
        scraped = self._query(http, f"timestamp({STARTED}{self._targets})", deadline, moment)[1]
        counters = self._query(http, self._counters, deadline, moment)[1]
        states, times = (
            self._by_instance(up, "up"),
            self._by_instance(scraped, "the time of its samples"),
        )
        samples: dict[str, list[Sample]] = {name: [] for name in states}
        for sample in started + counters:
            samples.setdefault(self._instance(sample), []).append(sample)
        return arm_of(
            (
                self._replica(name, group, states.get(name), times.get(name), float(moment))
                for name, group in sorted(samples.items())
            ),
            self._expected,
        )

    def _replica(
        self,
        name: str,
        samples: list[Sample],
        state: float | None,
        scraped: float | None,
        moment: float,
    ) -> Replica:
        error = ""
        if state != 1.0:
            error = "Prometheus can't scrape it." if state is not None else "it is not a target."
        elif scraped is None:
            error = f"it has no {STARTED}."
        elif not moment - scraped <= self._max_age_seconds:
            error = (
                f"its newest sample is {moment - scraped:.0f} s old, more than "
                f"{self._max_age_seconds:g} s."
            )
        if error:
            return Replica(name, error=f"{name}: {error}")
        return replica_of(name, samples, self._expected)

    def _by_instance(self, samples: list[Sample], what: str) -> dict[str, float]:
        by_name: dict[str, float] = {}
        for sample in samples:
            name = self._instance(sample)
            if name in by_name:
                raise SourceError(
                    f"it returned {what} of {name} twice: the matchers {self._targets} select more "
                    "than one target of that name."
                )
            by_name[name] = sample.value
        return by_name

    def _instance(self, sample: Sample) -> str:
        name = sample.labels.get(self._instance_label)
        if not name:
            raise SourceError(
                f"a series has no label {self._instance_label}.",
                code=ErrorCode.MISSING,
                subject=self._instance_label,
            )
        return name

    def _query(
        self, http: HttpSession, query: str, deadline: float, moment: str | None = None
    ) -> tuple[str, list[Sample]]:
        """Return when a query was evaluated, epoch seconds as text, and its samples."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise SourceError(
                f"it did not respond within {self._timeout_seconds:g} s.", code=ErrorCode.TIMEOUT
            )
        parameters = {"query": query, "timeout": f"{left:.3f}"}
        if moment is not None:
            parameters["time"] = moment
        url = f"{self._address}/api/v1/query?{urlencode(parameters)}"
        response = http.request("GET", url, left, headers=self._headers)
        return parse(response.status, response.body)


def selector(matchers: Mapping[str, str], names: tuple[str, ...] = ()) -> str:
    """Return a PromQL selector; values are quoted, so that any text is allowed."""
    parts = [f'__name__=~"{"|".join(names)}"'] if names else []
    # PromQL's strings are Go's, and every escape of JSON means the same in Go.
    parts += [
        f"{label}={json.dumps(value, ensure_ascii=False)}" for label, value in matchers.items()
    ]
    return f"{{{','.join(parts)}}}"


def parse(status: int, body: bytes) -> tuple[str, list[Sample]]:
    """Return the evaluation time and the samples of an instant query's response.

    Returns
    -------
    moment : str
        Evaluation time, epoch seconds; ``"0"`` without a sample.
    samples : list of Sample
        A value may be NaN or infinite.

    Raises
    ------
    SourceError
        If it is an error, a warning (part of the data may be missing), or not a vector.
    """
    try:
        response = json.loads(body)
    except ValueError:
        raise SourceError(
            f"it responded with {status} without JSON.",
            code=ErrorCode.MALFORMED,
            subject=str(status),
        ) from None
    if not isinstance(response, dict) or status != 200 or response.get("status") != "success":
        reason = response.get("error", "") if isinstance(response, dict) else ""
        raise SourceError(
            f"it responded with {status}: {str(reason)[:200] or 'no reason'}.",
            code=ErrorCode.STATUS,
            subject=str(status),
        )
    if response.get("warnings"):
        raise SourceError(
            f"its response may lack a part: {str(response['warnings'][0])[:200]}.",
            code=ErrorCode.INCOMPLETE,
        )
    try:
        data = response["data"]
        if data["resultType"] != "vector":
            raise SourceError(
                f"it responded with a {data['resultType']}, not a vector.",
                code=ErrorCode.WRONG_TYPE,
            )
        return _vector(data["result"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise SourceError(
            f"its response can't be read ({error!r:.100}).", code=ErrorCode.MALFORMED
        ) from error


def _vector(result: list[dict[str, Any]]) -> tuple[str, list[Sample]]:
    moments = {json.dumps(each["value"][0]) for each in result}
    if len(moments) > 1 or not all(math.isfinite(float(each)) for each in moments):
        raise SourceError("its response mixes evaluation times.", code=ErrorCode.AMBIGUOUS)
    samples = [
        Sample(each["metric"].get("__name__", ""), each["metric"], float(each["value"][1]))
        for each in result
    ]
    return next(iter(moments), "0"), samples
