"""The headers that the server reads, in the same way on each protocol, and the operator's paths."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import quote, unquote

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.rejections import BadInput

JSON_LENGTH: Final = "inference-header-content-length"
"""The header with the length of a body's JSON, if the bytes of its tensors follow."""

LINK: Final = "x-dwcp-link"
OBSERVED_AT: Final = "x-dwcp-observed-at"
MIRRORED: Final = "x-dwcp-mirrored"
REQUEST_ID: Final = "x-request-id"
MODEL_VERSION: Final = "x-dwcp-model-version"
MODEL_DIGEST: Final = "x-dwcp-model-digest"

REQUESTS_PATH: Final = "/v1/requests"
CHAMPION_PATH: Final = "/v1/champion"

MAX_PAGE_VALUES: Final = 120_000
"""Features in one response of ``REQUESTS_PATH``: at most 2 MB of JSON."""

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


_UNENCODED: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def request_id_of(text: str | None) -> str:
    """Return the client's request id if it is a printable word, else a new one."""
    if text and _REQUEST_ID.fullmatch(text):
        return text
    return os.urandom(16).hex()


def link_header(link: str) -> str:
    """Return a link as ``X-DWCP-Link`` carries it: percent-encoded where it is not ASCII."""
    return quote(link, safe=_UNENCODED)


def link_of(text: str | None) -> str | None:
    """Return the link that a header names: percent-encoded UTF-8, as in a URL.

    Names of nodes are of any script, and a header holds ASCII only.

    Raises
    ------
    BadInput
        If it is not that.
    """
    if text is None or (text.isascii() and "%" not in text):
        return text
    try:
        if text.isascii():
            return unquote(text, errors="strict")
    except UnicodeDecodeError:
        pass
    raise BadInput(
        "X-DWCP-Link must be ASCII: write other letters as percent-encoded UTF-8, as in a URL.",
        code=ErrorCode.MALFORMED,
        subject="X-DWCP-Link",
    )
