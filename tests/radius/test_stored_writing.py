"""A stored password that is written reads back as the same, in every form."""

from __future__ import annotations

import hashlib
import os

import pytest

from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.hashes import DIGESTS, SALTED, Argon2, Crypt, Digest, Form, Pbkdf2, Scrypt
from sms_aaa.radius.stored_text import parse_stored
from sms_aaa.radius.stored_writing import write_stored

PASSWORD = b"wonder land"
SALT = bytes(range(0, 250, 16))


def digest_of(form: Form) -> Digest:
    salt = SALT if form in SALTED else b""
    return Digest(form, hashlib.new(DIGESTS[form], PASSWORD + salt).digest(), salt)


def pbkdf2_of(digest: str) -> Pbkdf2:
    return Pbkdf2(digest, 3, SALT, hashlib.pbkdf2_hmac(digest, PASSWORD, SALT, 3))


STORED = [
    StoredPassword.from_cleartext('wonder\u2603 land, "quoted" $6$ {SSHA}'.encode()),
    StoredPassword(nt_hash=(nt := StoredPassword.from_cleartext(PASSWORD)).nt_hash, nt_hash_hash=nt.nt_hash_hash),
    *(StoredPassword(hashed=digest_of(form)) for form in DIGESTS),
    *(StoredPassword(hashed=pbkdf2_of(name)) for name in ("sha1", "sha224", "sha256", "sha512", "sha3_256")),
    StoredPassword(hashed=Scrypt(1024, 8, 2, SALT, hashlib.scrypt(PASSWORD, salt=SALT, n=1024, r=8, p=2, dklen=32))),
    StoredPassword(hashed=Argon2("argon2id", 64, 2, 1, SALT, os.urandom(32))),
    StoredPassword(hashed=Crypt(b"$6$rounds=5000$abcdefgh$" + b"x" * 86)),
    StoredPassword(hashed=Crypt(b"abJnggxhB/yWI")),
]  # fmt: skip


@pytest.mark.parametrize(
    "stored", STORED, ids=lambda stored: f"{stored.form.name}-{stored.hashed and stored.hashed.cost}"
)
def test_what_is_written_reads_back_as_the_same(stored):
    assert parse_stored(write_stored(stored), stored.form) == stored


def test_every_form_is_tried():
    assert {stored.form for stored in STORED} == set(Form)
