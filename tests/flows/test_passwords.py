"""What is known of slow passwords: only that one was right, for a while, for this very credential."""

from __future__ import annotations

import hashlib

import pytest
from rich.pretty import pretty_repr

from sms_aaa.flows import passwords
from sms_aaa.flows.passwords import KEY_OCTETS, PasswordCheck, PasswordChecks
from sms_aaa.radius.hashes import Pbkdf2

PASSWORD = b"a MARKED password"
HASHED = Pbkdf2("sha1", 200, b"salt", hashlib.pbkdf2_hmac("sha1", PASSWORD, b"salt", 200))
SEALED, RESEALED = b"\x02 sealed", b"\x02 sealed anew"


@pytest.fixture
def checks() -> PasswordChecks:
    return PasswordChecks(key=bytes(KEY_OCTETS), remember_seconds=300)


def asked(checks: PasswordChecks, sealed: bytes = SEALED, password: bytes = PASSWORD, now: float = 0) -> PasswordCheck:
    check = checks.check(sealed, HASHED, password, now)
    assert check is not None
    return check


def test_a_check_is_work_that_says_whether_the_password_is_right(checks: PasswordChecks) -> None:
    assert asked(checks)() is True
    assert asked(checks, password=b"wrong")() is False


def test_a_right_password_is_known_until_its_time_is_over(checks: PasswordChecks) -> None:
    checks.remember(asked(checks, now=1000), 1001)
    assert checks.check(SEALED, HASHED, PASSWORD, 1300) is None
    assert checks.hits == 1
    assert checks.check(SEALED, HASHED, PASSWORD, 1301) is not None
    assert checks.check(SEALED, HASHED, PASSWORD, 1300) is not None, "what is over is forgotten"
    assert checks.hits == 1


def test_neither_another_password_nor_a_credential_that_changed_is_known(checks: PasswordChecks) -> None:
    checks.remember(asked(checks), 0)
    assert checks.check(SEALED, HASHED, PASSWORD + b"x", 1) is not None
    assert checks.check(RESEALED, HASHED, PASSWORD, 1) is not None
    # Where one ends and the other begins is part of it.
    assert checks.check(SEALED + PASSWORD[:1], HASHED, PASSWORD[1:], 1) is not None
    assert checks.check(SEALED, HASHED, PASSWORD, 1) is None


def test_the_same_question_is_the_same_work(checks: PasswordChecks) -> None:
    assert asked(checks).key == asked(checks).key
    assert len({asked(checks).key, asked(checks, RESEALED).key, asked(checks, password=b"wrong").key}) == 3
    other = PasswordChecks(key=b"k" * KEY_OCTETS, remember_seconds=300)
    assert asked(other).key != asked(checks).key, "under the key of another process"


def test_nothing_is_remembered_where_that_is_not_wanted() -> None:
    checks = PasswordChecks(key=bytes(KEY_OCTETS), remember_seconds=0)
    checks.remember(asked(checks), 0)
    assert len(checks) == 0
    assert checks.check(SEALED, HASHED, PASSWORD, 0) is not None


def test_beyond_its_bound_it_forgets_what_was_not_used_for_longest(
    checks: PasswordChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "REMEMBERED_MAX", 3)
    for sealed in (b"1", b"2", b"3"):
        checks.remember(asked(checks, sealed), 0)
    assert checks.check(b"1", HASHED, PASSWORD, 1) is None
    checks.remember(asked(checks, b"4"), 1)
    assert len(checks) == 3
    assert [s for s in (b"1", b"2", b"3", b"4") if checks.check(s, HASHED, PASSWORD, 2) is None] == [b"1", b"3", b"4"]


def test_a_stranger_costs_what_the_last_slow_hash_costs(checks: PasswordChecks) -> None:
    assert checks.dummy_check(b"nobody", PASSWORD) is None, "no slow hash was met"
    asked(checks)
    dummy = checks.dummy_check(b"nobody", PASSWORD)
    assert dummy is not None
    assert dummy.hashed is HASHED
    assert dummy.key != asked(checks).key


def test_nothing_shows_a_password(checks: PasswordChecks) -> None:
    check = asked(checks)
    checks.remember(check, 0)
    assert repr(check) == "PasswordCheck(***)"
    assert pretty_repr(check) == "PasswordCheck(octets='***')"
    known = b"".join(checks._expiries)
    assert PASSWORD not in known
    assert SEALED not in known
