"""What is sealed opens for whom it was sealed, in the form that it had, and for nobody and nothing else."""

from __future__ import annotations

import os

import pytest
from hashed import STORED, Stored
from hypothesis import given
from hypothesis import strategies as st
from make import make_vault

from sms_aaa.flows.vault import NONCE_OCTETS, Vault
from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.mschap import md4, nt_hash
from sms_aaa.radius.stored_text import parse_stored
from sms_aaa.rules.secret import Secret

VAULT = make_vault()
NONCE = bytes(range(NONCE_OCTETS))
CLEARTEXT = StoredPassword.from_cleartext(b"wonderland")
SEALED = VAULT.seal_stored(CLEARTEXT, 42, nonce=NONCE)


def stored_of(one: Stored) -> StoredPassword:
    found = parse_stored(one.text.encode(), None)
    assert isinstance(found, StoredPassword)
    return found


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.name)
def test_every_form_comes_out_as_it_went_in(one: Stored) -> None:
    stored = stored_of(one)
    sealed = VAULT.seal_stored(stored, 42, nonce=os.urandom(NONCE_OCTETS))
    assert VAULT.open_password(sealed, 42) == stored
    assert VAULT.open_password(sealed, 43) is None
    assert make_vault(b"k" * 32).open_password(sealed, 42) is None
    # Nothing of it shows: neither the text nor any octets that it stands for.
    assert one.text[-10:].encode() not in sealed


def test_cleartext_comes_out_with_what_ms_chap_needs() -> None:
    assert VAULT.open_password(SEALED, 42) == CLEARTEXT
    assert VAULT.seal_password(Secret(b"wonderland"), 42, nonce=NONCE) == SEALED


def test_what_version_1_sealed_still_opens() -> None:
    """A blob as the program of issue 2 wrote it, under the key of 32 zeros, for service 42, with this nonce."""
    hashed = nt_hash(b"wonderland")
    sealed = bytes.fromhex(
        "01000102030405060708090a0b"
        "b6ce4f8323ddd558aad70df7ea156d39fa48e684288a473f04d30bc2b3115c659b98d2c129155d9d56b4b398c944f0d1"
        "d02c0fac98138fe34a93"
    )
    assert VAULT.open_password(sealed, 42) == StoredPassword(b"wonderland", hashed, md4(hashed))
    assert VAULT.open_password(sealed, 43) is None


def test_a_version_that_is_changed_opens_nothing() -> None:
    for version in range(256):
        opened = VAULT.open_password(bytes((version,)) + SEALED[1:], 42)
        assert (opened is not None) == (version == 2)


def test_the_secret_of_a_nas_is_no_credential() -> None:
    sealed = VAULT.seal_nas_secret(Secret(b"a shared secret"), 42, nonce=NONCE)
    assert VAULT.open_password(sealed, 42) is None
    assert VAULT.open_nas_secret(SEALED, 42) is None
    assert VAULT.open_nas_secret(sealed, 42) == Secret(b"a shared secret")


def test_a_form_that_this_program_does_not_know_is_none() -> None:
    sealed = Vault(bytes(32))._seal(b"\x02", b"\xfe\x91\xccwhatever", b"credential-2:42", NONCE)
    assert VAULT.open_password(sealed, 42) is None


@given(st.binary(max_size=80) | st.integers(0, len(SEALED) - 1).map(lambda at: SEALED[:at]))
def test_whatever_the_replica_holds_nothing_raises(sealed: bytes) -> None:
    assert VAULT.open_password(sealed, 42) is None
    assert VAULT.open_nas_secret(sealed, 42) is None
