"""No final name holds a half-written file, after any error."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from dwcp_ml.contract.errors import DataRefused, DwcpError, ErrorCode
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data import output, scanning
from dwcp_ml.data.reading import load
from tests.errors import about

NAMES = ["quarantine.csv", "telemetry.parquet", "validation.json"]


def listing(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_dataset_is_complete_and_reads_back(check, telemetry, tmp_path):
    report = check(telemetry, output=tmp_path / "a" / "b")
    directory = tmp_path / "a" / "b"
    assert listing(directory) == NAMES
    assert DataReport.read(directory / "validation.json") == report
    loaded = load(directory / "telemetry.parquet", telemetry.columns)
    expected = load(tmp_path / "telemetry.csv", telemetry.columns)
    assert loaded.equals(expected)
    metadata = pq.ParquetFile(directory / "telemetry.parquet").metadata
    assert metadata.row_group(0).column(3).compression == "ZSTD"


def test_the_clean_copy_is_clean_again(check, telemetry, tmp_path):
    telemetry.loc[[3, 6], "rtt_ms"] = -1  # two rows of one link, one after the other
    check(telemetry, output=tmp_path / "once")
    again = check(tmp_path / "once" / "telemetry.parquet", output=tmp_path / "twice")
    assert [d.code for d in again.defects] == ["gap"]  # where the rows were quarantined
    first, second = (
        pq.read_table(tmp_path / name / "telemetry.parquet") for name in ("once", "twice")
    )
    assert first.equals(second)


def test_other_files_of_the_output_stay_and_old_incidents_go(check, telemetry, tmp_path):
    directory = tmp_path / "out"
    directory.mkdir()
    (directory / "ceilings.json").write_text("{}")
    (directory / "incidents.json").write_text("[]")
    check(telemetry, output=directory)
    assert listing(directory) == ["ceilings.json", *NAMES]


def test_a_refused_file_leaves_an_earlier_dataset_as_it_was(check, telemetry, tmp_path):
    check(telemetry, output=tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(DataRefused):
        check(telemetry.assign(packet_loss=5.0), output=tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_refused_file_leaves_no_directory(check, telemetry, tmp_path):
    with pytest.raises(DataRefused):
        check(telemetry.assign(packet_loss=5.0), output=tmp_path / "x" / "y")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "permission denied")],
)
def test_a_disk_that_refuses_to_write_is_one_sentence(
    check, telemetry, tmp_path, monkeypatch, number, says
):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output.CleanWriter, "write", fail)
    with pytest.raises(DwcpError, match=says) as error:
        check(telemetry, output=tmp_path / "out")
    assert error.value.exit_code == 1
    assert str(tmp_path / "out") in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_output_below_a_file_is_one_sentence(check, telemetry, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "out")):
        check(telemetry, output=tmp_path / "file" / "out")


def test_a_file_that_may_not_grow_leaves_nothing(write, telemetry, tmp_path):
    """The kernel itself stops the writing in the middle, as it does on a full disk."""
    import pandas as pd

    path = write(pd.concat([telemetry] * 100))
    program = (
        "import sys; from pathlib import Path; from dwcp_ml.contract.models import MODELS\n"
        "from dwcp_ml.contract.errors import DwcpError\n"
        "from dwcp_ml.data.validation import validate\n"
        "try: validate(Path(sys.argv[1]), specs=list(MODELS.values()), output=Path(sys.argv[2]),\n"
        "              missing_value_threshold=1.0)\n"
        "except DwcpError as error: print(error); sys.exit(error.exit_code)\n"
    )

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "out")],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("Can't write")
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_nothing(check, telemetry, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scanning.Pass, "_across_rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check(telemetry, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_real_ctrl_c_leaves_nothing(write, telemetry, tmp_path):
    path = write(telemetry)
    program = (
        "import signal, sys, time; from pathlib import Path\n"
        # A shell starts what runs in the background with Ctrl-C ignored, and that is inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from dwcp_ml.contract.models import MODELS\n"
        "from dwcp_ml.data.validation import validate\n"
        "def wait(share): print('reading', flush=True); time.sleep(60)\n"
        "validate(Path(sys.argv[1]), specs=list(MODELS.values()), output=Path(sys.argv[2]),\n"
        "         progress=wait)\n"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"reading\n"
        assert (tmp_path / "out").exists()
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, error = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in error
    assert time.monotonic() - begin < 10
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_while_it_is_read_is_refused(check, write, telemetry, tmp_path):
    path = write(telemetry)

    def append(_):
        with path.open("a") as file:
            file.write("\n")

    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "changed")):
        check(path, progress=append, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_progress_rises_to_one(check, telemetry):
    shares = []
    check(telemetry, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
