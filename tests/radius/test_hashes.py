"""Hashed passwords: the right one matches and no other does, in every form."""

from __future__ import annotations

import ctypes
import hashlib

import pytest
from hashed import STORED, Stored
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from sms_aaa.radius import libcrypt
from sms_aaa.radius.credentials import Chap, Method, MsChap2, Pap, StoredPassword
from sms_aaa.radius.hashes import DIGESTS, SALTED, Argon2, Crypt, Digest, Form, Hashed, Pbkdf2, Scrypt
from sms_aaa.radius.stored_text import parse_stored

HASHED = [stored for stored in STORED if stored.form is not Form.NT]
PASSWORDS = st.binary(min_size=1, max_size=128).map(lambda octets: octets.replace(b"\0", b"0"))


def stored_of(stored: Stored) -> StoredPassword:
    found = parse_stored(stored.text.encode(), None)
    assert isinstance(found, StoredPassword), found
    return found


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.name)
def test_what_others_stored_matches_its_password_and_no_other(one: Stored) -> None:
    found = stored_of(one)
    assert found.form is one.form
    assert Pap(one.password).can_use(found)
    assert Pap(one.password).matches(found)
    assert not Pap(one.password + b"x").matches(found) or one.name == "crypt-des"  # DES reads eight octets
    assert not Pap(one.password[1:]).matches(found)
    assert not Pap(b"").matches(found)


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.name)
def test_a_form_that_is_named_is_the_form_of_the_text(one: Stored) -> None:
    found = parse_stored(one.text.encode(), one.form)
    assert isinstance(found, StoredPassword) or one.name == "ssha-in-base64"  # a wrapped one tells its form itself


@pytest.mark.parametrize("one", HASHED, ids=lambda one: one.name)
def test_a_hash_serves_pap_alone(one: Stored) -> None:
    found = stored_of(one)
    assert found.methods == (Method.PAP,)
    chap, mschap2 = Chap(1, bytes(16), bytes(16)), MsChap2(1, bytes(24), bytes(16), bytes(16), b"ann")
    assert not chap.can_use(found)
    assert not mschap2.can_use(found)
    assert not chap.matches(found)
    assert not mschap2.matches(found)


@pytest.mark.parametrize("one", HASHED, ids=lambda one: one.name)
def test_no_hash_shows_itself(one: Stored) -> None:
    hashed = stored_of(one).hashed
    assert repr(hashed) == f"{type(hashed).__name__}(***)"
    assert pretty_repr(hashed) == f"{type(hashed).__name__}(octets='***')"


def made(password: bytes, salt: bytes) -> list[Hashed]:
    """A password in every form but crypt's."""
    hashes: list[Hashed] = []
    for form, name in DIGESTS.items():
        own = salt if form in SALTED else b""
        hashes.append(Digest(form, hashlib.new(name, password + own).digest(), own))
    hashes += [
        Pbkdf2(name, 2, salt, hashlib.pbkdf2_hmac(name, password, salt, 2)) for name in ("sha1", "sha512", "sha3_256")
    ]
    hashes.append(Scrypt(4, 1, 2, salt, hashlib.scrypt(password, salt=salt, n=4, r=1, p=2, dklen=32)))
    for variant in ("argon2id", "argon2i", "argon2d"):
        empty = Argon2(variant, 8, 1, 1, salt, bytes(16))
        hashes.append(Argon2(variant, 8, 1, 1, salt, empty._derive(password, 8)))
    return hashes


@settings(max_examples=30)
@given(PASSWORDS, PASSWORDS, st.binary(min_size=8, max_size=32))
def test_a_password_matches_its_hash_and_another_does_not(password: bytes, other: bytes, salt: bytes) -> None:
    for hashed in made(password, salt):
        assert hashed.matches(password)
        assert hashed.matches(other) is (other == password)


@settings(max_examples=30)
@given(
    PASSWORDS.filter(lambda octets: len(octets) <= 64),
    st.sampled_from([b"$1$salt", b"$5$rounds=1000$salt", b"$2b$04$" + b"a" * 22]),
)
def test_crypt_matches_what_the_system_makes(password: bytes, setting: bytes) -> None:
    text = libcrypt.crypt(password, setting)
    assert text is not None
    assert Crypt(text).matches(password)
    assert not Crypt(text).matches(password + b"x")


def test_a_password_with_a_nul_is_not_cut_short_by_crypt() -> None:
    text = libcrypt.crypt(b"pass", b"$1$salt")
    assert text is not None
    assert not Crypt(text).matches(b"pass\0word")
    assert libcrypt.crypt(b"pass\0word", b"$1$salt") is None


def test_an_empty_password_matches_nothing_whatever_it_hashes_to() -> None:
    for hashed in made(b"", b"saltsalt"):
        assert not hashed.matches(b"")


def test_what_takes_long_says_so() -> None:
    slow = {one.name for one in HASHED if stored_of(one).is_slow}
    assert slow == {one.name for one in HASHED if one.form in (Form.PBKDF2, Form.SCRYPT, Form.ARGON2, Form.CRYPT)}
    assert not Pbkdf2("sha1", 100, b"salt", bytes(20)).is_slow
    assert not StoredPassword.from_cleartext(b"x").is_slow


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("sha-hex", ""),
        ("pbkdf2-freeradius-224", "sha224, 10000 rounds"),
        ("scrypt-passlib", "n=65536, r=8, p=1"),
        ("argon2id", "argon2id, m=256, t=2, p=2"),
        ("crypt-1", "$1"),
        ("crypt-6", "$6"),
        ("crypt-6-rounds", "$6$rounds=10000"),
        ("crypt-2a", "$2a$05"),
        ("crypt-des", "des"),
    ],
)
def test_a_hash_tells_its_cost_and_nothing_of_its_salt(name: str, cost: str) -> None:
    hashed = next(stored_of(one).hashed for one in STORED if one.name == name)
    assert hashed is not None
    assert hashed.cost == cost


def test_a_system_without_libcrypt_refuses_when_the_hash_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str | None) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", nowhere)
    assert libcrypt._find() is None
    monkeypatch.setattr(libcrypt, "_crypt_r", None)
    assert not Crypt(b"$1$abcdefgh$G//4keteveJp0qb8z2DxG/").is_known_here()
    found = parse_stored(b"$1$abcdefgh$G//4keteveJp0qb8z2DxG/", None)
    assert not isinstance(found, StoredPassword)
    assert found.reason == "this system cannot compute it ($1)"
