"""Every way in which a bundle may have been touched, each refused with one sentence."""

import hashlib
import json
import os
import shutil

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME
from dwcp_ml.contract.errors import BundleRefused
from dwcp_ml.contract.models import LATENCY, RELIABILITY
from dwcp_ml.export import plain_files
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.verify import bundle_digest, open_bundle, verify_bundle
from tests.export import bundles
from tests.export.bundles import rewrite


@pytest.fixture
def sealed(tmp_path, forest, report):
    destination = tmp_path / "reliability_detector" / "7"
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(forest.onnx())
        (directory / "report.md").write_text("# fine\n")
        return finalize_bundle(directory, destination, RELIABILITY, report)


def refused(path, match, **options):
    bundles.refused(path, match, by=verify_bundle, **options)


def test_what_was_not_touched_is_opened(sealed):
    assert verify_bundle(sealed).name == "reliability_detector"
    assert verify_bundle(sealed, digest=bundle_digest(sealed)).version == "7"


def test_a_link_to_the_bundle_is_the_callers_own_business(sealed, tmp_path):
    (tmp_path / "latest").symlink_to(sealed)
    assert open_bundle(tmp_path / "latest").digest == bundle_digest(sealed)


def test_a_copy_is_as_good(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == bundle_digest(sealed)
    verify_bundle(tmp_path / "copy", digest=bundle_digest(sealed))


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md"])
def test_one_changed_bit(sealed, name):
    content = bytearray((sealed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (sealed / name).write_bytes(bytes(content))
    refused(sealed, f"{name} has changed")


@pytest.mark.parametrize("change", [b"", b"# fine\n\n", b"# fine"])
def test_another_length(sealed, change):
    (sealed / "report.md").write_bytes(change)
    refused(sealed, r"report\.md has changed")


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md"])
def test_a_missing_file(sealed, name):
    (sealed / name).unlink()
    refused(sealed, f"{name} is missing")


def test_a_missing_manifest(sealed):
    (sealed / MANIFEST_NAME).unlink()
    refused(sealed, "is not a bundle")


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "saved_model/1/saved_model.pb", "a\nb"])
def test_an_extra_file(sealed, name):
    (sealed / name).parent.mkdir(parents=True, exist_ok=True)
    (sealed / name).write_text("boo")
    refused(sealed, "is not in manifest.json")


def test_nothing_there_or_not_a_directory(tmp_path):
    refused(tmp_path / "nowhere", "no such file or directory")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "not a directory")


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md", MANIFEST_NAME])
def test_a_symbolic_link_though_it_leads_to_the_same_content(sealed, tmp_path, name):
    (sealed / name).rename(tmp_path / "elsewhere")
    (sealed / name).symlink_to(tmp_path / "elsewhere")
    refused(sealed, f"{name} is a symbolic link")


def test_a_symbolic_link_to_a_directory(sealed, tmp_path):
    (tmp_path / "outside").mkdir()
    (sealed / "saved_model").symlink_to(tmp_path / "outside")
    refused(sealed, "saved_model is a symbolic link")


@pytest.mark.parametrize("name", [ONNX_NAME, MANIFEST_NAME])
def test_a_hard_link(sealed, tmp_path, name):
    (tmp_path / "handle").hardlink_to(sealed / name)
    refused(sealed, f"{name} is a hard link")


def test_a_file_that_is_none(sealed):
    os.mkfifo(sealed / "pipe")
    refused(sealed, "pipe is not a plain file")


@pytest.mark.timeout(20)  # opening a pipe for reading would wait for ever
@pytest.mark.parametrize("kind", ["nothing", "symbolic link", "hard link", "pipe"])
def test_a_digest_is_that_of_a_plain_file(sealed, tmp_path, kind):
    """A file that is swapped after the look around is caught when it is opened."""
    manifest = sealed / MANIFEST_NAME
    manifest.rename(tmp_path / "elsewhere")
    if kind == "symbolic link":
        manifest.symlink_to(tmp_path / "elsewhere")
    elif kind == "hard link":
        manifest.hardlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(manifest)
    reason = {
        "nothing": "can't be read: no such file or directory",
        "symbolic link": "can't be read: too many levels of symbolic links",
        "hard link": "is a hard link",
        "pipe": "is not a plain file",
    }[kind]
    with pytest.raises(BundleRefused, match=f"manifest.json {reason}"):
        bundle_digest(sealed)


def test_an_outsized_file_is_not_even_read(sealed):
    with (sealed / "report.md").open("r+b") as stream:
        stream.truncate(50_000_001)
    refused(sealed, r"report\.md has 50,000,001 bytes")


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(sealed, monkeypatch):
    largest = max(path.stat().st_size for path in sealed.iterdir())
    monkeypatch.setattr(plain_files, "MAX_FILE_BYTES", largest)
    verify_bundle(sealed)
    monkeypatch.setattr(plain_files, "MAX_FILE_BYTES", largest - 1)
    refused(sealed, f"has {largest:,} bytes")


def test_an_outsized_manifest(sealed):
    path = sealed / MANIFEST_NAME
    path.write_text(path.read_text() + " " * 1_000_000)
    refused(sealed, r"manifest\.json has")


def test_more_files_than_any_bundle_has(sealed):
    for number in range(plain_files.MAX_ENTRIES):
        (sealed / f"d{number}").mkdir()
    refused(sealed, "more than 200 files and directories")


def test_another_bundle_than_the_approved_one(sealed):
    refused(sealed, "not the bundle that was approved", digest="0" * 64)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": 1}', b"[" * 100_000, b'{"a":' * 50_000],
)
def test_a_manifest_that_is_none(sealed, content):
    (sealed / MANIFEST_NAME).write_bytes(content)
    refused(sealed, r"manifest\.json is invalid")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", 0),
        ("schema_version", 2),
        ("unheard_of", 1),
        ("outputs", None),
        ("name", "../reliability_detector"),
        ("name", "Reliability/detector"),
        ("version", ".."),
        ("version", "a/b"),
        ("version", ""),
        ("files", {}),
    ],
)
def test_a_manifest_that_says_nonsense(sealed, field, value):
    rewrite(sealed, **{field: value})
    refused(sealed, r"manifest\.json (is invalid|has|does not name)")


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "saved_model/../../outside.txt",
        "/etc/hostname",
        "//etc/hostname",
        "a//b",
        "./report.md",
        "saved_model/./x",
        "..",
        ".",
        "",
        "a\\..\\b",
        "C:\\boot.ini",
        "a\0b",
        "a\nb",
        MANIFEST_NAME,
        ".hidden",
        "x" * 300,
    ],
)
def test_a_manifest_that_names_a_file_outside(sealed, tmp_path, name):
    (tmp_path / "outside.txt").write_text("secret")
    files = json.loads((sealed / MANIFEST_NAME).read_text())["files"]
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    rewrite(sealed, files=files | {name: record})
    refused(sealed, "a bundle can't contain")


def test_what_is_opened_is_what_was_checked(sealed, forest):
    opened = open_bundle(sealed)
    (sealed / ONNX_NAME).write_bytes(b"swapped afterwards")
    assert opened.onnx == forest.onnx()
    assert LATENCY.name != opened.manifest.name
