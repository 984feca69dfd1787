"""A signature is that of one key over one set of files; anything else is refused."""

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, DwcpError, ErrorCode
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import bundle_digest, open_bundle, verify_bundle
from tests.errors import about
from tests.export.bundles import finalize, finalize_again, rejected

pytestmark = pytest.mark.slow


def test_a_signature_changes_nothing_else(finalized, keys):
    before = {file: file.read_bytes() for file in finalized.rglob("*") if file.is_file()}
    digest = bundle_digest(finalized)
    assert open_bundle(finalized).signature == "none"
    assert sign_bundle(finalized, keys[0]) == finalized / SIGNATURE_NAME
    after = {file: file.read_bytes() for file in finalized.rglob("*") if file.is_file()}
    assert after.keys() - before.keys() == {finalized / SIGNATURE_NAME}
    assert {file: after[file] for file in before} == before
    assert bundle_digest(finalized) == digest
    assert stat.S_IMODE((finalized / SIGNATURE_NAME).stat().st_mode) == 0o644
    assert [path.name for path in finalized.parent.iterdir()] == ["7"]
    assert open_bundle(finalized).signature == "unchecked"
    assert verify_bundle(finalized, digest=digest).version == "7"
    opened = open_bundle(finalized, digest=digest, public_key=keys[1])
    assert (opened.signature, opened.digest) == ("valid", digest)


def test_a_signature_covers_the_manifest_and_every_file(signed):
    envelope = json.loads((signed / SIGNATURE_NAME).read_text())["dsseEnvelope"]
    resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
    assert {item["name"]: item["digest"] for item in resources} == {
        file.relative_to(signed).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in signed.rglob("*")
        if file.is_file() and file.name != SIGNATURE_NAME
    }


def test_the_library_alone_takes_our_signature_and_we_take_its(signed, keys):
    from model_signing import hashing, signing, verifying

    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    verifier.verify(signed, signed / SIGNATURE_NAME)
    (signed / SIGNATURE_NAME).unlink()
    own = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.set_hashing_config(own).sign(signed, signed / SIGNATURE_NAME)
    assert open_bundle(signed, public_key=keys[1]).signature == "valid"


def test_a_bundle_that_is_refused_is_not_signed(finalized, keys):
    (finalized / "report.md").write_text("other")
    with pytest.raises(BundleRefused, check=about(ErrorCode.CHANGED, "report.md")):
        sign_bundle(finalized, keys[0])
    assert not (finalized / SIGNATURE_NAME).exists()


def test_signing_again_replaces_the_signature(signed, keys, other_keys):
    sign_bundle(signed, other_keys[0])
    assert open_bundle(signed, public_key=other_keys[1]).signature == "valid"
    rejected(signed, "made with another key", public_key=keys[1])


def test_a_signature_that_can_t_be_written_leaves_the_old_one(signed, keys, monkeypatch):
    before = (signed / SIGNATURE_NAME).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DwcpError, check=about(ErrorCode.DISK_FULL, SIGNATURE_NAME)):
        sign_bundle(signed, keys[0])
    assert (signed / SIGNATURE_NAME).read_bytes() == before
    assert [path.name for path in signed.parent.iterdir()] == ["7"]


def test_a_bundle_through_a_link_is_signed_where_it_is(finalized, keys, tmp_path):
    (tmp_path / "latest").symlink_to(finalized)
    sign_bundle(tmp_path / "latest", keys[0])
    assert open_bundle(finalized, public_key=keys[1]).signature == "valid"


def test_a_finalized_bundle_never_lists_a_signature(tmp_path, forest, report):
    destination = tmp_path / "7"
    with (
        pytest.raises(BundleRefused, check=about(ErrorCode.FORBIDDEN, SIGNATURE_NAME)),
        staging(destination) as directory,
    ):
        (directory / ONNX_NAME).write_bytes(forest.onnx)
        (directory / SIGNATURE_NAME).write_text("mine")
        finalize_bundle(directory, destination, RELIABILITY, report)
    assert not destination.exists()


def test_no_signature(finalized, keys):
    rejected(finalized, "is not signed.*dwcp-ml bundle sign", public_key=keys[1])


def test_another_key(signed, other_keys):
    rejected(signed, "made with another key", public_key=other_keys[1])


def rename_key(signature, keys):
    """Say that it is of our key: the hint is not signed."""
    content = json.loads(signature)
    hint = hashlib.sha256(keys[1].read_bytes()).hexdigest()
    content["verificationMaterial"]["publicKey"]["hint"] = hint
    return json.dumps(content).encode()


def test_another_key_that_claims_to_be_ours(signed, keys, other_keys):
    sign_bundle(signed, other_keys[0])
    path = signed / SIGNATURE_NAME
    path.write_bytes(rename_key(path.read_bytes(), keys))
    rejected(signed, "damaged or forged", public_key=keys[1])


def change_file(path):
    (path / "report.md").write_text("# bad!\n")


def add_file(path):
    (path / "more.txt").write_text("more")


def remove_file(path):
    (path / "report.md").unlink()


def swap_files(path):
    (path / "report.md").rename(path / "swap")
    (path / "saved_model" / "1" / "saved_model.pb").rename(path / "report.md")
    (path / "swap").rename(path / "saved_model" / "1" / "saved_model.pb")


@pytest.mark.parametrize("change", [change_file, add_file, remove_file, swap_files])
def test_what_is_changed_after_signing_is_refused_though_finalized_again(signed, keys, change):
    change(signed)
    with pytest.raises(BundleRefused):
        open_bundle(signed)
    finalize_again(signed)
    assert open_bundle(signed).signature == "unchecked"
    rejected(signed, "covers other files than those of the bundle", public_key=keys[1])


def test_a_manifest_alone_that_is_changed_after_signing(signed, keys):
    """What it promises is signed too, not only the files that it lists."""
    text = (signed / MANIFEST_NAME).read_text()
    (signed / MANIFEST_NAME).write_text(text.replace('"threshold": 0.5', '"threshold": 0.9'))
    assert open_bundle(signed).manifest.threshold == 0.9
    rejected(signed, "covers other files", public_key=keys[1])


def test_a_signature_of_another_bundle(signed, keys, tmp_path, forest, report):
    other = finalize(tmp_path / "others", forest, report, text="# other\n")
    shutil.copy(sign_bundle(other, keys[0]), signed / SIGNATURE_NAME)
    rejected(signed, "covers other files", public_key=keys[1])


def test_a_signature_cut_short_anywhere(signed, keys):
    whole = (signed / SIGNATURE_NAME).read_bytes()
    for length in range(0, len(whole), 97):
        (signed / SIGNATURE_NAME).write_bytes(whole[:length])
        rejected(signed, r"model\.sig", public_key=keys[1])


def edited(signature, change):
    content = json.loads(signature)
    change(content, content["dsseEnvelope"])
    return json.dumps(content).encode()


def add_to_payload(content, envelope):
    payload = base64.b64decode(envelope["payload"])
    envelope["payload"] = base64.b64encode(payload.replace(b"report.md", b"rep0rt.md")).decode()


FORGERIES = {
    "payload": add_to_payload,
    "no payload": lambda c, e: e.update(payload=""),
    "type of payload": lambda c, e: e.update(payloadType="text/plain"),
    "no signature": lambda c, e: e.update(signatures=[]),
    "empty signature": lambda c, e: e["signatures"][0].update(sig=""),
    "signature not base64": lambda c, e: e["signatures"][0].update(sig="*"),
    "zero signature": lambda c, e: e["signatures"][0].update(
        sig=base64.b64encode(bytes.fromhex("3006020100020100")).decode()
    ),
    "media type": lambda c, e: c.update(mediaType="application/json"),
    "no envelope": lambda c, e: c.pop("dsseEnvelope"),
    "null envelope": lambda c, e: c.update(dsseEnvelope=None),
    "no material": lambda c, e: c.pop("verificationMaterial"),
    "list for material": lambda c, e: c.update(verificationMaterial=[]),
    "no hint": lambda c, e: c["verificationMaterial"]["publicKey"].pop("hint"),
    "a number for hint": lambda c, e: c["verificationMaterial"]["publicKey"].update(hint=1),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_forged_signatures(signed, keys, capsys, case):
    path = signed / SIGNATURE_NAME
    path.write_bytes(edited(path.read_bytes(), FORGERIES[case]))
    rejected(
        signed, r"model\.sig is (rejected: it is damaged or forged|not a sig)", public_key=keys[1]
    )
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 30_000],
)
def test_signatures_that_are_none(signed, keys, content):
    (signed / SIGNATURE_NAME).write_bytes(content)
    rejected(signed, "is not a signature with a key", public_key=keys[1])


def test_a_signature_may_not_choose_what_it_leaves_out(signed, keys):
    """Of a signer who ignores a file, the library alone would take the rest."""
    from model_signing import hashing, signing, verifying

    (signed / SIGNATURE_NAME).unlink()
    own = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME, ONNX_NAME])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.set_hashing_config(own).sign(signed, signed / SIGNATURE_NAME)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    verifier.verify(signed, signed / SIGNATURE_NAME)
    rejected(signed, "covers other files", public_key=keys[1])


def test_no_place_for_a_temporary_file(signed, keys, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(signed / "nowhere"))
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "TMPDIR")):
        open_bundle(signed, public_key=keys[1])


def python(program, *words):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_library_is_imported_for_a_key_only(signed):
    program = (
        "import sys; from pathlib import Path; import dwcp_ml.export.signing;"
        "from dwcp_ml.export.verify import open_bundle;"
        "print(open_bundle(Path(sys.argv[1])).signature);"
        "print(sorted({'model_signing','sigstore','cryptography','tensorflow'} & set(sys.modules)))"
    )
    assert python(program, signed) == "unchecked\n[]\n"


def test_no_network_is_touched(signed, keys):
    """Not counting urllib3, which tries at import whether the machine can bind an IPv6 address."""
    program = """
import sys
from pathlib import Path
def refuse(event, arguments):
    probing = event == "socket.bind" and arguments[1] == ("::1", 0)
    if event.startswith("socket.") and event not in HARMLESS and not probing:
        raise SystemExit(f"{event} {arguments}")
HARMLESS = ("socket.__new__", "socket.gethostname")
sys.addaudithook(refuse)
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import open_bundle
sign_bundle(Path(sys.argv[1]), Path(sys.argv[2]))
print(open_bundle(Path(sys.argv[1]), public_key=Path(sys.argv[3])).signature)
"""
    assert python(program, signed, *keys) == "valid\n"
