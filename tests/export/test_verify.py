"""Every way in which a bundle can be changed, each rejected with one sentence."""

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


@pytest.fixture(scope="module")
def without_saved_model(tmp_path_factory, forest, report):
    destination = tmp_path_factory.mktemp("bundle") / "reliability_detector" / "7"
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(forest.onnx)
        (directory / "report.md").write_text("# fine\n")
        return finalize_bundle(directory, destination, RELIABILITY, report)


@pytest.fixture
def finalized(tmp_path, without_saved_model):
    return shutil.copytree(without_saved_model, tmp_path / "reliability_detector" / "7")


def rejected(path, match, **options):
    bundles.rejected(path, match, by=verify_bundle, **options)


def test_an_unchanged_bundle_is_opened(finalized):
    assert verify_bundle(finalized).name == "reliability_detector"
    assert verify_bundle(finalized, digest=bundle_digest(finalized)).version == "7"


def test_a_link_to_the_bundle_is_the_callers_own_business(finalized, tmp_path):
    (tmp_path / "latest").symlink_to(finalized)
    assert open_bundle(tmp_path / "latest").digest == bundle_digest(finalized)


def test_a_copy_is_as_good(finalized, tmp_path):
    shutil.copytree(finalized, tmp_path / "copy")
    assert bundle_digest(tmp_path / "copy") == bundle_digest(finalized)
    verify_bundle(tmp_path / "copy", digest=bundle_digest(finalized))


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md"])
def test_one_changed_bit(finalized, name):
    content = bytearray((finalized / name).read_bytes())
    content[len(content) // 2] ^= 1
    (finalized / name).write_bytes(bytes(content))
    rejected(finalized, f"{name} has changed")


@pytest.mark.parametrize("change", [b"", b"# fine\n\n", b"# fine"])
def test_another_length(finalized, change):
    (finalized / "report.md").write_bytes(change)
    rejected(finalized, r"report\.md has changed")


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md"])
def test_a_missing_file(finalized, name):
    (finalized / name).unlink()
    rejected(finalized, f"{name} is missing")


def test_a_missing_manifest(finalized):
    (finalized / MANIFEST_NAME).unlink()
    rejected(finalized, "is not a bundle")


@pytest.mark.parametrize("name", ["extra.txt", ".hidden", "saved_model/1/saved_model.pb", "a\nb"])
def test_an_extra_file(finalized, name):
    (finalized / name).parent.mkdir(parents=True, exist_ok=True)
    (finalized / name).write_text("boo")
    rejected(finalized, "is not in manifest.json")


def test_nothing_there_or_not_a_directory(tmp_path):
    rejected(tmp_path / "nowhere", "no such file or directory")
    (tmp_path / "file").write_text("x")
    rejected(tmp_path / "file", "not a directory")


@pytest.mark.parametrize("name", [ONNX_NAME, "report.md", MANIFEST_NAME])
def test_a_symbolic_link_though_it_leads_to_the_same_content(finalized, tmp_path, name):
    (finalized / name).rename(tmp_path / "elsewhere")
    (finalized / name).symlink_to(tmp_path / "elsewhere")
    rejected(finalized, f"{name} is a symbolic link")


def test_a_symbolic_link_to_a_directory(finalized, tmp_path):
    (tmp_path / "outside").mkdir()
    (finalized / "saved_model").symlink_to(tmp_path / "outside")
    rejected(finalized, "saved_model is a symbolic link")


@pytest.mark.parametrize("name", [ONNX_NAME, MANIFEST_NAME])
def test_a_hard_link(finalized, tmp_path, name):
    (tmp_path / "handle").hardlink_to(finalized / name)
    rejected(finalized, f"{name} is a hard link")


def test_a_file_that_is_none(finalized):
    os.mkfifo(finalized / "pipe")
    rejected(finalized, "pipe is not a plain file")


@pytest.mark.timeout(20)  # opening a pipe for reading would wait for ever
@pytest.mark.parametrize("kind", ["nothing", "symbolic link", "hard link", "pipe"])
def test_a_digest_is_that_of_a_plain_file(finalized, tmp_path, kind):
    """A file that is swapped after the look around is caught when it is opened."""
    manifest = finalized / MANIFEST_NAME
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
        bundle_digest(finalized)


def test_an_outsized_file_is_not_even_read(finalized):
    with (finalized / "report.md").open("r+b") as stream:
        stream.truncate(50_000_001)
    rejected(finalized, r"report\.md has 50,000,001 bytes")


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(finalized, monkeypatch):
    largest = max(path.stat().st_size for path in finalized.iterdir())
    monkeypatch.setattr(plain_files, "MAX_FILE_BYTES", largest)
    verify_bundle(finalized)
    monkeypatch.setattr(plain_files, "MAX_FILE_BYTES", largest - 1)
    rejected(finalized, f"has {largest:,} bytes")


def test_an_outsized_manifest(finalized):
    path = finalized / MANIFEST_NAME
    path.write_text(path.read_text() + " " * 1_000_000)
    rejected(finalized, r"manifest\.json has")


def test_more_files_than_any_bundle_has(finalized):
    for number in range(plain_files.MAX_ENTRIES):
        (finalized / f"d{number}").mkdir()
    rejected(finalized, "more than 200 files and directories")


def test_another_bundle_than_the_approved_one(finalized):
    rejected(finalized, "not the bundle that was approved", digest="0" * 64)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"name": 1}', b"[" * 100_000, b'{"a":' * 50_000],
)
def test_a_manifest_that_is_none(finalized, content):
    (finalized / MANIFEST_NAME).write_bytes(content)
    rejected(finalized, r"manifest\.json is invalid")


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
def test_a_manifest_that_is_invalid(finalized, field, value):
    rewrite(finalized, **{field: value})
    rejected(finalized, r"manifest\.json (is invalid|has|does not name)")


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
def test_a_manifest_that_names_a_file_outside(finalized, tmp_path, name):
    (tmp_path / "outside.txt").write_text("secret")
    files = json.loads((finalized / MANIFEST_NAME).read_text())["files"]
    record = {"sha256": hashlib.sha256(b"secret").hexdigest(), "size_bytes": 6}
    rewrite(finalized, files=files | {name: record})
    rejected(finalized, "a bundle can't contain")


def test_what_is_opened_is_what_was_checked(finalized, forest):
    opened = open_bundle(finalized)
    (finalized / ONNX_NAME).write_bytes(b"swapped afterwards")
    assert opened.onnx == forest.onnx
    assert LATENCY.name != opened.manifest.name
