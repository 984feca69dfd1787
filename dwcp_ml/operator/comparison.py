"""Requests that the stable has answered, sent to the candidate as well: pairs of predictions.

The stable's pods keep their newest requests and the predictions for them. The operator reads a
sample, sends it to the candidate's pods as mirrored copies, which count for nothing there, and
compares. The candidate needs no traffic for it, and no pod has to know another.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Annotated, Final, NamedTuple, Protocol
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from dwcp_ml.contract.champion import SCORES, ChampionRecord, DifferenceRecord
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import COMPARED_OUTPUTS, model_spec
from dwcp_ml.contract.record import Record
from dwcp_ml.http_client import HttpError, get
from dwcp_ml.kube.kserve import ObservedTraffic
from dwcp_ml.prediction_log.divergence import absolute, answer, score_difference, signed
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.serving.client import HttpClient, ResponseRefused
from dwcp_ml.serving.headers import CHAMPION_PATH, MAX_PAGE_VALUES, MIRRORED, REQUESTS_PATH

MAX_PAIRS: Final = 256
"""Of one reconciliation."""

MAX_PODS: Final = 8
"""Pods of the stable that are asked in one reconciliation, chosen at random."""

MAX_GONE: Final = 32
"""Pods that are not ready any more, of which the cursor says how far they were read."""

TIMEOUT_SECONDS: Final = 2.0
"""For each request."""

TOTAL_SECONDS: Final = 5.0
"""For all requests to the candidate in one reconciliation; the rest is left out."""

MAX_PAGE_BYTES: Final = 4_000_000
"""Of the kept requests of one pod; a server sends half of it at most."""

MAX_CHAMPION_BYTES: Final = 256_000

_MAX_COMMAS: Final = MAX_PAGE_VALUES + 8 * MAX_PAIRS
"""In a page: each value takes 32 bytes of memory once it is read, and two in the page."""

_ROWS: Final = 32
"""Instances in one request: few enough to take the same way through the server as its own."""

_Number = Annotated[int, Field(ge=0)]
_CURSOR: Final = TypeAdapter(dict[str, tuple[FiniteFloat, _Number]])


class _Kept(Record):
    features: tuple[FiniteFloat, ...]
    prediction: FiniteFloat
    score: FiniteFloat | None = None
    rare: bool = False


class _Champion(Record):
    champion: ChampionRecord | None


class _Page(Record):
    """What a server of the stable hands out."""

    digest: str
    output: str
    started_at: FiniteFloat
    last: _Number
    too_large: bool = False
    requests: tuple[_Kept, ...] = Field(max_length=MAX_PAIRS)

    def kept(self) -> Iterator[_Request]:
        """Yield the requests, those that were kept for their rare answer last."""
        for each in sorted(self.requests, key=lambda each: each.rare):
            outputs = {self.output: each.prediction}
            if each.score is not None and self.output in SCORES:
                outputs[SCORES[self.output]] = each.score
            yield _Request(each.features, outputs, each.rare)


class _Request(NamedTuple):
    """A request, and what the stable has predicted, by the name of the output."""

    features: tuple[float, ...]
    stable: dict[str, float]
    rare: bool


@dataclass(frozen=True)
class Compared:
    """The pairs since the last reconciliation.

    Parameters
    ----------
    record
        How the gate found the candidate to differ from this stable; ``None`` if it compared it
        with no other, or with another.
    cursor
        How far each pod of the stable was read, for the next reconciliation.
    error
        Why there are not more, where something is wrong; empty if nothing is.
    """

    pairs: tuple[Pair, ...] = ()
    record: DifferenceRecord | None = None
    cursor: str = ""
    error: str = ""


class Comparison(Protocol):
    """Sends what the stable has answered to the candidate."""

    def read(
        self, spec: RolloutSpec, live: ObservedTraffic, ports: tuple[int, int], cursor: str
    ) -> Compared:
        """Return the pairs since the cursor.

        Parameters
        ----------
        spec
            The rollout; it has a stable.
        live
            With the addresses of the pods.
        ports
            Where the pods of the stable hand out the requests that they keep, and those of the
            candidate its champion; the latter is 0 if they do not.
        """
        ...


class PodComparison:
    """A ``Comparison`` over HTTP, at the addresses that the router found."""

    def read(
        self, spec: RolloutSpec, live: ObservedTraffic, ports: tuple[int, int], cursor: str
    ) -> Compared:
        """Return the pairs since the cursor."""
        stable, candidate = live.pods.get("stable", ()), live.pods.get("candidate", ())
        if not stable or not candidate:
            arm = "candidate" if stable else "stable"
            return Compared(cursor=cursor, error=f"no pod of the {arm} is ready.")
        try:
            record = _record(candidate[0], ports[1], spec) if ports[1] else None
        except DwcpError as error:
            return Compared(cursor=cursor, error=f"the candidate: {error}")
        kept, after, unread = _kept_since(stable, ports[0], spec, cursor)
        # In another order each time: few requests would else reach the first pod alone.
        pods = random.sample(candidate, len(candidate))
        pairs, fault = _compare(spec.model, kept, pods)
        return Compared(tuple(pairs), record, after, fault or unread)


def _kept_since(
    pods: Sequence[str], port: int, spec: RolloutSpec, cursor: str
) -> tuple[list[_Request], str, str]:
    """Return the requests since the cursor, the new cursor, and why no pod could be read.

    One pod that can't be read leaves the others: a sample of requests is enough.
    """
    known = _known(cursor, pods)
    asked = random.sample(sorted(pods), min(len(pods), MAX_PODS))
    limit = max(MAX_PAIRS // len(asked), 1)
    with ThreadPoolExecutor(len(asked)) as pool:
        pages = list(pool.map(lambda pod: _page(pod, port, spec, known.get(pod), limit), asked))
    errors = [page for page in pages if isinstance(page, str)]
    # Retries, and a caller that sends the same again and again, say the same once.
    kept: dict[tuple[float, ...], _Request] = {}
    for pod, page in zip(asked, pages, strict=True):
        if not isinstance(page, str):
            known[pod] = page.started_at, page.last
            for each in page.kept():
                kept.setdefault(each.features, each)
    unread = errors[0] if len(errors) == len(asked) else ""
    return list(kept.values()), _CURSOR.dump_json(known).decode(), unread


def _record(pod: str, port: int, spec: RolloutSpec) -> DifferenceRecord | None:
    """Return what the gate measured between the candidate and this stable; ``None`` for nothing.

    Raises
    ------
    DwcpError
        If the pod does not say, or not in this way.
    """
    url = _address(pod, port, CHAMPION_PATH, model=spec.model)
    body = get(url, TIMEOUT_SECONDS, max_bytes=MAX_CHAMPION_BYTES)
    try:  # fields of a newer release are ignored, here and in a page, and nowhere else
        champion = _Champion.model_validate_json(body, extra="ignore").champion
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DwcpError(f"{url} holds no champion: {where}.", code=ErrorCode.MALFORMED) from error
    of_this = champion and spec.stable is not None and champion.digest == spec.stable.digest
    return champion.difference if champion and of_this else None


def _address(pod: str, port: int, path: str, **query: str | int) -> str:
    host = pod.rpartition("//")[2].rpartition(":")[0]
    return f"http://{host}:{port}{path}?{urlencode(query)}"


def _known(cursor: str, pods: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Return how far pods were read, a few that are gone as well.

    One that was not ready for a while has its requests still, and they have been counted.
    """
    known = _parsed(cursor)
    gone = [pod for pod in known if pod not in pods]
    return {pod: place for pod, place in known.items() if pod not in gone[:-MAX_GONE]}


def _parsed(cursor: str) -> dict[str, tuple[float, int]]:
    """Return how far each pod was read; one that can't be read begins again."""
    try:
        return _CURSOR.validate_json(cursor) if cursor else {}
    except ValidationError:
        return {}


def _page(
    pod: str, port: int, spec: RolloutSpec, known: tuple[float, int] | None, limit: int
) -> _Page | str:
    """Return the requests that a pod kept since it was read last, or why there are none."""
    try:
        page = _fetch(pod, port, spec, known[1] if known else 0, limit)
        if known and page.started_at != known[0]:  # another process, which numbers from 1
            page = _fetch(pod, port, spec, 0, limit)
    except DwcpError as error:
        return str(error)
    return page


def _fetch(pod: str, port: int, spec: RolloutSpec, after: int, limit: int) -> _Page:
    url = _address(pod, port, REQUESTS_PATH, model=spec.model, after=after, limit=limit)
    body = get(url, TIMEOUT_SECONDS, max_bytes=MAX_PAGE_BYTES)
    if body.count(b",") > _MAX_COMMAS:
        raise DwcpError(
            f"{url} holds more than {MAX_PAGE_VALUES} values.", code=ErrorCode.TOO_LARGE
        )
    try:
        page = _Page.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DwcpError(
            f"{url} holds no requests of a server: {where or 'the page'} is wrong.",
            code=ErrorCode.MALFORMED,
        ) from error
    if spec.stable is not None and page.digest != spec.stable.digest:
        raise DwcpError(f"{url} is of another bundle than the stable's.", code=ErrorCode.CONTRACT)
    if page.too_large:
        raise DwcpError(
            f"{url} has none: a request has more than {MAX_PAGE_VALUES} values.",
            code=ErrorCode.TOO_LARGE,
        )
    widths = {len(each.features) for each in page.requests}
    wrong = len(widths) > 1 or any(_shape(spec.model, width) is None for width in widths)
    if wrong or page.output not in COMPARED_OUTPUTS[spec.model]:
        raise DwcpError(f"{url} is of another contract of {spec.model}.", code=ErrorCode.CONTRACT)
    return page


def _shape(model: str, width: int) -> tuple[int, ...] | None:
    """Return the shape of an instance of ``width`` values; a bundle may have a window of its own.

    ``None`` if no instance of the model has that number.
    """
    own = model_spec(model).input.shape
    if len(own) == 1:
        return own if width == own[0] else None
    steps, over = divmod(width, math.prod(own[1:]))
    return (steps, *own[1:]) if steps and not over else None


def _compare(
    model: str, kept: Sequence[_Request], candidate: Sequence[str]
) -> tuple[list[Pair], str]:
    """Return the pairs, and why they are not all of them; empty if they are."""
    if not kept:
        return [], ""
    shape = _shape(model, len(kept[0].features)) or ()
    rows = np.array([each.features for each in kept], np.float32).reshape(-1, *shape)
    deadline = time.monotonic() + TOTAL_SECONDS
    pairs: list[Pair] = []
    try:
        for pod, start in zip(cycle(candidate), range(0, len(kept), _ROWS)):
            chunk = slice(start, start + _ROWS)
            with HttpClient(pod, TIMEOUT_SECONDS) as client:
                answers = _answers(client, model, rows[chunk], deadline)
                pairs += _pairs(model, kept[chunk], answers, len(pairs))
    except HttpError as error:
        return pairs, f"the candidate: {error}"
    except ResponseRefused as refused:  # what it says may repeat what it was asked
        return pairs, f"the candidate responded with {refused.status}."
    return pairs, ""


def _answers(
    client: HttpClient, model: str, rows: NDArray[np.float32], deadline: float
) -> Iterator[dict[str, float]]:
    """Yield the outputs of each row that are one number, by name; none where it is refused.

    The rows that are not asked for until the deadline, by the monotonic clock, are left out.

    Raises
    ------
    HttpError
        If there is no response.
    ResponseRefused
        If the server is not ready, or has too much to do.
    """
    if time.monotonic() > deadline:
        return
    try:
        outputs = client.infer(model, rows, {MIRRORED: "true"})
    except ResponseRefused as refused:
        if refused.status == _NOT_NOW:
            raise
        if len(rows) == 1:
            yield {}
            return
        for row in rows:  # one row that it can't answer must not cost the others theirs
            yield from _answers(client, model, row[None], deadline)
        return
    for place in range(len(rows)):
        yield {
            name: float(values[place])
            for name, values in outputs.items()
            if values.shape == (len(rows),)  # one prediction of each row
        }


_NOT_NOW: Final = 503


def _pairs(
    model: str, kept: Sequence[_Request], answers: Iterator[dict[str, float]], place: int
) -> Iterator[Pair]:
    for number, (each, candidate) in enumerate(zip(kept, answers, strict=False), place):
        difference = signed(model, each.stable, candidate)
        yield Pair(
            request_id=str(number), difference=absolute(difference), signed=difference,
            answer=answer(model, each.stable),
            score=score_difference(model, each.stable, candidate), rare=each.rare,
        )  # fmt: skip
