"""A bundle on its way to a store and back: what arrives is the bundle, or nothing.

The object store is a fake of S3; the file system is real.
"""

import json
import shutil

import pytest

from dwcp_ml.bundle_store import pull, push
from dwcp_ml.cli import main
from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, ExportFailed, UsageError
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import bundle_digest, open_bundle
from dwcp_ml.storage.remote_objects import Remote, StorageError
from tests.errors import about, coded
from tests.export.bundles import replace_file
from tests.serving.bundles import make_bundle

pytestmark = pytest.mark.slow

NAME = "compression_selector"


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "run", NAME, "v1", reports=True)


@pytest.fixture
def another(tmp_path, bundle):
    """Another bundle of the same version."""
    return make_bundle(tmp_path / "other", NAME, "v1")


@pytest.fixture(params=["s3", "pvc", "path"])
def prefix(request, tmp_path, monkeypatch):
    if request.param == "s3":
        return request.getfixturevalue("bucket").address("models")
    (tmp_path / "claims/dwcp-models").mkdir(parents=True)
    monkeypatch.setenv("DWCP_PVC_ROOT", str(tmp_path / "claims"))
    return "pvc://dwcp-models/a" if request.param == "pvc" else str(tmp_path / "store")


def content(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_there_and_back(prefix, bundle, tmp_path):
    pushed = push(bundle, f"{prefix}/")
    assert pushed.address == f"{prefix}/{NAME}/v1"
    assert (pushed.digest, pushed.is_new) == (bundle_digest(bundle), True)
    back = pull(pushed.address, tmp_path / "back", digest=pushed.digest)
    assert back == tmp_path / "back" / NAME / "v1"
    assert content(back) == content(bundle)
    assert not push(bundle, prefix).is_new, "the same again is fine"
    assert pull(pushed.address, tmp_path / "back") == back


def test_another_bundle_of_the_version_is_refused_and_nothing_changes(prefix, bundle, another):
    address = push(bundle, prefix).address
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        push(another, prefix)
    assert pull(address, another.parents[2] / "back", digest=bundle_digest(bundle))


def test_a_digest_that_was_not_approved_is_refused_before_anything_is_copied(
    prefix, bundle, another
):
    with pytest.raises(BundleRefused, check=coded(ErrorCode.CHANGED)):
        push(another, prefix, digest=bundle_digest(bundle))
    assert push(bundle, prefix).is_new
    with pytest.raises(BundleRefused, check=coded(ErrorCode.CHANGED)):
        pull(f"{prefix}/{NAME}/v1", bundle.parents[2] / "back", digest="0" * 64)
    assert not (bundle.parents[2] / "back").exists()


def test_a_signature_goes_along_also_later(prefix, bundle, tmp_path):
    private, public = make_key_pair(tmp_path / "keys")
    address = push(bundle, prefix).address
    with pytest.raises(BundleRefused, check=coded(ErrorCode.UNSIGNED)):
        pull(address, tmp_path / "back", public_key=public)
    sign_bundle(bundle, private)
    assert not push(bundle, prefix).is_new
    back = pull(address, tmp_path / "signed", public_key=public)
    assert (back / SIGNATURE_NAME).read_bytes() == (bundle / SIGNATURE_NAME).read_bytes()


class Broken(Exception):
    """The process is killed."""


@pytest.mark.parametrize("after", range(3))
def test_an_interrupted_push_is_no_bundle_and_can_be_repeated(
    bucket, bundle, another, tmp_path, monkeypatch, after
):
    """The graph, the report and then the manifest: it breaks before each."""
    prefix, create, written = bucket.address("models"), Remote.create, []

    def broken(self, data):
        if len(written) == after:
            raise Broken
        written.append(self.address)
        return create(self, data)

    monkeypatch.setattr(Remote, "create", broken)
    with pytest.raises(Broken):
        push(bundle, prefix)
    monkeypatch.undo()
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    assert len(bucket.keys()) == after
    with pytest.raises(BundleRefused, check=coded(ErrorCode.MISSING)):
        pull(f"{prefix}/{NAME}/v1", tmp_path / "back")
    if after == 2:  # the graph of both is the same, the report is not
        with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
            push(another, prefix)
    assert push(bundle, prefix).is_new
    assert content(pull(f"{prefix}/{NAME}/v1", tmp_path / "back")) == content(bundle)


def test_the_manifest_is_written_last(bucket, bundle, monkeypatch):
    create, written = Remote.create, []

    def recorded(self, data):
        written.append(self.address.rpartition("/v1/")[2])
        return create(self, data)

    monkeypatch.setattr(Remote, "create", recorded)
    push(bundle, bucket.address("models"))
    assert written[-1] == MANIFEST_NAME
    assert set(written) == set(content(bundle))


def test_what_was_damaged_on_the_way_is_noticed(bucket, bundle, monkeypatch):
    create = Remote.create

    def damaged(self, data):
        return create(self, data[:-1] if self.address.endswith("model.onnx") else data)

    monkeypatch.setattr(Remote, "create", damaged)
    with pytest.raises(BundleRefused, check=coded(ErrorCode.CHANGED)) as refused:
        push(bundle, bucket.address("models"))
    assert bucket.address(f"models/{NAME}/v1") in str(refused.value)


def test_a_file_that_is_not_the_bundles_is_refused(bucket, bundle):
    bucket.put(f"models/{NAME}/v1/extra", b"")
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        push(bundle, bucket.address("models"))
    assert bucket.keys() == [f"models/{NAME}/v1/extra"]
    bucket.remove(f"models/{NAME}/v1/extra")
    push(bundle, bucket.address("models"))
    bucket.put(f"models/{NAME}/v1/extra", b"")
    with pytest.raises(BundleRefused, check=coded(ErrorCode.FORBIDDEN)):
        push(bundle, bucket.address("models"))


@pytest.mark.parametrize("change", ["missing", "changed", "large"])
def test_a_bundle_that_is_damaged_in_the_store_is_not_pulled(
    bucket, bundle, tmp_path, change, monkeypatch
):
    address, key = push(bundle, bucket.address("m")).address, f"m/{NAME}/v1/model.onnx"
    if change == "missing":
        bucket.remove(key)
    elif change == "changed":
        bucket.put(key, bucket.get(key)[::-1])
    else:
        monkeypatch.setattr("dwcp_ml.bundle_store.objects.MAX_FILE_BYTES", 100)
    with pytest.raises((StorageError, BundleRefused)) as refused:
        pull(address, tmp_path / "back")
    assert refused.value.code in (ErrorCode.MISSING, ErrorCode.CHANGED, ErrorCode.TOO_LARGE)
    assert address in str(refused.value)
    assert not (tmp_path / "back").exists()


def test_the_web_and_unknown_stores_take_no_bundle(bundle):
    for prefix in ("https://example.com/models", "http://h/m", "oci://registry/models"):
        with pytest.raises(UsageError, check=coded(ErrorCode.UNSUPPORTED)):
            push(bundle, prefix)


def test_what_is_no_bundle_is_not_pushed(bundle, tmp_path):
    (bundle / MANIFEST_NAME).unlink()
    with pytest.raises(BundleRefused, check=coded(ErrorCode.MISSING)):
        push(bundle, str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    shutil.rmtree(bundle)
    with pytest.raises(BundleRefused):
        push(bundle, str(tmp_path / "store"))


def test_a_copy_on_a_volume_is_complete_or_not_there(bundle, tmp_path, monkeypatch):
    def killed(*arguments, **options):
        shutil.copyfile(bundle / MANIFEST_NAME, arguments[1] / MANIFEST_NAME)
        raise Broken

    monkeypatch.setattr("dwcp_ml.export.bundle.shutil.copytree", killed)
    with pytest.raises(Broken):
        push(bundle, str(tmp_path / "store"))
    assert not (tmp_path / "store" / NAME / "v1").exists()
    monkeypatch.undo()
    push(bundle, str(tmp_path / "store"))
    open_bundle(tmp_path / "store" / NAME / "v1", strict_location=True)


def test_the_commands(prefix, bundle, tmp_path, capsys):
    assert main(["bundle", "push", str(bundle), prefix, "--json"]) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert pushed == {
        "address": f"{prefix}/{NAME}/v1", "digest": bundle_digest(bundle), "is_new": True,
    }  # fmt: skip
    assert main(["bundle", "push", str(bundle), prefix]) == 0
    assert "was there already" in capsys.readouterr().out
    words = ["bundle", "pull", pushed["address"], "--output-dir", str(tmp_path / "back")]
    assert main([*words, "--digest", pushed["digest"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path / "back" / NAME / "v1")}
    assert main(["bundle", "pull", f"{prefix}/{NAME}/v2", "--output-dir", str(tmp_path)]) == 1


@pytest.mark.parametrize(("first", "second"), [("v1", "v10"), ("v10", "v1"), ("1", "1-1")])
def test_versions_that_kserve_would_mix_are_refused(bucket, tmp_path, first, second):
    """Its storage initializer copies whatever begins with the address."""
    prefix = bucket.address("models")
    push(make_bundle(tmp_path, NAME, first), prefix)
    before = bucket.keys()
    with pytest.raises(ExportFailed, check=about(ErrorCode.AMBIGUOUS, second)):
        push(make_bundle(tmp_path, NAME, second), prefix)
    assert bucket.keys() == before
    push(make_bundle(tmp_path, "bandwidth_predictor", second), prefix)
    push(make_bundle(tmp_path / "volume", NAME, second), str(tmp_path / "store"))


def test_an_empty_file_which_kserve_leaves_out_is_refused(bucket, bundle, tmp_path):
    replace_file(bundle, "report.md", b"")
    with pytest.raises(ExportFailed, check=about(ErrorCode.UNSUPPORTED, "report.md")):
        push(bundle, bucket.address("models"))
    assert bucket.keys() == []
    assert push(bundle, str(tmp_path / "store")).is_new


def changed_after_it_was_opened(bundle, monkeypatch):
    def opened(path, **options):
        found = open_bundle(path, **options)
        if path == bundle:
            (bundle / "report.json").write_text("{}")
        return found

    monkeypatch.setattr("dwcp_ml.bundle_store.transfer.open_bundle", opened)


def test_a_bundle_that_changes_while_it_is_copied_is_not_published(
    prefix, bundle, tmp_path, monkeypatch
):
    intact = tmp_path / "intact" / NAME / "v1"
    shutil.copytree(bundle, intact)
    with monkeypatch.context() as patched:
        changed_after_it_was_opened(bundle, patched)
        with pytest.raises(BundleRefused, check=coded(ErrorCode.CHANGED)):
            push(bundle, prefix)
    with pytest.raises(BundleRefused):
        pull(f"{prefix}/{NAME}/v1", tmp_path / "back")
    assert push(intact, prefix).is_new


@pytest.mark.parametrize("change", ["damaged", "missing"])
def test_there_is_no_manifest_before_everything_else_was_read_back(
    bucket, bundle, monkeypatch, change
):
    create = Remote.create

    def damaged(self, data):
        if not self.address.endswith("report.json"):
            return create(self, data)
        return create(self, data[::-1]) if change == "damaged" else True

    monkeypatch.setattr(Remote, "create", damaged)
    with pytest.raises((BundleRefused, StorageError)):
        push(bundle, bucket.address("models"))
    assert MANIFEST_NAME not in str(bucket.keys())


@pytest.mark.parametrize("name", [MANIFEST_NAME, "model.onnx", "extra"])
def test_what_changes_before_the_end_of_a_push_is_noticed(bucket, bundle, monkeypatch, name):
    """Another process removes the manifest or a file, or adds one, after all was written."""
    create, key = Remote.create, f"m/{NAME}/v1/{name}"

    def meanwhile(self, data):
        written = create(self, data)
        if self.address.endswith(MANIFEST_NAME):
            bucket.put(key, b"") if name == "extra" else bucket.remove(key)
        return written

    monkeypatch.setattr(Remote, "create", meanwhile)
    with pytest.raises(BundleRefused) as refused:
        push(bundle, bucket.address("m"))
    assert refused.value.code in (ErrorCode.MISSING, ErrorCode.FORBIDDEN)


def test_two_versions_that_kserve_would_mix_are_not_pushed_at_once(bucket, tmp_path, monkeypatch):
    prefix, create = bucket.address("models"), Remote.create
    first, second = (make_bundle(tmp_path, NAME, version) for version in ("v1", "v10"))

    def meanwhile(self, data):
        monkeypatch.setattr(Remote, "create", create)
        push(second, prefix)
        return create(self, data)

    monkeypatch.setattr(Remote, "create", meanwhile)
    with pytest.raises(ExportFailed, check=about(ErrorCode.AMBIGUOUS, "v1")):
        push(first, prefix)
    assert bucket.keys(f"models/{NAME}/v1/") == []
    assert not push(second, prefix).is_new


def test_another_signature_is_neither_overwritten_nor_accepted(prefix, bundle, tmp_path):
    address = push(bundle, prefix).address
    for number in (1, 2):
        private, public = make_key_pair(tmp_path / f"keys{number}")
        sign_bundle(bundle, private)
        if number == 1:
            push(bundle, prefix)
            first = public
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        push(bundle, prefix)
    assert pull(address, tmp_path / "back", public_key=first)


def test_a_signature_of_nobody_that_lies_there_is_refused(bucket, bundle, tmp_path):
    sign_bundle(bundle, make_key_pair(tmp_path / "keys")[0])
    bucket.put(f"m/{NAME}/v1/{SIGNATURE_NAME}", b"junk")
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        push(bundle, bucket.address("m"))
    assert MANIFEST_NAME not in str(bucket.keys())


def test_markers_of_folders_do_not_matter(bucket, bundle, tmp_path):
    for key in (f"m/{NAME}/", f"m/{NAME}/v1/"):
        bucket.put(key, b"")
    assert push(bundle, bucket.address("m")).is_new
    assert not push(bundle, bucket.address("m")).is_new
    assert content(pull(bucket.address(f"m/{NAME}/v1"), tmp_path / "back")) == content(bundle)


def test_an_unknown_directory_is_not_replaced(bundle, tmp_path):
    store = tmp_path / "store"
    unknown = store / NAME / "v1"
    unknown.mkdir(parents=True)
    (unknown / "notes.txt").write_text("mine")
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        push(bundle, str(store))
    with pytest.raises(ExportFailed, check=coded(ErrorCode.ALREADY_EXISTS)):
        pull(str(bundle), store)
    assert (unknown / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(("count", "size_bytes"), [(250, 1), (10, 40_000_000), (1, 60_000_000)])
def test_nothing_is_copied_for_a_manifest_beyond_the_limits(
    bucket, bundle, tmp_path, monkeypatch, count, size_bytes
):
    copied = []
    download = Remote.download

    def recorded(self, target, max_bytes=None):
        copied.append((self.address.rpartition("/v1/")[2], max_bytes))
        return download(self, target, max_bytes)

    address, manifest = push(bundle, bucket.address("m")).address, f"m/{NAME}/v1/{MANIFEST_NAME}"
    changed = json.loads(bucket.get(manifest))
    record = {"sha256": "0" * 64, "size_bytes": size_bytes}
    changed["files"] |= {f"f{number}": record for number in range(count)}
    bucket.put(manifest, json.dumps(changed).encode())
    monkeypatch.setattr(Remote, "download", recorded)
    with pytest.raises(BundleRefused, check=coded(ErrorCode.TOO_LARGE)):
        pull(address, tmp_path / "back")
    assert {name for name, _ in copied} == {MANIFEST_NAME}


def test_no_more_of_a_file_is_copied_than_the_manifest_says(bucket, bundle, tmp_path):
    address, key = push(bundle, bucket.address("m")).address, f"m/{NAME}/v1/report.json"
    bucket.put(key, bucket.get(key) + b" ")
    with pytest.raises(StorageError, check=coded(ErrorCode.TOO_LARGE)):
        pull(address, tmp_path / "back")
