"""Count the fields of a message before protobuf reads it."""

from __future__ import annotations

from typing import Final

MAX_FIELDS: Final = 256
"""Maximum fields of a large request and of its tensor, those of the values not counted."""


def has_few_fields(content: bytes) -> bool:
    """Return whether a message has no more fields than a request can need.

    An empty field takes two bytes as text and a hundred in memory, so they are counted before
    protobuf reads them. What is no message has few.
    """
    return _count_fields(memoryview(content), nested=5) <= MAX_FIELDS


def _count_fields(content: memoryview, nested: int) -> int:
    """Return the number of fields, with those of the tensors in field ``nested``; stop when many.

    https://protobuf.dev/programming-guides/encoding
    """
    count = place = 0
    try:
        while place < len(content) and count <= MAX_FIELDS:
            tag, place = _varint(content, place)
            count += 1
            kind = tag & 7
            if kind == 0:
                _, place = _varint(content, place)
            elif kind == 2:
                size, place = _varint(content, place)
                if tag >> 3 == nested:
                    count += _count_fields(content[place : place + size], nested=0)
                place += size
            else:
                place += {1: 8, 5: 4}[kind]
    except IndexError:  # protobuf will reject it
        return count
    except KeyError:  # a group, which the protocol does not have, but protobuf would skip
        return MAX_FIELDS + 1
    return count


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise IndexError
