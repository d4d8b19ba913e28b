"""What is known of slow passwords: only that one was right, for a while, for this very credential."""

from __future__ import annotations

import hashlib

import pytest
from rich.pretty import pretty_repr

from sms_aaa.flows import passwords
from sms_aaa.flows.passwords import KEY_OCTETS, PasswordCheck, PasswordChecks
from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.hashes import Pbkdf2

PASSWORD = b"a MARKED password"
HASHED = Pbkdf2("sha1", 200, b"salt", hashlib.pbkdf2_hmac("sha1", PASSWORD, b"salt", 200))
SEALED, RESEALED = b"\x02 sealed", b"\x02 sealed anew"


@pytest.fixture
def checks() -> PasswordChecks:
    return PasswordChecks(key=bytes(KEY_OCTETS), remember_seconds=300)


def asked(checks: PasswordChecks, sealed: bytes = SEALED, password: bytes = PASSWORD) -> PasswordCheck:
    check = checks.check(sealed, StoredPassword(hashed=HASHED), password)
    assert check is not None
    return check


def is_known(checks: PasswordChecks, sealed: bytes = SEALED, password: bytes = PASSWORD) -> bool:
    return checks.check(sealed, StoredPassword(hashed=HASHED), password) is None


def test_a_check_is_work_that_says_whether_the_password_is_right(checks: PasswordChecks) -> None:
    assert asked(checks)() is True
    assert asked(checks, password=b"wrong")() is False


def test_a_right_password_is_known_until_its_time_is_over(checks: PasswordChecks) -> None:
    check = asked(checks)
    checks.now = 1001
    checks.remember(check)
    checks.now = 1300
    assert is_known(checks)
    assert checks.hits == 1
    checks.now = 1301
    assert not is_known(checks)
    checks.now = 1300
    assert not is_known(checks), "what is over is forgotten"
    assert checks.hits == 1


def test_neither_another_password_nor_a_credential_that_changed_is_known(checks: PasswordChecks) -> None:
    checks.remember(asked(checks))
    assert not is_known(checks, password=PASSWORD + b"x")
    assert not is_known(checks, sealed=RESEALED)
    # Where one ends and the other begins is part of it.
    assert not is_known(checks, sealed=SEALED + PASSWORD[:1], password=PASSWORD[1:])
    assert is_known(checks)


def test_the_same_question_is_the_same_work(checks: PasswordChecks) -> None:
    assert asked(checks).key == asked(checks).key
    assert len({asked(checks).key, asked(checks, RESEALED).key, asked(checks, password=b"wrong").key}) == 3
    other = PasswordChecks(key=b"k" * KEY_OCTETS, remember_seconds=300)
    assert asked(other).key != asked(checks).key, "under the key of another process"


def test_nothing_is_remembered_where_that_is_not_wanted() -> None:
    checks = PasswordChecks(key=bytes(KEY_OCTETS), remember_seconds=0)
    checks.remember(asked(checks))
    assert len(checks) == 0
    assert not is_known(checks)


def test_beyond_its_bound_it_forgets_what_was_not_used_for_longest(
    checks: PasswordChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "REMEMBERED_MAX", 3)
    for sealed in (b"1", b"2", b"3"):
        checks.remember(asked(checks, sealed))
    assert is_known(checks, b"1")
    checks.remember(asked(checks, b"4"))
    assert len(checks) == 3
    assert [sealed for sealed in (b"1", b"2", b"3", b"4") if is_known(checks, sealed)] == [b"1", b"3", b"4"]


def test_a_stranger_costs_what_the_last_slow_hash_costs(checks: PasswordChecks) -> None:
    assert checks.dummy_check(b"nobody", PASSWORD) is None, "no slow hash was met"
    asked(checks)
    dummy = checks.dummy_check(b"nobody", PASSWORD)
    assert dummy is not None
    assert dummy.hashed is HASHED
    assert dummy.key != asked(checks).key


def test_nothing_shows_a_password(checks: PasswordChecks) -> None:
    check = asked(checks)
    checks.remember(check)
    assert repr(check) == "PasswordCheck(***)"
    assert pretty_repr(check) == "PasswordCheck(octets='***')"
    known = b"".join(checks._expiries)
    assert PASSWORD not in known
    assert SEALED not in known
