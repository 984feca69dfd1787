"""Reads what is searched for leaks from a dataset directory: examples, rows, quarantined rows."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.arrays import Floats, Ints, Mask
from dwcp_ml.contract.columns import COLUMNS, GAIN_COLUMNS, column_of_feature
from dwcp_ml.contract.errors import TrainingFailed
from dwcp_ml.contract.evaluation import Leak
from dwcp_ml.contract.examples import DataSettings, ReliabilityData
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY, ModelSpec
from dwcp_ml.training_run.dataset import make_dataset
from dwcp_ml.training_run.model_data import load_frame
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

if TYPE_CHECKING:
    import pandas as pd

    from dwcp_ml.data.incidents import Incident
    from dwcp_ml.evaluation.leaks.find import LeakData, LeakSearch
    from dwcp_ml.evaluation.leaks.table import LeakRows, Lost


_KEY = ("timestamp", "node_id", "peer_id")


def leaks_of(
    dataset: Path,
    spec: ModelSpec,
    settings: DataSettings,
    seed: int,
    accepted: Collection[str] = (),
) -> tuple[Leak, ...]:
    """Search the data of one model for leaks, whatever form of it is trained.

    Raises
    ------
    TrainingFailed
        If the dataset has no example for this model.
    """
    from dwcp_ml.evaluation.leaks import find_leaks

    return find_leaks(_read(dataset, spec, settings, seed), accepted)


def leaks_in_file(options: RunOptions, report: Reporter = ignore_event) -> dict[str, LeakSearch]:
    """Validate the telemetry of a run and search it for leaks: model name -> what was found.

    Raises
    ------
    DataRefused
        If the telemetry or the incidents break the contract.
    """
    from dwcp_ml.data.examples import SETTINGS

    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Path(scratch) / "dataset"
        make_dataset(options, dataset, report)
        for spec in options.specs():
            with ProgressTask(f"search {spec.name}", report) as task:
                each = _search(dataset, spec, SETTINGS[spec.name](), options)
                task.finish(f"{len(each.leaks)} leaks" if each.searched else each.message)
                found[spec.name] = each
    return found


def _search(
    dataset: Path, spec: ModelSpec, settings: DataSettings, options: RunOptions
) -> LeakSearch:
    """Search the data of one model; say why if there is nothing to search."""
    from dwcp_ml.evaluation.leaks import LeakSearch, NotSearched, search

    try:
        given = _read(dataset, spec, settings, options.seed)
    except TrainingFailed as error:
        return LeakSearch(not_searched=NotSearched.NO_EXAMPLES, message=f"Not searched: {error}")
    return search(given, options.accept_leak)


def _read(dataset: Path, spec: ModelSpec, settings: DataSettings, seed: int) -> LeakData:
    """Read what is searched for one model from a dataset directory."""
    from dwcp_ml.data.output import QUARANTINE_NAME

    frame, incidents, _ = load_frame(dataset, spec, settings, seed, row_number=True)
    path = dataset / QUARANTINE_NAME
    quarantined = _read_quarantine(path) if path.exists() else None
    return leak_data(spec, frame, settings, incidents, quarantined, seed)


def leak_data(
    spec: ModelSpec,
    frame: pd.DataFrame,
    settings: DataSettings,
    incidents: Sequence[Incident] | None = None,
    quarantined: pd.DataFrame | None = None,
    seed: int = 42,
) -> LeakData:
    """Return what is searched, from the rows of ``load_frame`` with their ``ROW_NUMBER``.

    Parameters
    ----------
    quarantined
        The columns of quarantined rows: epoch seconds, names and numbers, NaN where a cell has
        none.

    Raises
    ------
    TrainingFailed
        If the rows give no example.
    """
    from dwcp_ml.data.examples import prepare
    from dwcp_ml.evaluation.leaks import LeakData

    data = prepare(spec, frame, settings, incidents=incidents, seed=seed)
    rows, labelled = _rows(spec, frame, settings, incidents or ())
    lost = None
    if quarantined is not None and len(quarantined) and labelled:
        lost = _lost(spec, frame, missing_rows(frame, quarantined), settings, incidents or ())
    return LeakData(data, rows, lost, labelled)


def _rows(
    spec: ModelSpec, frame: pd.DataFrame, settings: DataSettings, incidents: Sequence[Incident]
) -> tuple[LeakRows, bool]:
    """Return the rows of a model in the order of series and time, and whether labels are given."""
    import numpy as np

    from dwcp_ml.data.features import category_codes, series_index
    from dwcp_ml.data.oracle import compression_gains
    from dwcp_ml.data.reading import ROW_NUMBER
    from dwcp_ml.data.windows import one_row_a_node
    from dwcp_ml.evaluation.leaks import LeakRows

    if spec == LATENCY:
        # The rows of a node's peers are one observation; its place is that of the first of them.
        place = frame.groupby(["timestamp", "node_id"], sort=True)[ROW_NUMBER].min()
        frame, labelled = one_row_a_node(frame)
        key = frame.set_index(["timestamp", "node_id"]).index
        frame = frame.assign(**{ROW_NUMBER: place.reindex(key).fillna(-1).to_numpy(np.int64)})
    else:
        labelled = spec != COMPRESSION or compression_gains(frame)[1] == "measured"
    series, _ = series_index(frame, spec.series_key)
    timestamp = frame["timestamp"].to_numpy(np.float64)
    order = np.lexsort((timestamp, series))
    names = [column_of_feature(feature).name for feature in spec.features]
    frame, series, timestamp = frame.iloc[order], series[order], timestamp[order]
    columns: dict[str, Floats] = {
        name: category_codes(name, frame[name]).astype(np.float64)
        if COLUMNS[name].codes
        else frame[name].to_numpy(np.float64)
        for name in names
    }
    rows = LeakRows(
        columns=columns,
        series=series,
        timestamp=timestamp,
        position=frame[ROW_NUMBER].to_numpy(np.int64),
        outcome=np.full(len(frame), np.nan),
        classes=spec != BANDWIDTH,
    )
    if spec == BANDWIDTH:
        before = np.flatnonzero(rows.followed(1))
        rows.outcome[before] = columns["throughput_mbps"][before + 1]
    elif labelled:
        rows.outcome[:] = _labels(spec, frame, settings, incidents)
    return rows, labelled


def _labels(
    spec: ModelSpec, frame: pd.DataFrame, settings: DataSettings, incidents: Sequence[Incident]
) -> Floats | Ints:
    """Return the class of every row: the best level, or 1 inside an incident or episode."""
    import numpy as np

    from dwcp_ml.data.incidents import incident_of_rows
    from dwcp_ml.data.oracle import best_level

    if spec == COMPRESSION:
        return best_level(frame[list(GAIN_COLUMNS)].to_numpy(np.float64))
    if spec == RELIABILITY and isinstance(settings, ReliabilityData):
        event = incident_of_rows(
            frame["timestamp"].to_numpy(np.float64),
            frame["node_id"].to_numpy(),
            incidents,
            settings.incident_window_minutes,
        )
        return (event >= 0).astype(np.int64)
    high = frame["is_high_latency"].to_numpy(np.float64)
    return np.where(np.isfinite(high), high > 0, np.nan)


def _read_quarantine(path: Path) -> pd.DataFrame:
    """Return the quarantined rows that have a time and a node, their cells as numbers."""
    import numpy as np
    import pandas as pd

    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "timestamp" not in raw or not len(raw):
        return pd.DataFrame()
    number = pd.to_numeric(raw["timestamp"], errors="coerce")
    moment = pd.to_datetime(
        raw["timestamp"].where(number.isna()), errors="coerce", utc=True, format="ISO8601"
    )
    seconds = (moment - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    cells: dict[str, Any] = {"timestamp": number.fillna(seconds)}
    for name in ("node_id", "peer_id"):
        cells[name] = raw.get(name, "")
    for name in ("throughput_mbps", "is_high_latency", *GAIN_COLUMNS):
        values = raw.get(name, pd.Series("", index=raw.index))
        cells[name] = pd.to_numeric(values, errors="coerce")
    frame = pd.DataFrame(cells)
    known = np.isfinite(frame["timestamp"]) & (frame["node_id"] != "")
    rows: pd.DataFrame = frame[known].reset_index(drop=True)
    return rows


def missing_rows(frame: pd.DataFrame, quarantined: pd.DataFrame) -> pd.DataFrame:
    """Return the quarantined rows whose time, node and peer no kept row has, each once.

    The duplicate of a row that was kept is not lost.
    """
    import pandas as pd

    names = [name for name in _KEY if name in frame and name in quarantined]
    kept, gone = (pd.MultiIndex.from_frame(each[names]) for each in (frame, quarantined))
    rows: pd.DataFrame = quarantined[~gone.isin(kept) & ~gone.duplicated()]
    return rows.reset_index(drop=True)


def _lost(
    spec: ModelSpec,
    frame: pd.DataFrame,
    quarantined: pd.DataFrame,
    settings: DataSettings,
    incidents: Sequence[Incident],
) -> Lost:
    """Return a score of the quarantined rows and of the others: positive, or hard to predict."""
    import numpy as np

    from dwcp_ml.evaluation.leaks import Lost

    score = {BANDWIDTH.name: _changes, COMPRESSION.name: _margins}.get(spec.name)
    if score is not None:
        lost, kept = score(frame, quarantined)
    else:
        columns = frame.columns
        kept = np.asarray(
            _labels(spec, frame, settings, incidents)
            if spec == RELIABILITY or "is_high_latency" in columns
            else np.full(len(frame), np.nan),
            np.float64,
        )
        lost = np.asarray(_labels(spec, quarantined, settings, incidents), np.float64)
    return Lost(lost[np.isfinite(lost)], kept[np.isfinite(kept)])


def _changes(frame: pd.DataFrame, quarantined: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return the size of the step of the log throughput from the row before to the row after.

    Both must have been kept: a step across a longer gap is larger.
    """
    import numpy as np

    frame = frame[frame["throughput_mbps"] > 0]
    before, after, lost = _around(frame, quarantined, np.log(frame["throughput_mbps"]))
    change = np.abs(after - before)
    return change[lost], change[~lost]


def _margins(frame: pd.DataFrame, quarantined: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return by how much the best level is better than the second best, in the rows around."""
    import numpy as np

    best = np.sort(frame[list(GAIN_COLUMNS)].to_numpy(np.float64), axis=1)
    before, after, lost = _around(frame, quarantined, best[:, -1] - best[:, -2])
    before, after = (np.where(np.isfinite(a), a, b) for a, b in ((before, after), (after, before)))
    return (before + after)[lost] / 2, (before + after)[~lost] / 2


def _around(
    frame: pd.DataFrame, quarantined: pd.DataFrame, values: Floats | pd.Series
) -> tuple[Floats, Floats, Mask]:
    """Return the values of the rows before and after each row in its link, and which are lost.

    What a quarantined row itself says may be what is wrong with it: it has no value here, so that
    a row beside another quarantined one has NaN.
    """
    import numpy as np
    import pandas as pd

    links = ["node_id", "peer_id"]
    kept = frame[list(_KEY)].assign(value=np.asarray(values, np.float64), lost=False)
    rows = pd.concat([kept, quarantined[list(_KEY)].assign(value=np.nan, lost=True)])
    rows = rows.sort_values([*links, "timestamp"])
    value = rows.groupby(links)["value"]
    before, after = (value.shift(steps).to_numpy(np.float64) for steps in (1, -1))
    return before, after, rows["lost"].to_numpy(np.bool_)
