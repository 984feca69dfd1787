"""To whom processes of this machine are connected, and where they listen (Linux)."""

import ipaddress
import re
import socket
import struct
from pathlib import Path

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TABLES = ("tcp", "tcp6", "udp", "udp6")
_LISTENING = "0A"


def remote_addresses(processes):
    """Return the other ends, as addresses, of every socket that the processes hold.

    Sockets that only listen have none.
    """
    addresses = {_address(line[2]) for line in _sockets(processes)}
    return {address for address in addresses if not address.is_unspecified}


def listening_addresses(processes):
    """Return the addresses that the processes listen on."""
    return {_address(line[1]) for line in _sockets(processes) if line[3] == _LISTENING}


def _sockets(processes):
    """Yield the fields of every socket that the processes hold, as /proc/net has them."""
    held = set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            try:
                found = _SOCKET.fullmatch(str(link.readlink()))
            except FileNotFoundError:  # closed meanwhile
                continue
            if found:
                held.add(found[1])
    for table in _TABLES:
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in held:
                yield fields


def _address(text):
    """Return an address from the hexadecimal words of /proc/net, each in the machine's order."""
    words = re.findall(".{8}", text.partition(":")[0])
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    address = ipaddress.ip_address(socket.inet_ntop(family, packed))
    return getattr(address, "ipv4_mapped", None) or address
