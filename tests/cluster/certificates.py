"""An authority of the cluster's own, made on the fly, and what it signs."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_DAYS = 2
LOOPBACK = "127.0.0.1"
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs server and client certificates; its own is ``<directory>/ca.crt``.

    Parameters
    ----------
    addresses
        Where its servers are reached.
    """

    def __init__(self, directory, addresses=(LOOPBACK,)):
        self.directory = Path(directory)
        self._addresses = addresses
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("dwcp-ml test authority")
        certificate = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = self.directory / "ca.crt"
        self._write_certificate(self.certificate, certificate)

    def server(self, name, names=_SERVER_NAMES):
        """Return a pair for a server that is reached by ``names``."""
        names = [x509.DNSName(one) for one in names]
        names += [x509.IPAddress(ipaddress.ip_address(one)) for one in self._addresses]
        return self._pair(name, _name(name), ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, user, groups=()):
        """Return a pair that the API server reads as ``user`` of ``groups``."""
        subject = _name(user, groups)
        return self._pair(user.replace(":", "-"), subject, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def signing_key(self, name):
        """Return the files of a key pair for service account tokens: (private, public)."""
        key = ec.generate_private_key(ec.SECP256R1())
        private, public = self.directory / f"{name}.key", self.directory / f"{name}.pub"
        _write_key(private, key)
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return private, public

    def _pair(self, name, subject, usage, alternative_names):
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternative_names:
            extension = x509.SubjectAlternativeName(alternative_names)
            builder = builder.add_extension(extension, critical=False)
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        _write_key(pair.key, key)
        self._write_certificate(pair.certificate, builder)
        return pair

    def _builder(self, subject, public_key):
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        )

    def _write_certificate(self, path, builder):
        signed = builder.sign(self._key, hashes.SHA256())
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _name(common_name, groups=()):
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    parts.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(parts)


def _write_key(path, key):
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
