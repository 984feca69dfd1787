"""The response to a range query of Prometheus: a row for each time and pair of labels.

The result of an expression has no ``__name__``; the name of its file, without ``.json``, stands for
it. The values of all files are joined by time, node and peer, so the queries need the same step and
start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dwcp_ml.contract.errors import ErrorCode, UsageError, did_you_mean
from dwcp_ml.data.adapters.options import Choices, Row, cell, epoch_seconds, malformed

Key = tuple[float, str, str]


def rows(paths: Sequence[Path], choices: Choices) -> Iterator[Row]:
    """Yield the joined rows in the order of time.

    Raises
    ------
    DataRefused
        If a file is no response with a matrix, a series lacks a label, or two of one metric have
        the same labels.
    UsageError
        If a chosen metric is in none of the files.
    """
    by_key: dict[Key, Row] = {}
    seen: set[str] = set()
    for path in paths:
        for series in _matrix(path):
            labels = series["metric"]
            name = str(labels.get("__name__", path.stem))
            seen.add(name)
            for column, source in choices.sources.items():
                if source.name != name:
                    continue
                node = _label(choices.node, choices.node_label, labels, path)
                peer = _label(choices.peer, choices.peer_label, labels, path)
                for time, text in series["values"]:
                    value = cell(column, str(text), source, str(path))
                    at = epoch_seconds(float(time), path)
                    row = by_key.setdefault(
                        (at, node, peer), {"timestamp": at, "node_id": node, "peer_id": peer}
                    )
                    if column in row:
                        raise malformed(
                            path,
                            f"two series of {name} have the labels {choices.node_label}={node} and "
                            f"{choices.peer_label}={peer}: aggregate them in the query",
                        )
                    if value is not None:
                        row[column] = value
    for column, source in choices.sources.items():
        if source.name not in seen:
            raise UsageError(
                f"No file holds '{source.name}' of {column}: {did_you_mean(source.name, seen)}.",
                code=ErrorCode.MISSING,
                subject=source.name,
            )
    yield from (by_key[key] for key in sorted(by_key))


def _matrix(path: Path) -> list[Any]:
    try:
        response = json.loads(path.read_bytes())
        if response.get("status") != "success":
            raise malformed(path, f"the query failed: {response.get('error', 'no status')}")
        if response["data"]["resultType"] != "matrix":
            kind = response["data"]["resultType"]
            raise malformed(path, f"it is a {kind}, not a matrix: use /api/v1/query_range")
        result: list[Any] = response["data"]["result"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise malformed(path, "it is no response of Prometheus to a range query") from error
    return result


def _label(chosen: str | None, label: str, labels: Any, path: Path) -> str:
    if chosen is not None:
        return chosen
    if label not in labels:
        found = ", ".join(sorted(name for name in labels if name != "__name__")) or "none"
        raise malformed(
            path,
            f"a series has no label '{label}' (its labels: {found}); --node-label, --peer-label, "
            "--node and --peer choose others",
        )
    return str(labels[label])
