"""The normal form of the keys of telemetry, above all of the names of nodes.

Telemetry, incidents, request headers and prediction logs name the same nodes, and are written by
different programs: pandas writes the number 60 as ``60.0``. Every name is compared in this form.
The Go client has the same rules, in ``go/keys.go``.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Final

_WHOLE: Final = re.compile(r"(-?[0-9]+)\.0*|-?[0-9](?:\.[0-9]+)?e\+[0-9]{2}")
"""A whole number, as programs write one that they hold as a float."""


def key_of(name: str) -> str:
    """Return the normal form of a key; empty for white space only.

    >>> key_of(" 60.0 "), key_of("1e+16"), key_of("node-1.0"), key_of("0.5")
    ('60', '10000000000000000', 'node-1.0', '0.5')
    """
    text = name.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    match = _WHOLE.fullmatch(text)
    if match is None:
        return text
    if match[1] is not None:
        return match[1]
    number = Decimal(text)
    return f"{number:f}" if number == number.to_integral_value() else text


def link_of(name: str) -> str:
    """Return the normal form of a link, ``<node_id>/<peer_id>``, or of a node alone.

    >>> link_of("1.0/ 2.0"), link_of(" 7 ")
    ('1/2', '7')
    """
    return "/".join(map(key_of, name.split("/")))
