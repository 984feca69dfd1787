"""The JSON of ``iperf3 -J``: a row for each interval.

iperf3 writes what its own end sees. A TCP sender knows the throughput, the RTT and its variation
(``rttvar``, the mean deviation that the kernel keeps; RFC 6298), the retransmitted segments and the
congestion window; a UDP receiver (``-R``) knows the throughput, the jitter (RFC 3550) and the loss.
A file may hold several results, as ``--logfile`` appends them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.data.adapters.options import Choices, Row, epoch_seconds, malformed, name_of


def rows(path: Path, choices: Choices) -> Iterator[Row]:
    """Yield a row for each interval that is not omitted.

    ``DataRefused`` if the file is no result of iperf3.
    """
    for result in _results(path):
        try:
            yield from _rows_of(result, path, choices)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise malformed(path, f"it is no result of iperf3 -J: {error} is missing") from error


def _results(path: Path) -> Iterator[Any]:
    text = path.read_text(encoding="utf-8", errors="replace")
    decoder, place = json.JSONDecoder(), 0
    while place < len(text.rstrip()):
        place += len(text[place:]) - len(text[place:].lstrip())
        try:
            result, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise malformed(path, f"it is no JSON: {error.msg} in line {error.lineno}") from error
        yield result


def _rows_of(result: Any, path: Path, choices: Choices) -> Iterator[Row]:
    if result.get("error"):
        raise malformed(path, f"iperf3 failed: {str(result['error'])[:200]}")
    start = result["start"]
    link = start["connected"][0]
    keys: Row = {
        "node_id": name_of(choices.node, link["local_host"], "node_id", path),
        "peer_id": name_of(choices.peer, link["remote_host"], "peer_id", path),
    }
    protocol = str(start["test_start"]["protocol"]).lower()
    if protocol in COLUMNS["transport_type"].categories:
        keys["transport_type"] = protocol
    keys["amst_streams"] = len(start["connected"])
    # The times of the intervals begin anew after those that are omitted (-O).
    began = float(start["timestamp"]["timesecs"]) + float(start["test_start"].get("omit", 0))
    for interval in result["intervals"]:
        total, streams = interval["sum"], interval["streams"]
        if total.get("omitted"):
            continue
        time = epoch_seconds(began + float(total["end"]), path)
        yield {"timestamp": time, **keys, **_measured(total, streams)}


def _measured(total: Any, streams: Any) -> Row:
    row: Row = {"throughput_mbps": total["bits_per_second"] / 1e6}
    row["bytes_tx" if total.get("sender", True) else "bytes_rx"] = total["bytes"]
    if "retransmits" in total:
        row["retransmits"] = total["retransmits"]
    windows = [each["snd_cwnd"] for each in streams if "snd_cwnd" in each]
    if windows:
        row["congestion_window"] = sum(windows)
    for column, name in (("rtt_ms", "rtt"), ("jitter_ms", "rttvar")):  # in microseconds
        values = [each[name] / 1e3 for each in streams if each.get(name)]
        if values:
            row[column] = sum(values) / len(values)
    if "jitter_ms" in total:
        row["jitter_ms"] = total["jitter_ms"]
    if "lost_packets" in total and total.get("packets"):
        row["packet_loss"] = total["lost_packets"] / total["packets"]
    return row
