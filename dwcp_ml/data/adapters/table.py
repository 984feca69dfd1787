"""Traces as CSV, one file a link: any table by ``--map``, and those of G-NetTrack Pro.

G-NetTrack Pro is the Android logger of the 4G and 5G traces of University College Cork (Raca et
al., "Beyond throughput: a 4G LTE dataset with channel and context metrics", MMSys 2018; "Beyond
throughput, the next generation: a 5G dataset with channel and context metrics", MMSys 2020). Its
bitrates are kbit/s; it pings only now and then, and writes ``-`` elsewhere.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from dwcp_ml.contract.errors import DataRefused, ErrorCode, did_you_mean
from dwcp_ml.data.adapters.options import Choices, Row, Source, cell, malformed, moment, name_of

GNETTRACK_TIMES: Final = "%Y.%m.%d_%H.%M.%S"
GNETTRACK: Final[Mapping[str, Source]] = {
    "timestamp": Source("Timestamp"),
    "throughput_mbps": Source("DL_bitrate", 1e-3),
    "rtt_ms": Source("PINGAVG"),
    "jitter_ms": Source("PINGSTDEV"),
    "packet_loss": Source("PINGLOSS", 0.01),
}
"""The columns of G-NetTrack Pro; ``--map throughput_mbps=UL_bitrate@kbit/s`` takes the uplink."""


def rows(path: Path, choices: Choices) -> Iterator[Row]:
    """Yield the rows of a table; ``DataRefused`` if it lacks a column or a cell can't be read."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file)
            _check_header(path, reader.fieldnames or [], choices)
            for cells in reader:
                yield _row(cells, choices, path, f"{path}, line {reader.line_num}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise malformed(path, f"it is no CSV in UTF-8: {error}") from error


def _check_header(path: Path, header: object, choices: Choices) -> None:
    names = [str(name) for name in header] if isinstance(header, list | tuple) else []
    for column, source in choices.sources.items():
        if source.name not in names:
            raise DataRefused(
                f"{path} has no column '{source.name}' for {column}: "
                f"{did_you_mean(source.name, names)}.",
                code=ErrorCode.MISSING,
                subject=source.name,
            )


def _row(cells: Mapping[str, str | None], choices: Choices, path: Path, where: str) -> Row:
    row: Row = {}
    for column, source in choices.sources.items():
        text = cells[source.name]
        if text is None:
            raise malformed(where, "it has fewer cells than the header")
        if column == "timestamp":
            row[column] = moment(text, source, choices, where)
        elif (value := cell(column, text, source, where)) is not None:
            row[column] = value
    # A mapped name that is missing stays empty: validation quarantines the row.
    row.setdefault("node_id", "" if "node_id" in choices.sources else choices.node or path.stem)
    if "peer_id" not in row:
        mapped = "peer_id" in choices.sources
        row["peer_id"] = "" if mapped else name_of(choices.peer, None, "peer_id", path)
    return row
