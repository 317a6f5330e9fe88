# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Public keys: made, read, and told apart by fingerprints as Nova shows them."""

from __future__ import annotations

import base64
import datetime
import hashlib
import warnings
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from accelsched import errors

SSH, X509 = "ssh", "x509"

_RSA_BITS = 2048
_VALID_FOR = datetime.timedelta(days=3650)
# The user principal name by which Windows maps a client's certificate to an account.
_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_COMMON_NAME_MAX = 64  # bytes


class MadeKey(NamedTuple):
    """A new key; the private half is given away once and kept nowhere."""

    public_key: str  # OpenSSH's line, or a certificate in PEM
    private_key: str  # PEM


def generate(type_: str, user_id: str) -> MadeKey:
    """Make an RSA key.

    :param type_: ``ssh``, or ``x509`` for a certificate that signs itself, with which WinRM lets its owner in
    :param user_id: of the owner, who is named in a certificate
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
    if type_ == X509:
        return MadeKey(_certificate(key, user_id), private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return MadeKey(f"{public} Generated-by-accelsched", private)


def fingerprint(type_: str, public_key: str) -> str:
    """Return a public key's fingerprint, pairs of hexadecimal digits: MD5 of an SSH key, SHA-1 of a certificate.

    :raises accelsched.errors.InvalidError: when it is no key of this type
    """
    digest = _certificate_digest(public_key) if type_ == X509 else _ssh_digest(public_key)
    return ":".join(digest[start : start + 2] for start in range(0, len(digest), 2))


def _ssh_digest(public_key: str) -> str:
    try:
        with warnings.catch_warnings():
            # A key of an old kind is its owner's to choose; whether guests take it is theirs.
            warnings.simplefilter("ignore")
            serialization.load_ssh_public_key(public_key.encode())
        blob = base64.b64decode(public_key.split()[1])
    except (ValueError, IndexError, UnsupportedAlgorithm) as exc:
        raise errors.InvalidError("Keypair data is invalid: failed to generate fingerprint") from exc
    return hashlib.md5(blob, usedforsecurity=False).hexdigest()


def _certificate_digest(certificate: str) -> str:
    try:
        loaded = x509.load_pem_x509_certificate(certificate.encode())
    except ValueError as exc:
        raise errors.InvalidError("Keypair data is invalid: failed to generate X509 fingerprint") from exc
    return loaded.fingerprint(hashes.SHA1()).hex()  # noqa: S303 - a name, not a safeguard


def _certificate(key: rsa.RSAPrivateKey, user_id: str) -> str:
    owner = user_id.encode()[:_COMMON_NAME_MAX].decode(errors="ignore")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner or "user")])
    principal = f"{owner}@localhost".encode()
    # A UTF8String in DER (ITU-T X.690, 8.1): its tag, its length in one byte, itself.
    principal = bytes([0x0C, len(principal)]) + principal
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.OtherName(_PRINCIPAL_NAME, principal)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()
