"""A half-written file never stands under a final name."""

import doctest
import errno
import os

import pytest

from dwcp_ml import files
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.files import atomic_directory, cant_write, link, make_directory, sync, write_text
from tests.errors import about


def test_the_example_is_true():
    found = doctest.testmod(files)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.ENAMETOOLONG, "file name too long"),
    ],
)
def test_what_can_not_be_written_is_said_in_one_sentence(number, reason):
    error = OSError(number, os.strerror(number))
    sentence = str(cant_write("a key", error, remedy="name another directory"))
    assert sentence == f"Can't write a key: {reason}; name another directory."
    assert reason in str(cant_write("a key", error))


def test_an_error_without_a_number_is_quoted():
    assert "Can't write x: odd;" in str(cant_write("x", OSError("Odd")))


def test_files_and_directories_are_forced_to_the_disk(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor)))
    for path in (tmp_path / "file", tmp_path):
        sync(path)
        assert os.path.samestat(synced[-1], path.stat())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_text(path, "old")
    monkeypatch.setattr("pathlib.Path.replace", _full_disk)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, "report.json")):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"


def _full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "dataset"
    with pytest.raises(KeyboardInterrupt), atomic_directory(place) as staging:
        (staging / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with atomic_directory(place) as staging:
        (staging / "a").write_text("1")
    with atomic_directory(place) as staging:
        (staging / "b").write_text("2")
    assert [p.name for p in place.iterdir()] == ["b"]


def test_a_failure_keeps_the_directory_that_stood_there(tmp_path):
    place = tmp_path / "dataset"
    with atomic_directory(place) as staging:
        (staging / "good").write_text("1")
    with pytest.raises(ValueError, match="bad"), atomic_directory(place) as staging:
        (staging / "half").write_text("x")
        raise ValueError("bad")
    assert [p.name for p in place.iterdir()] == ["good"]


def test_a_file_in_the_way_is_said_in_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("I am a file")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "deep")):
        make_directory(tmp_path / "runs" / "deep")


def test_a_link_is_relative_and_moves(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        link(tmp_path / "latest", tmp_path / name)
    assert (tmp_path / "latest").readlink().as_posix() == "two"
