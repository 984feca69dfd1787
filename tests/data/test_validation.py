"""Each defect of the contract: its code, its count, its rows, its verdict."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dwcp_ml.contract.models import BANDWIDTH, LATENCY, RELIABILITY, model_specs
from dwcp_ml.data.defects import DEFECTS
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import InvalidTelemetry


def refused(check, *args, **options):
    with pytest.raises(InvalidTelemetry) as error:
        check(*args, **options)
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)
    assert error.value.report.refused
    return error.value


def test_clean_telemetry_has_no_defects(check, telemetry):
    report = check(telemetry)
    assert report.defects == ()
    assert (report.rows, report.rows_quarantined, report.links) == (120, 0, 3)
    assert report.cadence_seconds == 60.0
    assert report.first_timestamp == "2024-01-01T00:00:00Z"
    assert report.last_timestamp == "2024-01-01T00:39:00Z"
    assert len(report.md5) == 32
    assert report.source == "file"


def test_parquet_and_csv_say_the_same(check, write, telemetry):
    csv, parquet = check(telemetry), check(write(telemetry, "telemetry.parquet"))
    left, right = (r.model_dump(exclude={"path", "md5", "size_bytes"}) for r in (csv, parquet))
    assert left == right


def test_only_columns_of_the_chosen_models_are_required(check, telemetry):
    frame = telemetry[["timestamp", "node_id", "peer_id", "consensus_latency_ms"]]
    assert not check(frame, specs=[LATENCY]).refused
    error = refused(check, frame, specs=[LATENCY, RELIABILITY])
    assert "Column 'uptime_pct' is missing, which reliability_detector needs" in str(error)
    missing = {d.column for d in error.report.defects if d.code == "missing_column"}
    assert missing == set(RELIABILITY.features)


@pytest.mark.parametrize("key", ["timestamp", "node_id", "peer_id"])
def test_keys_are_always_required(check, telemetry, key):
    error = refused(check, telemetry.drop(columns=key), specs=[LATENCY])
    (defect,) = [d for d in error.report.defects if d.code == "missing_column"]
    assert (defect.column, defect.verdict) == (key, "error")


CELLS = [
    ("rtt_ms", "", "missing"),
    ("rtt_ms", "NaN", "missing"),
    ("rtt_ms", "inf", "not_finite"),
    ("rtt_ms", "-Infinity", "not_finite"),
    ("rtt_ms", "fast", "wrong_type"),
    ("rtt_ms", "1,5", "wrong_type"),
    ("rtt_ms", "0", "out_of_range"),
    ("rtt_ms", "-1", "out_of_range"),
    ("jitter_ms", "-0.1", "out_of_range"),
    ("packet_loss", "-0.1", "out_of_range"),
    ("uptime_pct", "100.1", "out_of_range"),
    ("hde_compression_ratio", "0.99", "out_of_range"),
    ("retransmits", "2.5", "wrong_type"),
    ("is_high_latency", "2", "out_of_range"),
    ("throughput_gain_3", "-1.5", "out_of_range"),
    ("link_type", "lan", "unknown_category"),
    ("link_type", "", "missing"),
    ("node_id", "", "missing"),
    ("timestamp", "", "missing"),
    ("timestamp", "yesterday", "unparsable_timestamp"),
    ("timestamp", "2024-13-01", "unparsable_timestamp"),
    ("timestamp", "1970-01-01 00:00:07", "timestamp_too_early"),
    ("timestamp", "2199-01-01", "timestamp_in_future"),
    ("timestamp", "9999-12-31", "timestamp_in_future"),
]


@pytest.mark.parametrize(("column", "cell", "code"), CELLS)
def test_a_bad_cell_sets_its_row_aside(
    check, write, telemetry, tmp_path, defect_of, column, cell, code
):
    frame = telemetry.astype({column: object})
    frame.loc[[7, 50], column] = cell
    report = check(frame, output=tmp_path / "out")
    defect = defect_of(report, code, column)
    assert (defect.verdict, defect.count, defect.examples) == ("quarantine", 2, (8, 51))
    assert defect.code in DEFECTS
    assert column in defect.message
    assert report.rows_quarantined == 2
    clean = load(tmp_path / "out" / "telemetry.parquet", BANDWIDTH.needed_columns)
    assert len(clean) == 118
    aside = pd.read_csv(tmp_path / "out" / "quarantine.csv", dtype={column: str})
    assert aside["row"].tolist() == [8, 51]
    assert aside["code"].tolist() == [f"{code}:{column}"] * 2
    if cell in ("fast", "1,5", "lan", "yesterday", "2024-13-01", "inf"):
        assert aside[column].tolist() == [cell] * 2
    assert aside[column].notna().all() == (cell not in ("", "NaN"))


@pytest.mark.parametrize(("column", "cell", "code"), CELLS[:3] + CELLS[4:9])
def test_the_same_cell_in_a_context_column_only_warns(
    check, telemetry, defect_of, column, cell, code
):
    frame = telemetry.astype({column: object})
    frame.loc[[7, 50], column] = cell
    report = check(frame, specs=[LATENCY])
    assert defect_of(report, code, column).verdict == "warning"
    assert report.rows_quarantined == 0


def test_several_defects_of_one_row_are_all_named(check, telemetry, tmp_path):
    telemetry.loc[3, ["rtt_ms", "jitter_ms"]] = -1
    check(telemetry, output=tmp_path / "out")
    (code,) = pd.read_csv(tmp_path / "out" / "quarantine.csv")["code"]
    assert code == "out_of_range:rtt_ms;out_of_range:jitter_ms"


def test_over_five_percent_of_a_needed_column_is_refused(check, telemetry):
    telemetry.loc[:5, "rtt_ms"] = np.nan  # 6 of 120
    assert not check(telemetry).refused
    telemetry.loc[6, "rtt_ms"] = -1.0  # missing and invalid cells count together
    error = refused(check, telemetry)
    assert (error.subject, error.report.defects[0].column) == ("too_many_invalid", "rtt_ms")
    assert "5.83 % of column 'rtt_ms' is missing or invalid (6 missing, 1 out of range" in str(
        error
    )
    assert not check(telemetry, missing_value_threshold=0.1).refused
    assert not check(telemetry, specs=[LATENCY]).refused


def test_a_column_without_a_value_is_refused(check, telemetry):
    error = refused(check, telemetry.assign(rtt_ms=np.nan))
    first = error.report.defects[0]
    assert (first.code, first.column) == ("empty_column", "rtt_ms")


def test_percent_in_packet_loss_is_refused_with_the_option(check, telemetry, tmp_path):
    percent = telemetry.assign(packet_loss=telemetry["packet_loss"] * 100)
    error = refused(check, percent)
    assert "--packet-loss-unit percent" in str(error)
    report = check(percent, packet_loss_unit="percent", output=tmp_path / "out")
    assert report.defects == ()
    clean = load(tmp_path / "out" / "telemetry.parquet", ["packet_loss"])
    assert np.allclose(np.sort(clean["packet_loss"]), np.sort(telemetry["packet_loss"]))
    assert not check(percent, specs=[LATENCY]).refused


def test_more_than_100_percent_is_out_of_range(check, telemetry, defect_of):
    percent = telemetry.assign(packet_loss=telemetry["packet_loss"] * 100)
    percent.loc[4, "packet_loss"] = 150.0
    report = check(percent, packet_loss_unit="percent")
    assert defect_of(report, "out_of_range", "packet_loss").verdict == "quarantine"


def test_segments_become_bytes(check, telemetry, tmp_path):
    check(telemetry, congestion_window_unit="segments", output=tmp_path / "out")
    clean = load(tmp_path / "out" / "telemetry.parquet", ["congestion_window"])
    assert clean["congestion_window"].sum() == 1460 * telemetry["congestion_window"].sum()


def test_whole_numbers_may_be_floats_and_keys_integers(check, write, telemetry, tmp_path):
    frame = telemetry.assign(
        retransmits=telemetry["retransmits"].astype(float),
        node_id=telemetry["node_id"].str[1:].astype(int),
        peer_id=telemetry["peer_id"].str[1:].astype(float),
    )
    for name in ("telemetry.csv", "telemetry.parquet"):
        report = check(write(frame, name), output=tmp_path / f"of-{name}")
        assert report.defects == ()
        clean = load(tmp_path / f"of-{name}" / "telemetry.parquet", ["rtt_ms"])
        assert set(clean["node_id"]) == {"0", "1"}
        assert set(clean["peer_id"]) == {"0", "1"}


@pytest.mark.parametrize(
    "form",
    [
        lambda t: t.astype("int64") // 10**9,
        lambda t: t.astype("int64") / 1e9,
        lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        lambda t: t.dt.strftime("%Y-%m-%d %H:%M:%S.123456"),
        lambda t: t.dt.strftime("%Y-%m-%d %H:%M:%S.123456789"),
        lambda t: t.dt.strftime("%Y-%m-%d %H:%M:%S+00:00"),
        lambda t: (t + pd.Timedelta(hours=2)).dt.strftime("%Y-%m-%dT%H:%M:%S+02:00"),
        lambda t: t.dt.tz_localize("UTC"),
        lambda t: t.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_form_of_time_is_read(check, write, telemetry, tmp_path, form, suffix):
    frame = telemetry.assign(timestamp=form(telemetry["timestamp"]))
    # Of the moments with a fraction, .123456 and .123456789 s, the milliseconds are kept.
    has_fraction = ".123" in str(frame["timestamp"].iloc[0])
    whole = (telemetry["timestamp"] - pd.Timestamp(0)).dt.total_seconds()
    seconds = whole + (0.123 if has_fraction else 0.0)
    report = check(write(frame, f"telemetry.{suffix}"), output=tmp_path / "out")
    assert report.defects == ()
    clean = load(tmp_path / "out" / "telemetry.parquet", ["rtt_ms"])
    assert clean["timestamp"].tolist() == sorted(seconds)


def test_mixed_forms_of_time_are_read(check, telemetry):
    text = telemetry["timestamp"].dt.strftime("%Y-%m-%d %H:%M:%S").copy()
    text.iloc[::3] = (telemetry["timestamp"].astype("int64") // 10**9).astype(str)[::3]
    text.iloc[1::3] = telemetry["timestamp"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")[1::3]
    assert check(telemetry.assign(timestamp=text)).defects == ()


def test_epoch_milliseconds_are_refused_with_a_hint(check, telemetry):
    error = refused(
        check, telemetry.assign(timestamp=telemetry["timestamp"].astype("int64") // 10**6)
    )
    assert any("not milliseconds" in d.message for d in error.report.defects)


def test_rows_ahead_of_the_clock_are_quarantined(check, telemetry, defect_of):
    now = telemetry["timestamp"].iloc[0].timestamp()
    assert check(telemetry, now=now).defects == ()
    telemetry.loc[5, "timestamp"] += pd.Timedelta(days=2)
    assert defect_of(check(telemetry, now=now), "timestamp_in_future").examples == (6,)
    future = telemetry.assign(timestamp=telemetry["timestamp"] + pd.Timedelta(days=40_000))
    assert refused(check, future).report.defects[0].column == "timestamp"


def test_constant_columns_warn(check, telemetry, defect_of):
    report = check(telemetry.assign(jitter_ms=3.0, link_type="wan", throughput_gain_0=0.0))
    assert {d.column for d in report.defects} == {"jitter_ms", "link_type"}
    assert {d.code for d in report.defects} == {"constant_column"}


def test_unknown_columns_are_ignored_with_a_warning(check, telemetry, defect_of):
    report = check(telemetry.assign(comment="ok", other=1))
    defect = defect_of(report, "unknown_column")
    assert (defect.verdict, defect.count) == ("warning", 2)
    assert "comment, other" in defect.message
    assert "comment" not in report.columns


def test_labels_without_a_value_are_derived_instead(check, telemetry, defect_of, tmp_path):
    report = check(telemetry.assign(is_high_latency=np.nan), output=tmp_path / "out")
    assert defect_of(report, "incomplete_labels").verdict == "warning"
    assert report.rows_quarantined == 0
    partial = telemetry.drop(columns="throughput_gain_9")
    assert "throughput_gain_9" in defect_of(check(partial), "incomplete_labels").message
    telemetry["is_high_latency"] = telemetry["is_high_latency"].astype(float)
    telemetry.loc[:60, "is_high_latency"] = np.nan
    assert refused(check, telemetry).report.defects[0].column == "is_high_latency"


def test_one_row_is_refused(check, telemetry):
    for rows in (1, 0):
        error = refused(check, telemetry.iloc[:rows])
        assert (error.subject, error.report.rows) == ("too_few_rows", rows)


def test_one_link_is_accepted(check, telemetry):
    one = telemetry[(telemetry["node_id"] == "n0") & (telemetry["peer_id"] == "p0")]
    assert check(one).links == 1


def test_a_file_of_bad_rows_only_is_refused(check, telemetry):
    error = refused(check, telemetry.assign(rtt_ms=-1.0))
    first, second = error.report.defects[:2]
    assert (first.code, first.column) == ("too_many_invalid", "rtt_ms")
    assert (second.code, second.count) == ("too_few_rows", 0)


FILES = {
    "empty_file": b"",
    "empty_file-2": b"\n\n \n",
    "binary": b"timestamp\0node_id\n",
    "binary-2": b"\x1f\x8b\x08\0 gzip",
    "binary-3": "timestamp,node_id\n".encode("utf-16"),
    "not_utf8": "timestamp,nœud\n".encode("latin-1", "replace").replace(b"?", b"\xff"),
    "unreadable": b"PAR1 and then nothing",
    "duplicate_column": b"timestamp,node_id,peer_id,rtt_ms,rtt_ms\n1,2,3,4,5\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_telemetry_is_refused(check, tmp_path, name):
    path = tmp_path / "telemetry.csv"
    path.write_bytes(FILES[name])
    error = refused(check, path, output=tmp_path / "out")
    assert error.report.defects[0].code == name.split("-")[0]
    assert str(path) in str(error)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_a_directory_and_a_device_are_refused(check, tmp_path):
    codes = {}
    for path in (tmp_path / "none.csv", tmp_path, type(tmp_path)("/dev/null")):
        codes[path.name] = refused(check, path).report.defects[0].code
    assert list(codes.values()) == ["no_file", "directory", "not_a_file"]


def test_bytes_that_are_not_utf8_deep_in_the_file_are_refused(check, write, telemetry):
    path = write(telemetry)
    content = path.read_bytes().replace(b",n1,", b",\xe9\xe9,", 1)
    path.write_bytes(content)
    assert refused(check, path).report.defects[0].code == "not_utf8"


def test_a_header_with_a_byte_order_mark_and_crlf_is_read(check, write, telemetry):
    path = write(telemetry)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(path).defects == ()


def test_a_csv_cut_off_in_a_row_is_refused(check, write, telemetry):
    path = write(telemetry)
    path.write_bytes(path.read_bytes()[:-150])
    error = refused(check, path)
    assert error.report.defects[0].code == "truncated"
    assert error.report.defects[0].examples == (120,)


def test_a_missing_last_newline_is_nothing(check, write, telemetry):
    path = write(telemetry)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert check(path).defects == ()


def test_a_truncated_parquet_file_is_refused(check, write, telemetry):
    path = write(telemetry, "telemetry.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    assert refused(check, path).subject == "unreadable"


def test_parquet_text_that_is_not_utf8_is_refused(check, write, telemetry):
    path = write(telemetry.assign(region="marker"), "telemetry.parquet")
    path.write_bytes(path.read_bytes().replace(b"marker", b"m\xff\xfeker"))
    assert refused(check, path).subject == "unreadable"


def test_malformed_rows_are_quarantined_and_the_others_keep_their_numbers(
    check, write, telemetry, tmp_path, defect_of
):
    telemetry.loc[60, "rtt_ms"] = -1.0
    path = write(telemetry)
    lines = path.read_text().splitlines()
    lines[10] += ",one,too,many"
    lines[20] = "2024-01-01,n0"
    path.write_text("\n".join(lines) + "\n")
    report = check(path, output=tmp_path / "out")
    assert defect_of(report, "malformed_row").examples == (10, 20)
    assert defect_of(report, "out_of_range").examples == (61,)
    assert (report.rows, report.rows_quarantined) == (120, 3)
    aside = pd.read_csv(tmp_path / "out" / "quarantine.csv").set_index("row")
    assert aside.loc[20, "malformed_text"] == "2024-01-01,n0"
    assert pq.read_table(tmp_path / "out" / "telemetry.parquet").num_rows == 117


def test_rows_of_another_separator_name_what_was_found(check, write, telemetry):
    path = write(telemetry)
    path.write_text(path.read_text().replace(",", ";"))
    assert "the file holds: timestamp;node_id" in str(refused(check, path))


def test_the_weightiest_error_comes_first_and_the_others_are_counted(check, telemetry):
    frame = telemetry.assign(packet_loss=50.0, rtt_ms=np.nan)
    error = refused(check, frame)
    assert error.subject == "packet_loss_above_1"
    assert "more error" in str(error)
    verdicts = [d.verdict for d in error.report.defects]
    assert verdicts == sorted(verdicts, key=("error", "quarantine", "warning").index)


def test_models_share_what_they_need(check, telemetry):
    frame = telemetry.drop(columns="throughput_mbps")
    error = refused(check, frame, specs=model_specs("bandwidth,compression"))
    (defect,) = error.report.defects
    assert (defect.code, defect.column) == ("missing_column", "throughput_mbps")
    assert "which bandwidth_predictor, compression_selector need;" in str(error)
    assert not check(frame, specs=[RELIABILITY]).refused
