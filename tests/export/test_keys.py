"""Keys for signing: made once, never overwritten, and refused when they are none."""

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dwcp_ml.contract.bundle import SIGNATURE_NAME
from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.export.keys import PRIVATE_KEY_NAME, PUBLIC_KEY_NAME, make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import open_bundle
from tests.errors import about


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
    with pytest.raises(UsageError, check=about(ErrorCode.ALREADY_EXISTS, tmp_path)):
        make_key_pair(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_place_for_keys_that_is_none(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "keys")):
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
def test_longer_curves_will_do(tmp_path, finalized, curve):
    key = ec.generate_private_key(curve)
    (tmp_path / "key").write_bytes(pem_of(key))
    (tmp_path / "pub").write_bytes(public_pem_of(key))
    sign_bundle(finalized, tmp_path / "key")
    assert open_bundle(finalized, public_key=tmp_path / "pub").signature == "valid"


@pytest.mark.parametrize("kind", ["nothing", "garbage", "rsa", "curve", "half", "directory"])
def test_keys_that_are_none(tmp_path, signed, keys, kind):
    """A key that can't be used is the caller's mistake, not a fault of the bundle."""
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


def test_an_encrypted_key(tmp_path, finalized):
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"word"),
        )
    )
    with pytest.raises(UsageError, check=about(ErrorCode.ENCRYPTED, "key")):
        sign_bundle(finalized, tmp_path / "key")
    assert not (finalized / SIGNATURE_NAME).exists()
