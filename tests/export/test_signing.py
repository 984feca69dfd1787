"""A signature is that of one key over one set of files; anything else is refused."""

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import click
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dwcp_ml.cli.sign import group
from dwcp_ml.contract.bundle import MANIFEST_NAME, ONNX_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import BundleRefused, DwcpError, UsageError
from dwcp_ml.contract.models import RELIABILITY
from dwcp_ml.export.bundle import seal_bundle, staging
from dwcp_ml.export.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME
from dwcp_ml.export.signing import make_key_pair, sign_bundle
from dwcp_ml.export.verify import bundle_digest, open_bundle, verify_bundle

TRAINED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DATE = TRAINED.isoformat()


def seal(models, forest, report, version="7", text="# fine\n", trained=DATE):
    destination = models / "reliability_detector" / version
    with staging(destination) as directory:
        (directory / ONNX_NAME).write_bytes(forest.onnx())
        (directory / "report.md").write_text(text)
        (directory / "saved_model" / "1").mkdir(parents=True)
        (directory / "saved_model" / "1" / "saved_model.pb").write_bytes(b"graph")
        told = report.model_copy(update={"version": version, "training_date": trained})
        return seal_bundle(directory, destination, RELIABILITY, told)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def other_keys(tmp_path_factory):
    return make_key_pair(tmp_path_factory.mktemp("other"))


@pytest.fixture
def sealed(tmp_path, forest, report):
    return seal(tmp_path / "models", forest, report)


@pytest.fixture
def signed(sealed, keys):
    sign_bundle(sealed, keys[0])
    return sealed


def refused(path, match, **options):
    with pytest.raises(BundleRefused, match=match) as caught:
        open_bundle(path, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def reseal(path):
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    manifest["files"] = {
        file.relative_to(path).as_posix(): {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size_bytes": file.stat().st_size,
        }
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (MANIFEST_NAME, SIGNATURE_NAME)
    }
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))


# --- keys ---------------------------------------------------------------------------------------


def test_a_key_pair_is_p256_and_its_private_half_is_private(tmp_path):
    private, public = make_key_pair(tmp_path / "new" / "keys")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    key = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(key.curve, ec.SECP256R1)
    assert serialization.load_pem_public_key(public.read_bytes()) == key.public_key()
    assert sorted(path.name for path in private.parent.iterdir()) == [
        PRIVATE_KEY_NAME,
        PUBLIC_KEY_NAME,
    ]
    assert make_key_pair(tmp_path / "more")[0].read_bytes() != private.read_bytes()


@pytest.mark.parametrize("name", [PRIVATE_KEY_NAME, PUBLIC_KEY_NAME])
@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_key_is_never_overwritten(tmp_path, name, kind):
    if kind == "file":
        (tmp_path / name).write_text("mine")
    else:
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="never overwritten"):
        make_key_pair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_for_keys_that_is_none(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DwcpError, match=r"can't write a key into .*not a directory"):
        make_key_pair(tmp_path / "file" / "keys")


def pem_of(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_pem_of(key):
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_longer_curves_will_do(tmp_path, sealed, curve):
    key = ec.generate_private_key(curve)
    (tmp_path / "key").write_bytes(pem_of(key))
    (tmp_path / "pub").write_bytes(public_pem_of(key))
    sign_bundle(sealed, tmp_path / "key")
    assert open_bundle(sealed, public_key=tmp_path / "pub").signature == "valid"


@pytest.mark.parametrize("kind", ["nothing", "garbage", "rsa", "curve", "half", "directory"])
def test_keys_that_are_none(tmp_path, signed, keys, kind):
    """A key that can't be used is the caller's mistake: it says nothing of the bundle."""
    odd = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "curve": lambda: ec.generate_private_key(ec.SECP256K1()),
    }
    path, public = tmp_path / "key", tmp_path / "pub"
    if kind in odd:
        key = odd[kind]()
        path.write_bytes(pem_of(key))
        public.write_bytes(public_pem_of(key))
    elif kind == "garbage":
        path.write_bytes(b"\xff\x00garbage")
        public.write_bytes(b"\xff\x00garbage")
    elif kind == "half":
        path, public = keys[1], keys[0]
    elif kind == "directory":
        path = public = tmp_path
    with pytest.raises(UsageError, match="keygen"):
        sign_bundle(signed, path)
    with pytest.raises(UsageError, match="keygen"):
        open_bundle(signed, public_key=public)


def test_an_encrypted_key(tmp_path, sealed):
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with pytest.raises(UsageError, match="is encrypted"):
        sign_bundle(sealed, tmp_path / "key")
    assert not (sealed / SIGNATURE_NAME).exists()


# --- signing ------------------------------------------------------------------------------------


def test_a_signature_changes_nothing_else(sealed, keys):
    before = {file: file.read_bytes() for file in sealed.rglob("*") if file.is_file()}
    digest = bundle_digest(sealed)
    assert open_bundle(sealed).signature == "none"
    assert sign_bundle(sealed, keys[0]) == sealed / SIGNATURE_NAME
    after = {file: file.read_bytes() for file in sealed.rglob("*") if file.is_file()}
    assert after.keys() - before.keys() == {sealed / SIGNATURE_NAME}
    assert {file: after[file] for file in before} == before
    assert bundle_digest(sealed) == digest
    assert stat.S_IMODE((sealed / SIGNATURE_NAME).stat().st_mode) == 0o644
    assert [path.name for path in sealed.parent.iterdir()] == ["7"]
    assert open_bundle(sealed).signature == "unchecked"
    assert verify_bundle(sealed, digest=digest).version == "7"
    opened = open_bundle(sealed, digest=digest, public_key=keys[1])
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


def test_a_bundle_that_is_refused_is_not_signed(sealed, keys):
    (sealed / "report.md").write_text("other")
    with pytest.raises(BundleRefused, match="has changed"):
        sign_bundle(sealed, keys[0])
    assert not (sealed / SIGNATURE_NAME).exists()


def test_signing_again_replaces_the_signature(signed, keys, other_keys):
    sign_bundle(signed, other_keys[0])
    assert open_bundle(signed, public_key=other_keys[1]).signature == "valid"
    refused(signed, "made with another key", public_key=keys[1])


def test_a_signature_that_can_t_be_written_leaves_the_old_one(signed, keys, monkeypatch):
    before = (signed / SIGNATURE_NAME).read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DwcpError, match=r"can't write .*model\.sig: no space left"):
        sign_bundle(signed, keys[0])
    assert (signed / SIGNATURE_NAME).read_bytes() == before
    assert [path.name for path in signed.parent.iterdir()] == ["7"]


def test_a_bundle_through_a_link_is_signed_where_it_is(sealed, keys, tmp_path):
    (tmp_path / "latest").symlink_to(sealed)
    sign_bundle(tmp_path / "latest", keys[0])
    assert open_bundle(sealed, public_key=keys[1]).signature == "valid"


def test_a_sealed_bundle_never_lists_a_signature(tmp_path, forest, report):
    destination = tmp_path / "7"
    with (
        pytest.raises(BundleRefused, match=r"'model\.sig', which can't lie in a bundle"),
        staging(destination) as directory,
    ):
        (directory / ONNX_NAME).write_bytes(forest.onnx())
        (directory / SIGNATURE_NAME).write_text("mine")
        seal_bundle(directory, destination, RELIABILITY, report)
    assert not destination.exists()


# --- refusals -----------------------------------------------------------------------------------


def test_no_signature(sealed, keys):
    refused(sealed, "is not signed.*dwcp-ml bundle sign", public_key=keys[1])


def test_another_key(signed, other_keys):
    refused(signed, "made with another key", public_key=other_keys[1])


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
    refused(signed, "damaged or forged", public_key=keys[1])


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
def test_what_is_changed_after_signing_is_refused_though_sealed_again(signed, keys, change):
    change(signed)
    with pytest.raises(BundleRefused):
        open_bundle(signed)
    reseal(signed)
    assert open_bundle(signed).signature == "unchecked"
    refused(signed, "of other files than those of the bundle", public_key=keys[1])


def test_a_manifest_alone_that_is_changed_after_signing(signed, keys):
    """What it promises is signed too, not only the files that it lists."""
    text = (signed / MANIFEST_NAME).read_text()
    (signed / MANIFEST_NAME).write_text(text.replace('"threshold": 0.5', '"threshold": 0.9'))
    assert open_bundle(signed).manifest.threshold == 0.9
    refused(signed, "of other files", public_key=keys[1])


def test_a_signature_of_another_bundle(signed, keys, tmp_path, forest, report):
    other = seal(tmp_path / "others", forest, report, text="# other\n")
    shutil.copy(sign_bundle(other, keys[0]), signed / SIGNATURE_NAME)
    refused(signed, "of other files", public_key=keys[1])


def test_a_signature_cut_short_anywhere(signed, keys):
    whole = (signed / SIGNATURE_NAME).read_bytes()
    for length in range(0, len(whole), 97):
        (signed / SIGNATURE_NAME).write_bytes(whole[:length])
        refused(signed, r"model\.sig", public_key=keys[1])


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
    refused(signed, r"model\.sig is (refused: it is damaged or forged|no sig)", public_key=keys[1])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 30_000],
)
def test_signatures_that_are_none(signed, keys, content):
    (signed / SIGNATURE_NAME).write_bytes(content)
    refused(signed, "is no signature made with a key", public_key=keys[1])


def test_a_signature_may_not_choose_what_it_leaves_out(signed, keys):
    """Of a signer who ignores a file, the library alone would take the rest."""
    from model_signing import hashing, signing, verifying

    (signed / SIGNATURE_NAME).unlink()
    own = hashing.Config().set_ignored_paths(paths=[SIGNATURE_NAME, ONNX_NAME])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.set_hashing_config(own).sign(signed, signed / SIGNATURE_NAME)
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    verifier.verify(signed, signed / SIGNATURE_NAME)
    refused(signed, "of other files", public_key=keys[1])


def test_no_place_for_a_temporary_file(signed, keys, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(signed / "nowhere"))
    with pytest.raises(DwcpError, match="set TMPDIR"):
        open_bundle(signed, public_key=keys[1])


# --- older versions -----------------------------------------------------------------------------


@pytest.fixture
def older(tmp_path, forest, report, keys):
    trained = (TRAINED - timedelta(days=1)).isoformat()
    path = seal(tmp_path / "models", forest, report, version="6", trained=trained)
    sign_bundle(path, keys[0])
    return path


def test_an_older_signed_version_is_not_the_pinned_one(older, signed, keys):
    pinned = bundle_digest(signed)
    shutil.rmtree(signed)
    shutil.copytree(older, signed)
    refused(signed, "not the bundle that was approved", digest=pinned, public_key=keys[1])


def test_an_older_signed_version_is_before_the_date(older, signed, keys):
    refused(older, "an older version may not come back", public_key=keys[1], not_before=TRAINED)
    refused(
        older, "an older version", digest=bundle_digest(older), not_before=TRAINED
    )  # a digest vouches for the date as well
    assert open_bundle(signed, public_key=keys[1], not_before=TRAINED).manifest.version == "7"
    elsewhere = TRAINED.astimezone(timezone(timedelta(hours=5)))
    open_bundle(signed, public_key=keys[1], not_before=elsewhere)
    just_after = TRAINED + timedelta(seconds=1)
    refused(signed, "an older version", public_key=keys[1], not_before=just_after)


def test_a_date_that_nothing_vouches_for(signed, keys):
    with pytest.raises(UsageError, match="vouched for"):
        open_bundle(signed, not_before=TRAINED)
    with pytest.raises(UsageError, match="no time zone"):
        open_bundle(signed, public_key=keys[1], not_before=TRAINED.replace(tzinfo=None))


@pytest.mark.parametrize("date", ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "\x1b[2J"])
def test_a_training_date_that_is_no_instant(tmp_path, forest, report, keys, date):
    path = seal(tmp_path / "odd", forest, report, trained=date)
    sign_bundle(path, keys[0])
    open_bundle(path, public_key=keys[1])
    refused(path, "no instant with a time zone", public_key=keys[1], not_before=TRAINED)


def test_an_older_signed_version_under_a_newer_name(older, keys, tmp_path):
    moved = older.rename(older.with_name("8"))
    assert open_bundle(moved, public_key=keys[1]).manifest.version == "6"
    refused(moved, "not what its directory is called", public_key=keys[1], strict_location=True)
    (tmp_path / "models" / "reliability_detector" / "6").symlink_to(moved)
    refused(older, "not what its directory is called", strict_location=True)


def test_a_model_under_another_models_name(signed, tmp_path):
    open_bundle(signed, strict_location=True)
    (tmp_path / "models" / "consensus_latency").mkdir()
    moved = signed.rename(tmp_path / "models" / "consensus_latency" / "7")
    refused(moved, "holds reliability_detector/7", strict_location=True)


def test_a_link_to_a_bundle_in_its_place(signed, tmp_path):
    (tmp_path / "latest").symlink_to(signed)
    assert open_bundle(tmp_path / "latest", strict_location=True).manifest.version == "7"


# --- what it costs ------------------------------------------------------------------------------


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
    """Not counting urllib3, which asks at import whether the machine could bind an IPv6 address."""
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


# --- the command line ---------------------------------------------------------------------------


def run(*words):
    return group.main([str(word) for word in words], standalone_mode=False)


def test_the_commands_in_a_row(sealed, tmp_path, capsys):
    run("keygen", "--output-dir", tmp_path / "keys", "--json")
    made = json.loads(capsys.readouterr().out)
    run("sign", sealed, "--private-key", made["private_key"])
    assert bundle_digest(sealed) in capsys.readouterr().out
    words = (
        "verify",
        sealed,
        "--public-key",
        made["public_key"],
        "--digest",
        bundle_digest(sealed),
    )
    run(*words, "--not-before", "2026-01-02", "--strict-location", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "name": "reliability_detector",
        "version": "7",
        "training_date": "2026-01-02T03:04:05+00:00",
        "digest": bundle_digest(sealed),
        "signature": "valid",
    }
    run("verify", sealed)
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [
        "name", "version", "training", "digest", "signature",
    ]  # fmt: skip
    assert out.splitlines()[-1].split() == ["signature", "unchecked"]
    with pytest.raises(BundleRefused, match="an older version"):
        run(*words, "--not-before", "2026-01-02T03:04:06Z")
    with pytest.raises(UsageError, match="never overwritten"):
        run("keygen", "--output-dir", tmp_path / "keys")


def test_what_a_person_reads_after_keygen_and_sign(sealed, tmp_path, capsys):
    run("keygen", "--output-dir", tmp_path / "keys")
    assert "keep it secret" in capsys.readouterr().out
    run("sign", sealed, "--private-key", tmp_path / "keys" / PRIVATE_KEY_NAME, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "signature_file": str(sealed / SIGNATURE_NAME),
        "digest": bundle_digest(sealed),
    }


@pytest.mark.parametrize("date", ["tomorrow", "2026-13-01", ""])
def test_a_date_that_is_none(sealed, date):
    with pytest.raises(click.BadParameter, match="no date such as 2026-01-31"):
        run("verify", sealed, "--not-before", date)
