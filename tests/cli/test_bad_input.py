"""Bad input: one clear sentence, the documented exit code, nothing half-written."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.cli import main

REFUSED = 4


@pytest.fixture
def validate(capsys, tmp_path):
    """Run ``data validate`` on a file; return its exit code and what stderr says."""

    def run(path, *words):
        out = tmp_path / "clean"
        code = main(["data", "validate", str(path), "--output-dir", str(out), *words])
        # On a slow machine there are lines about progress before the sentence.
        err = re.sub(r"(?m)^\d\d:\d\d:\d\dZ  .*\n", "", capsys.readouterr().err)
        assert "Traceback" not in err
        assert err.count("\n") <= 1
        assert code == 0 or not out.exists(), "a refused file must leave nothing behind"
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
        return code, err

    return run


def test_a_good_file_passes(validate, files):
    assert validate(files[0], "--incidents-path", str(files[1]))[0] == 0


def test_a_data_window(validate, files):
    day = pd.read_csv(files[0])["timestamp"].min()[:10]
    code, err = validate(files[0], "--data-end", day)
    assert (code, "no usable row in the data window" in err) == (REFUSED, True)
    for start, end in (("today", "2026-01-01"), ("2026-01-02", "2026-01-01")):
        assert validate(files[0], "--data-start", start, "--data-end", end)[0] == 2
    assert validate(files[0], "--data-start", day, "--data-end", f"{day}T03:00:00Z")[0] == 0


def test_a_file_that_is_not_there(validate, tmp_path):
    code, err = validate(tmp_path / "nothing.csv")
    assert code in (2, REFUSED)
    assert "nothing.csv" in err


def test_a_directory(validate, tmp_path):
    (tmp_path / "folder").mkdir()
    code, err = validate(tmp_path / "folder")
    assert (code, "directory" in err) == (REFUSED, True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n\n",
        b"timestamp,node_id,peer_id\n",
        bytes(range(256)) * 40,
        b"\x7fELF\x02\x01\x01" + b"\0" * 400,
        "timestamp,node_id\n2024-01-01,Käse\n".encode("latin-1"),
        b"PAR1 this is no parquet file",
        b'"an open quote',
    ],
    ids=[
        "empty",
        "blank",
        "header-only",
        "bytes",
        "binary",
        "latin-1",
        "not-parquet",
        "open-quote",
    ],
)
def test_what_is_no_telemetry_at_all(validate, tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    code, err = validate(path)
    assert code == REFUSED
    assert "x.csv" in err


def test_a_truncated_parquet_file(validate, files, tmp_path):
    import pandas as pd

    whole = tmp_path / "whole.parquet"
    pd.read_csv(files[0]).to_parquet(whole)
    (tmp_path / "half.parquet").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert validate(tmp_path / "half.parquet")[0] == REFUSED
    assert validate(whole)[0] == 0


def test_a_missing_column_names_itself_the_model_and_what_was_found(validate, edit):
    path = edit(lambda frame: frame.drop(columns="jitter_ms"))
    code, err = validate(path)
    assert code == REFUSED
    assert all(word in err for word in ("jitter_ms", "bandwidth", "rtt_ms"))


def test_a_column_that_no_chosen_model_needs_may_be_missing(validate, edit):
    path = edit(lambda frame: frame.drop(columns="jitter_ms"))
    assert validate(path, "--models", "latency,compression")[0] == 0


def test_percent_in_packet_loss_names_the_option(validate, edit, failures):
    def to_percent(frame):
        frame["packet_loss"] *= 100

    path = edit(to_percent)
    assert validate(path)[0] == REFUSED
    assert failures[-1].subject == "packet_loss_above_1"
    assert validate(path, "--packet-loss-unit", "percent")[0] == 0


def test_a_column_of_nothing(validate, edit):
    code, err = validate(edit(lambda frame: frame.assign(rtt_ms=np.nan)))
    assert (code, "rtt_ms" in err) == (REFUSED, True)


def test_a_word_among_the_numbers_is_quarantined(validate, edit, capsys):
    def spoil(frame):
        frame["rtt_ms"] = frame["rtt_ms"].astype(object)
        frame.loc[7, "rtt_ms"] = "fast"

    assert validate(edit(spoil))[0] == 0


def test_one_row_is_not_enough(validate, edit):
    assert validate(edit(lambda frame: frame.head(1)))[0] == REFUSED


def test_shuffled_rows_are_sorted(validate, edit, tmp_path):
    import pandas as pd

    path = edit(lambda frame: frame.sample(frac=1, random_state=1))
    assert validate(path)[0] == 0
    report = json.loads((tmp_path / "clean" / "validation.json").read_text())
    assert any("order" in defect["code"] for defect in report["defects"])
    assert len(pd.read_parquet(tmp_path / "clean" / "telemetry.parquet")) == report["rows"]


def test_duplicated_rows_are_quarantined(validate, edit, tmp_path):
    import pandas as pd

    path = edit(lambda frame: pd.concat([frame, frame.head(5)]))
    assert validate(path)[0] == 0
    report = json.loads((tmp_path / "clean" / "validation.json").read_text())
    assert any("duplicate" in defect["code"] for defect in report["defects"])
    assert report["rows_quarantined"] == 5


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("link_type", "satellite"),
        ("timestamp", "yesterday"),
        ("throughput_mbps", -3),
        ("uptime_pct", 140),
    ],
)
def test_a_bad_value_is_quarantined_and_many_are_refused(validate, edit, tmp_path, column, value):
    def spoil(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[3, column] = value

    assert validate(edit(spoil))[0] == 0
    report = json.loads((tmp_path / "clean" / "validation.json").read_text())
    assert report["rows_quarantined"] == 1
    import shutil

    shutil.rmtree(tmp_path / "clean")

    def spoil_much(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[: len(frame) // 2, column] = value

    code, err = validate(edit(spoil_much))
    assert (code, column in err) == (REFUSED, True)


def test_dates_far_in_the_future(validate, edit):
    def shift(frame):
        frame["timestamp"] = frame["timestamp"].astype(str).str.replace("2025", "3025")

    code, err = validate(edit(shift))
    assert code == REFUSED
    assert "future" in err


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1}', b"[1]", b'[{"node_id": 1}]', b"\xff\xfe", b"[]"]
)
def test_incidents_that_are_none(validate, files, content):
    files[1].write_bytes(content)
    code, _ = validate(files[0], "--incidents-path", str(files[1]))
    assert code == (0 if content == b"[]" else REFUSED)


def test_incidents_of_unknown_nodes_are_a_warning(validate, files, tmp_path):
    incidents = json.loads(files[1].read_text())
    files[1].write_text(json.dumps([{**incidents[0], "node_id": "nobody"}, *incidents]))
    assert validate(files[0], "--incidents-path", str(files[1]))[0] == 0
    report = json.loads((tmp_path / "clean" / "validation.json").read_text())
    assert any("incident" in defect["code"] for defect in report["defects"])


def test_a_refused_file_leaves_no_run_behind(capsys, tmp_path):
    (tmp_path / "x.csv").write_bytes(b"")
    root = tmp_path / "runs"
    code = main(["train", "--data-path", str(tmp_path / "x.csv"), "--output-dir", str(root)])
    assert code == REFUSED
    assert list(root.iterdir()) == []
    assert capsys.readouterr().err.count("\n") == 1


def test_an_output_that_can_not_be_written(capsys, tmp_path, files):
    (tmp_path / "runs").write_text("a file, not a directory")
    code = main(["train", "--data-path", str(files[0]), "--output-dir", str(tmp_path / "runs")])
    assert code == 1
    assert "Can't write" in capsys.readouterr().err
    assert (tmp_path / "runs").read_text() == "a file, not a directory"
