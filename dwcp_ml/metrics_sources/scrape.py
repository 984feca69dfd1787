"""Reads an arm's counters from the ``/metrics`` page of each of its servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.http_client import MAX_BYTES, HttpError, get, request
from dwcp_ml.metrics_sources.samples import (
    Expected,
    Replica,
    Sample,
    SourceError,
    arm_of,
    replica_of,
)  # fmt: skip
from dwcp_ml.rollout.observation import ArmSample

TIMEOUT_SECONDS: Final = 2.0
_MAX_CONCURRENT: Final = 8
_TEXT: Final = {"Accept": "text/plain; version=0.0.4"}


class MetricsPages:
    """The metrics pages of one arm's replicas.

    Parameters
    ----------
    servers
        ``host:port`` or ``http://host:port`` of each replica, or the full address of its page.
    timeout_seconds
        For each page; they are read at the same time.
    max_bytes
        Of a page.

    Raises
    ------
    UsageError
        If there is no server, or a server is named twice.
    """

    def __init__(
        self,
        servers: Sequence[str],
        expected: Expected,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._pages = {server: _page(server) for server in servers}
        if not servers or len(set(self._pages.values())) < len(servers):
            raise UsageError(
                "Name each replica of the arm once, at least one.",
                code=ErrorCode.AMBIGUOUS,
                subject="replica",
            )
        self._expected = expected
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes

    def read(self) -> ArmSample:
        """Return the arm; a failure is in its ``error``."""
        with ThreadPoolExecutor(min(len(self._pages), _MAX_CONCURRENT)) as pool:
            return arm_of(pool.map(self._replica, self._pages), self._expected)

    def _replica(self, server: str) -> Replica:
        page = self._pages[server]
        try:
            body = get(page, self._timeout_seconds, headers=_TEXT, max_bytes=self._max_bytes)
            samples = list(parse(body))
        except (HttpError, SourceError) as error:
            return Replica(server, error=f"{server}: {error}")
        return replica_of(server, samples, self._expected)


def is_ready(server: str, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    """Return whether a server reports that it is ready; without a response it is not."""
    try:
        return request("GET", f"{_base(server)}/v2/health/ready", timeout_seconds).status == 200
    except HttpError:
        return False


def parse(page: bytes) -> Iterator[Sample]:
    """Yield the samples of a page in Prometheus's text format.

    Raises
    ------
    SourceError
        If the page is not in that format.
    """
    from prometheus_client.parser import text_string_to_metric_families

    try:
        for family in text_string_to_metric_families(page.decode()):
            for sample in family.samples:
                yield Sample(sample.name, sample.labels, float(sample.value))
    except Exception as error:  # the parser raises many types on invalid input
        raise SourceError(
            f"its page holds no metrics ({error!r:.200}).", code=ErrorCode.MALFORMED
        ) from error


def _base(server: str) -> str:
    return server.rstrip("/") if "//" in server else f"http://{server}"


def _page(server: str) -> str:
    base = _base(server)
    return base if "/" in base.partition("//")[2] else f"{base}/metrics"
