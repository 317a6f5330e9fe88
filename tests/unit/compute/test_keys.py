# Copyright accelsched contributors
# SPDX-License-Identifier: Apache-2.0
"""Public keys and their fingerprints."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from accelsched import errors
from accelsched.compute import keys

# Made by OpenSSH 9.2, fingerprint by its ssh-keygen -l -E md5.
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC1CXKJbwaY3ihrJs6r7nF26fjPHBZUnyKbav0r4rUfC"
ED25519_MD5 = "16:12:6a:c8:90:f8:69:89:c7:86:41:99:3c:24:6c:8a"


@pytest.mark.parametrize("written", [ED25519, f"{ED25519} a@b", f"{ED25519} a b c\n"])
def test_an_ssh_keys_fingerprint_is_openssh_s_whatever_its_comment(written: str) -> None:
    assert keys.fingerprint(keys.SSH, written) == ED25519_MD5


@pytest.mark.parametrize("written", ["", "x", "ssh-rsa", "ssh-rsa AAAA", ED25519[:-5], "ssh-ed25519 é", "\n" * 9])
def test_what_is_no_key_is_refused(written: str) -> None:
    for type_ in (keys.SSH, keys.X509):
        with pytest.raises(errors.InvalidError, match="Keypair data is invalid"):
            keys.fingerprint(type_, written)


def test_a_made_key_s_halves_belong_together() -> None:
    public, private = keys.generate(keys.SSH, "me")
    loaded = serialization.load_pem_private_key(private.encode(), None)
    assert serialization.load_ssh_public_key(public.encode()) == loaded.public_key()


@pytest.mark.parametrize("user_id", ["", "me", "ü" * 255])
def test_a_made_certificate_is_its_owner_s(user_id: str) -> None:
    certificate, private = keys.generate(keys.X509, user_id)
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    assert loaded.public_key() == serialization.load_pem_private_key(private.encode(), None).public_key()
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = names.get_values_for_type(x509.OtherName)
    assert name.value.endswith(user_id.encode()[:64] + b"@localhost")
    assert len(keys.fingerprint(keys.X509, certificate)) == 59
