"""Makes an area's CA, TLS certificates and signing keys for tests, all thrown away afterwards."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """A CA in a folder: `ca.crt` there; issues key and certificate pairs beside it."""

    def __init__(self, folder: Path, name: str = "test area"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._name, self._key.public_key(), True)
        self.path = folder / "ca.crt"
        self.path.write_bytes(self.certificate.public_bytes(PEM))

    def issue(self, name: str, valid_days: int = 1) -> tuple[Path, Path, bytes]:
        """(certificate file, key file, certificate in DER) for a new TLS key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), False, valid_days)
        certificate_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate_path.write_bytes(certificate.public_bytes(PEM))
        key_path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate_path, key_path, certificate.public_bytes(serialization.Encoding.DER)

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, is_ca: bool,
              valid_days: int = 1) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(),
                                          now - datetime.timedelta(days=2), now + datetime.timedelta(days=valid_days))
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), True)
        return builder.sign(self._key, hashes.SHA256())
