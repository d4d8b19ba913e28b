"""Logins by hashed passwords against a real daemon: every form, and slow ones that hold nobody up.

One access worker with one thread beside its loop, so that the order of events is certain: while a long hash is
computed, whatever is answered was not kept waiting by it. Nothing here looks at a clock.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, started, wait_until
from hashed import STORED, Stored
from make import make_nas, make_plan, make_subscriber

from sms_aaa.flows.provisioning.credentials import read_credential, set_credential
from sms_aaa.radius.packet import Code
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.secret import Secret
from sms_aaa.server.access import WORK_WAITING_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LONG_ROUNDS = 3_000_000
"""PBKDF2 with SHA-256: half a second and more on any machine."""
SLOW_PASSWORD = b"slow password"


def pbkdf2(password: bytes, rounds: int, salt: bytes = b"salt") -> bytes:
    """As passlib writes it."""
    key = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
    words = [base64.b64encode(octets).rstrip(b"=").replace(b"+", b".") for octets in (salt, key)]
    return b"$pbkdf2-sha256$%d$" % rounds + b"$".join(words)


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    settings = {"SMS_AAA_ACCESS_WORKERS": "1", "SMS_AAA_ACCESS_PASSWORD_THREADS": "1"}
    for running in started(tmp_path_factory.mktemp("slow") / "state", new_database(), **settings):
        with running.desk() as desk:
            make_nas(desk)
            make_plan(desk, sessions=0)
            for one in STORED:
                make_subscriber(desk, name=one.name, password=b"something else")
                set_credential(desk, one.name, read_credential(Secret(one.text.encode()), None))
            for name in ("quick", "slow", "changing", "last"):
                make_subscriber(desk, name=name, password=b"quick password")
            set_credential(desk, "slow", read_credential(Secret(pbkdf2(SLOW_PASSWORD, LONG_ROUNDS)), None))
        with FakeNas(running) as nas:
            wait_until(lambda: nas.login(b"last", b"quick password"), "the replica with the provisioned rows")
        yield running


@pytest.fixture
def nas(daemon: Daemon) -> Iterator[FakeNas]:
    with FakeNas(daemon, patience=20) as fake:
        yield fake


def checks(daemon: Daemon) -> int:
    return int(daemon.metrics()["sms_aaa_password_checks_total"])


def hits(daemon: Daemon) -> int:
    return int(daemon.metrics()["sms_aaa_password_cache_hits_total"])


def give(daemon: Daemon, nas: FakeNas, name: bytes, text: bytes, password: bytes) -> None:
    """Sets a hash whose password is not the one before, and waits until a login goes by it."""
    with daemon.desk() as desk:
        set_credential(desk, name.decode(), read_credential(Secret(text), None))
    wait_until(lambda: code_of(nas, name, password) == Code.ACCESS_ACCEPT, f"the new password of {name!r}")


def code_of(nas: FakeNas, name: bytes, password: bytes, method: str = "pap") -> int | None:
    reply = nas.login(name, password, method)
    return None if reply is None else reply.code


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.name)
def test_a_login_by_what_others_stored_is_let_in_and_a_wrong_password_is_not(nas: FakeNas, one: Stored) -> None:
    name = one.name.encode()
    assert code_of(nas, name, one.password) == Code.ACCESS_ACCEPT
    assert code_of(nas, name, b"x" + one.password) == Code.ACCESS_REJECT
    assert code_of(nas, name, one.password) == Code.ACCESS_ACCEPT


@pytest.mark.parametrize(
    ("name", "method", "reason"),
    [
        ("argon2id", "chap", Reason.NO_CREDENTIAL),
        ("argon2id", "mschap2", Reason.NO_CREDENTIAL),
        ("ssha", "chap", Reason.NO_CREDENTIAL),
        ("nt-hex", "chap", Reason.NO_CREDENTIAL),
        ("nt-hex", "mschap", Reason.ACCEPTED),
        ("nt-hex", "mschap2", Reason.ACCEPTED),
    ],
)
def test_a_method_that_the_form_cannot_serve_is_refused_with_that_reason(
    daemon: Daemon, nas: FakeNas, name: str, method: str, reason: Reason
) -> None:
    code = code_of(nas, name.encode(), b"password", method)
    assert code == (Code.ACCESS_ACCEPT if reason is Reason.ACCEPTED else Code.ACCESS_REJECT)
    decided = f"select count(*) from decision where username = '{name}' and method = {_METHODS[method]} and reason = "
    wait_until(lambda: daemon.query(decided + str(reason.code)) == [(1,)], "the decision")


_METHODS = {"chap": 2, "mschap": 3, "mschap2": 4}


def test_a_right_password_is_not_computed_again_and_a_wrong_one_is(daemon: Daemon, nas: FakeNas) -> None:
    name, password = b"changing", b"first"
    give(daemon, nas, name, pbkdf2(password, 10_000), password)
    before = checks(daemon), hits(daemon)
    assert [code_of(nas, name, password) for _ in range(3)] == [Code.ACCESS_ACCEPT] * 3
    wait_until(lambda: hits(daemon) == before[1] + 3, "three hits")
    assert checks(daemon) == before[0]
    assert [code_of(nas, name, b"wrong") for _ in range(2)] == [Code.ACCESS_REJECT] * 2
    wait_until(lambda: checks(daemon) == before[0] + 2, "two computed")
    assert hits(daemon) == before[1] + 3


def test_a_changed_credential_ends_what_was_known_of_the_old_one(daemon: Daemon, nas: FakeNas) -> None:
    name = b"changing"
    give(daemon, nas, name, pbkdf2(b"old", 10_000), b"old")
    assert code_of(nas, name, b"old") == Code.ACCESS_ACCEPT
    give(daemon, nas, name, pbkdf2(b"new", 10_000), b"new")
    assert code_of(nas, name, b"old") == Code.ACCESS_REJECT
    # The same password in another hash is another credential, too.
    before = checks(daemon)
    with daemon.desk() as desk:
        set_credential(desk, "changing", read_credential(Secret(pbkdf2(b"new", 10_000, b"other salt")), None))
    wait_until(lambda: code_of(nas, name, b"new") and checks(daemon) > before, "a check of the new hash")


def test_quick_logins_are_answered_while_slow_ones_are_computed(daemon: Daemon, nas: FakeNas) -> None:
    # Three for one thread, of which none is known: each a password of its own.
    slow = [nas.login_request(b"slow", b"guess %d" % number) for number in range(3)]
    quick = [nas.login_request(b"quick", b"quick password") for _ in range(20)]
    for datagram in (slow[0], *quick[:10], *slow[1:], *quick[10:]):
        nas.send(datagram, daemon.access_port)
    answered = [nas.receive() for _ in range(23)]
    assert None not in answered
    assert {reply[1] for reply in answered[:20] if reply} == {datagram[1] for datagram in quick}
    assert {reply[0] for reply in answered[:20] if reply} == {Code.ACCESS_ACCEPT}
    assert [reply[1] for reply in answered[20:] if reply] == [datagram[1] for datagram in slow]
    assert {reply[0] for reply in answered[20:] if reply} == {Code.ACCESS_REJECT}


def test_who_asks_the_same_meanwhile_is_told_with_the_first_and_a_retransmission_waits(
    daemon: Daemon, nas: FakeNas
) -> None:
    before, pending = checks(daemon), daemon.metrics()["sms_aaa_duplicates_pending_total"]
    same = [nas.login_request(b"slow", b"the same guess") for _ in range(4)]
    for datagram in (*same, same[0], same[0]):
        nas.send(datagram, daemon.access_port)
    answered = [nas.receive() for _ in same]
    assert [(reply[0], reply[1]) for reply in answered if reply] == [(Code.ACCESS_REJECT, one[1]) for one in same]
    assert nas.receive(0.2) is None, "the retransmissions have no answers of their own"
    wait_until(lambda: checks(daemon) == before + 1, "one check for four logins")
    wait_until(lambda: daemon.metrics()["sms_aaa_duplicates_pending_total"] == pending + 2, "two pending duplicates")
    nas.send(same[0], daemon.access_port)
    assert nas.receive() == answered[0], "once it is answered, a retransmission gets the same again"


def test_a_refusal_that_would_come_too_soon_costs_the_same_work(daemon: Daemon, nas: FakeNas) -> None:
    give(daemon, nas, b"changing", pbkdf2(b"one more", 10_000), b"one more")
    for name, password in ((b"nobody", b"guess"), (b"quick", b"guess"), (b"ssha", b"guess"), (b"changing", b"guess")):
        before = checks(daemon)
        assert code_of(nas, name, password) == Code.ACCESS_REJECT
        wait_until(lambda before=before: checks(daemon) == before + 1, f"a check for {name!r}")
    # What has no password in the clear meets no slow hash, whoever it is.
    before = checks(daemon)
    for name in (b"nobody", b"quick", b"changing"):
        assert code_of(nas, name, b"guess", "chap") == Code.ACCESS_REJECT
    assert code_of(nas, b"quick", b"quick password") == Code.ACCESS_ACCEPT
    assert checks(daemon) == before


def test_more_than_can_wait_is_not_answered_and_keeps_nobody_out_who_is_quick(daemon: Daemon, nas: FakeNas) -> None:
    """The last in this module: what waits in the end is never computed."""
    assert code_of(nas, b"slow", SLOW_PASSWORD) == Code.ACCESS_ACCEPT
    flood = WORK_WAITING_MAX + 50
    with FakeNas(daemon) as other:
        for number in range(flood):
            sender = nas if number < flood // 2 else other  # a port has 256 identifiers
            sender.send(sender.login_request(b"slow", b"flood %d" % number), daemon.access_port)
    wait_until(lambda: daemon.metrics()['sms_aaa_shed_total{kind="work"}'] >= 49, "logins that were shed")
    assert code_of(nas, b"quick", b"quick password") == Code.ACCESS_ACCEPT
    # A stranger is refused, not left without an answer: its work would keep out who may be let in.
    assert code_of(nas, b"nobody", b"guess") == Code.ACCESS_REJECT
    assert code_of(nas, b"slow", SLOW_PASSWORD) == Code.ACCESS_ACCEPT, "what is known needs no thread"
