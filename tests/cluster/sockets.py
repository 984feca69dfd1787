"""To whom processes of this machine are connected (Linux)."""

import ipaddress
import re
import socket
import struct
from pathlib import Path

_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TABLES = ("tcp", "tcp6", "udp", "udp6")


def remote_addresses(processes):
    """Return the other ends, as addresses, of every socket that the processes hold.

    Sockets that only listen have none.
    """
    held = set()
    for process in processes:
        for link in Path(f"/proc/{process}/fd").iterdir():
            try:
                found = _SOCKET.fullmatch(str(link.readlink()))
            except FileNotFoundError:  # closed meanwhile
                continue
            if found:
                held.add(found[1])
    addresses = set()
    for table in _TABLES:
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in held:
                addresses.add(_address(fields[2]))
    return {address for address in addresses if not address.is_unspecified}


def _address(text):
    """Return an address from the hexadecimal words of /proc/net, each in the machine's order."""
    words = re.findall(".{8}", text.partition(":")[0])
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    address = ipaddress.ip_address(socket.inet_ntop(family, packed))
    return getattr(address, "ipv4_mapped", None) or address
