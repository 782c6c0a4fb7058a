"""Makes the area's own X.509 certificates (CA, brokers, replicas, agents, people) from keys and names.

A certificate's common name is the kid: Mosquitto takes it as the user's name, and the access list is written with it.
Everything is P-256, because the boards' TLS and OpenSSL both have it and nothing else is needed.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650  # ten years in a cabinet
LEAF_DAYS = 825  # renewal is due 60 days before; the CA outlives four of them
_BACKDATE = datetime.timedelta(days=1)  # a board whose clock is a little behind must not refuse a fresh certificate


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Returns a new P-256 key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def spki_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    """Returns SHA-256 of the key's SubjectPublicKeyInfo: how validator set and registry name a TLS key."""
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER,
                                           serialization.PublicFormat.SubjectPublicKeyInfo)).digest()


def make_ca(area: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Returns a new key and self-signed certificate that may sign leaves and nothing below them."""
    key = generate_key()
    name = _name(f"gridseal CA {area}")
    builder = _builder(name, name, key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(is_ca=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return key, builder.sign(key, hashes.SHA256())


def make_request(key: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    """Returns a certificate signing request in DER."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(common_name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def load_request(data: bytes) -> ec.EllipticCurvePublicKey:
    """Returns the key of a DER request whose own signature holds; ValueError otherwise. Its names count for nothing."""
    request = x509.load_der_x509_csr(data)
    key = request.public_key()
    if not request.is_signature_valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not a request signed by its own P-256 key")
    return key


def issue(ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, key: ec.EllipticCurvePublicKey, common_name: str,
          hosts: tuple[str, ...] = ()) -> x509.Certificate:
    """Returns a leaf for clients, and for servers too when `hosts` (names or addresses) are given."""
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(_name(common_name), ca.subject, key, LEAF_DAYS)
    if hosts:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(is_ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                                    critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def load_ca(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Returns key and certificate of `folder`/ca.key and ca.crt."""
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("ca.key is not a P-256 key")
    return key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def write_secret(path: Path, data: bytes) -> None:
    """Writes a new file that only its owner may read; an existing one is never overwritten (FileExistsError)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey,
             days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)  # certificates live in real time, whatever the demo's clock says
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _BACKDATE).not_valid_after(now + datetime.timedelta(days=days))


def _key_usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature=not is_ca, content_commitment=False, key_encipherment=False,
                         data_encipherment=False, key_agreement=False, key_cert_sign=is_ca, crl_sign=is_ca,
                         encipher_only=False, decipher_only=False)
