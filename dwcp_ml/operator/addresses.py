"""Whether a URI that a user gives leads into the cluster or to the machine itself; pure.

Only the text is checked. A public name can resolve to an internal address, and may do so only when
it is used: the NetworkPolicy of the servers is what stops that.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import urlsplit

WEB_SCHEMES: Final = ("http", "https")
"""Schemes whose host is a name that DNS resolves; of others it is a bucket or a volume."""

ANY: Final = "*"

_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_INTERNAL_SUFFIXES: Final = (".svc", ".local", ".localhost", ".internal", ".localdomain", ".arpa")
_INTERNAL_LABEL: Final = "svc"
_NAT64: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = IPv6Network("::/96")


def refusal_of_uri(uri: str, schemes: Collection[str], hosts: Collection[str]) -> str:
    """Return why a URI is not allowed, without a full stop; empty if it is.

    Parameters
    ----------
    hosts
        The allowed hosts: a name, ``*.example.com`` for every name below it, or ``*`` for all that
        are not internal. An internal host must be named, by itself or by a name above it.
    """
    try:
        parts = urlsplit(uri)
        host = (parts.hostname or "").removesuffix(".")
        _ = parts.port
    except ValueError:
        return "it is no URI"
    if parts.scheme not in schemes:
        return f"its scheme is not one of {', '.join(schemes) or 'none'}"
    if parts.username is not None or parts.password is not None:
        return "it holds credentials"
    if "\\" in uri or not uri.isascii() or not uri.isprintable():
        return "it holds characters that are read in different ways"
    return _refusal_of_host(host, parts.scheme, hosts)


def _refusal_of_host(host: str, scheme: str, hosts: Collection[str]) -> str:
    address = ip_address_of(host)
    if address is None and _NAME.fullmatch(host) is None:
        return "its host is not a plain name or address"
    if any(_covers(pattern, host) for pattern in hosts if pattern != ANY):
        return ""
    if address is not None and is_internal_address(address):
        return f"its host {host} is an internal address"
    if address is None and is_internal_name(host, scheme):
        return f"its host {host} is internal to the cluster"
    return "" if ANY in hosts else f"its host {host} is not in the list"


def ip_address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that a host stands for; ``None`` if it is a name.

    All forms that the C library reads count: ``127.1``, ``0x7f000001``, ``2130706433``, ``0177.1``.
    """
    if ":" in host:
        try:
            return IPv6Address(host)
        except ValueError:
            return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def is_internal_address(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is not on the public internet, also one inside another."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None or any(address in network for network in _NAT64):
            return True
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(each is not None and is_internal_address(each) for each in inner):
            return True
        if address in _COMPATIBLE:
            return True
    return not address.is_global or address.is_multicast


def is_internal_name(host: str, scheme: str) -> bool:
    """Return whether a name is one of the cluster, of this machine or of a cloud's metadata.

    A name without a dot is one where DNS resolves it, in the namespace of the pod; the names of
    buckets and volumes often have no dot.
    """
    dotted = f".{host}"
    if dotted.endswith(_INTERNAL_SUFFIXES):
        return True
    return scheme in WEB_SCHEMES and ("." not in host or _INTERNAL_LABEL in host.split("."))


def _covers(pattern: str, host: str) -> bool:
    pattern = pattern.lower().removesuffix(".")
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
