"""Bundles whose files are not what they seem: rejected in one sentence, nothing outside is read."""

import os
import stat

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.export.plain_files import OpenDirectory
from dwcp_ml.export.verify import open_bundle
from tests.export.malicious import (
    EVENTS,
    finalize_small,
    listened,
    refuse,
    small_model,
    symlink_directory,
)


def test_a_good_bundle_is_read_once_and_by_nobody_else(bundle, keys):
    opened, events = listened(lambda: open_bundle(bundle, public_key=keys[1]))
    names = [name for event, name in events if event == "open"]
    assert {event for event, _ in events} == {"open"}
    for file in bundle.rglob("*"):
        if file.is_file() and file.name != SIGNATURE_NAME:
            assert names.count(file.name) == 1
    assert opened.onnx == small_model().SerializeToString()


def symlink_file(path, outside):
    (path / "report.md").unlink()
    (path / "report.md").symlink_to(outside / "secret.txt")


def dangling_signature(path, outside):
    (path / SIGNATURE_NAME).unlink()
    (path / SIGNATURE_NAME).symlink_to(outside / "nowhere")


def hard_link(path, outside):
    (path / "report.md").unlink()
    (path / "report.md").hardlink_to(outside / "secret.txt")


def pipe(path, outside):
    (path / ONNX_NAME).unlink()
    os.mkfifo(path / ONNX_NAME)


def pipe_for_signature(path, outside):
    (path / SIGNATURE_NAME).unlink()
    os.mkfifo(path / SIGNATURE_NAME)


def socket_file(path, outside):
    os.mknod(path / "socket", stat.S_IFSOCK | 0o600)


def device(path, outside):
    try:
        os.mknod(path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


def oversize(path, outside):
    (path / "report.md").write_bytes(b"x" * 50_000_001)


def sparse(path, outside):
    with (path / "report.md").open("r+b") as stream:
        stream.truncate(10**12)


def oversize_signature(path, outside):
    (path / SIGNATURE_NAME).write_bytes(b"x" * 200_001)


def many_large(path, outside):
    for number in range(5):
        with (path / f"part{number}").open("wb") as stream:
            stream.truncate(49_000_000)


def many_files(path, outside):
    for number in range(300):
        (path / f"file{number}").touch()


def many_directories(path, outside):
    for number in range(300):
        (path / f"directory{number}").mkdir()


def deep(path, outside):
    path.joinpath(*["d"] * 60).mkdir(parents=True)


def name_on_two_lines(path, outside):
    (path / "a\nforged line\x1b[2J").symlink_to(outside)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (symlink_file, r"report\.md is a symbolic link"),
        (symlink_directory, "saved_model is a symbolic link"),
        (dangling_signature, r"model\.sig is a symbolic link"),
        (hard_link, r"report\.md is a hard link"),
        (pipe, r"model\.onnx is not a plain file"),
        (pipe_for_signature, r"model\.sig is not a plain file"),
        (socket_file, "socket is not a plain file"),
        (device, "zero is not a plain file"),
        (oversize, r"report\.md has 50,000,001 bytes"),
        (sparse, r"report\.md has 1,000,000,000,000 bytes"),
        (oversize_signature, r"model\.sig has 200,001 bytes"),
        (many_large, "more than 200,000,000 bytes"),
        (many_files, "more than 200 files"),
        (many_directories, "more than 200 files"),
        (deep, "more than 8 deep"),
        (name_on_two_lines, "forged line.* is a symbolic link"),
    ],
)
def test_files_that_are_none_or_too_much(bundle, outside, keys, change, match):
    change(bundle, outside)
    refuse(bundle, match, public_key=keys[1])
    assert not {name for _, name in EVENTS} & {ONNX_NAME, MANIFEST_NAME, "report.md"}


@pytest.mark.parametrize("key", [False, True])
def test_content_that_changed_after_finalizing(bundle, keys, key):
    (bundle / "report.md").write_text("# bad!\n")
    refuse(bundle, r"report\.md has changed", **({"public_key": keys[1]} if key else {}))


def test_an_extra_file_beside_the_signature(bundle, keys):
    (bundle / "model.sig.bak").write_text("x")
    refuse(bundle, r"'model\.sig\.bak' is not in", public_key=keys[1])


def test_a_directory_that_becomes_a_link_after_the_look_around(bundle, outside, monkeypatch):
    def swapping(directory):
        found = look(directory)
        symlink_directory(bundle, outside)
        return found

    look = OpenDirectory.files
    monkeypatch.setattr(OpenDirectory, "files", swapping)
    refuse(bundle, r"saved_model/1/saved_model\.pb can't be read")


def test_a_directory_that_is_swapped_as_a_whole_is_not_looked_at(
    bundle, tmp_path, report, monkeypatch
):
    other = finalize_small(tmp_path / "other", report, disguised_as_harmless())
    before = open_bundle(bundle)

    def swapping(directory):
        bundle.rename(tmp_path / "away")
        other.rename(bundle)
        return look(directory)

    look = OpenDirectory.files
    monkeypatch.setattr(OpenDirectory, "files", swapping)
    after = open_bundle(bundle)
    assert (after.digest, after.onnx) == (before.digest, before.onnx)
    monkeypatch.undo()
    assert open_bundle(bundle).digest != before.digest


def disguised_as_harmless():
    model = small_model()
    model.graph.name = "another"
    return model
