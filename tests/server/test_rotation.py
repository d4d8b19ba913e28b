"""A secret is replaced under load: nothing that either of the two covers is refused. Real processes, real UDP."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from daemon import WAIT_SECONDS, Daemon, FakeNas, started, wait_until
from make import Said, make_plan, make_subscriber, packet_of

from sms_aaa.flows.provisioning.nas import add_nas, get_nas
from sms_aaa.flows.provisioning.nas_secrets import (
    cancel_rotation,
    find_rotation,
    finish_rotation,
    rotate_secret,
)
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, Packet
from sms_aaa.radius.request import accounting_request, mschap2_success_is_authentic
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD, NEW = b"the old shared secret", b"the new shared secret"
METHODS = ("pap", "chap", "mschap", "mschap2")
SINGLE, MANY = "127.1.0.1", "127.2.0."
TURNS, UNPROVED, PROVED, CANCELLED = "127.1.0.2", "127.3.0.", "127.1.0.3", "127.1.0.4"
NASES = {"single": f"{SINGLE}/32", "many": f"{MANY}0/24", "turns": f"{TURNS}/32", "unproved": f"{UNPROVED}0/24",
         "proved": f"{PROVED}/32", "cancelled": f"{CANCELLED}/32"}  # fmt: skip
"""One daemon serves all stories, so each has its own."""


@pytest.fixture(scope="module")
def daemon(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    for running in started(tmp_path_factory.mktemp("rotation") / "state", new_database()):
        with running.desk() as desk:
            for name, prefix in NASES.items():
                add_nas(
                    desk,
                    name=name,
                    prefix=prefix,
                    secret=Secret(OLD),
                    dialect=Dialect.GENERIC,
                    message_authenticator=MessageAuthenticatorPolicy.NO,  # signed and not, in turn
                    coa_port=3799,
                )
            make_plan(desk, sessions=0)
            make_subscriber(desk)
        with FakeNas(running, secret=OLD, address=SINGLE) as nas:
            wait_until(lambda: nas.login(b"alice", b"wonderland"), "the provisioned rows in the replica")
        yield running


def rotate(daemon: Daemon, name: str) -> None:
    with daemon.desk() as desk:
        rotate_secret(desk, get_nas(desk.connection, name), Secret(NEW), allow_weak=False)


def answered_under(daemon: Daemon, secret: bytes, address: str) -> bool:
    """Whether a signed login under this secret is answered at all."""
    with FakeNas(daemon, secret=secret, address=address, patience=0.2) as nas:
        return nas.login(b"alice", b"wonderland") is not None


def wait_for_secret(daemon: Daemon, secret: bytes, address: str, *, valid: bool) -> None:
    """Through both workers: ten source ports each time. A change has to be live in two seconds."""
    began = time.monotonic()
    while not all(answered_under(daemon, secret, address) is valid for _ in range(10)):
        assert time.monotonic() - began < WAIT_SECONDS, "the change of the secret is not live"


def record(nas: FakeNas) -> bytes:
    said = packet_of(Said(status="interim", at=datetime.now(UTC), session=f"s{nas.next_identifier()}"))
    return accounting_request(nas.next_identifier(), said[20:], nas.digests)


def proof_of(nas: FakeNas, request: bytes, reply: Packet) -> bool:
    """Whether the keys of MS-CHAPv2 are hidden under the NAS's secret, and the server's proof is right."""
    keys = [
        nas.digests.decrypt_key(reply.attributes[key], request[4:20])
        for key in (dictionary.MS_MPPE_SEND_KEY, dictionary.MS_MPPE_RECV_KEY)
    ]
    proof = reply.attributes[dictionary.MS_CHAP2_SUCCESS]
    challenges = {"challenge": nas.challenge, "peer_challenge": nas.peer_challenge}
    is_right = mschap2_success_is_authentic(proof, b"alice", b"wonderland", **challenges)
    return is_right and all(key is not None and len(key) == 16 for key in keys)


@dataclass
class Unit:
    """One box that logs in and accounts without a pause, by every method, signed and not, under its secret."""

    daemon: Daemon
    address: str
    secret: bytes = OLD
    done: int = 0
    refused: list[str] = field(default_factory=list)
    stopping: bool = False

    def run(self) -> None:
        turns = itertools.cycle(itertools.product(METHODS, (True, False)))
        with FakeNas(self.daemon, secret=self.secret, address=self.address) as nas:
            while not self.stopping:
                nas.digests = SecretDigests(self.secret)
                method, signed = next(turns)
                self._log_in(nas, method, signed=signed)
                if nas.ask_again(record(nas), self.daemon.accounting_port) is None:
                    self.refused.append(f"accounting under {self.secret!r}")

    def _log_in(self, nas: FakeNas, method: str, *, signed: bool) -> None:
        request = nas.login_request(b"alice", b"wonderland", method, signed=signed)
        reply = nas.ask_again(request, self.daemon.access_port)
        self.done += 1
        if reply is None or reply.code != Code.ACCESS_ACCEPT:
            said = "silence" if reply is None else "reject"
            self.refused.append(f"{method} signed={signed} under {self.secret!r}: {said}")


def test_no_packet_is_refused_while_secrets_rotate_under_load(daemon: Daemon) -> None:
    units = [Unit(daemon, SINGLE), *(Unit(daemon, f"{MANY}{number}") for number in (1, 2, 3))]
    threads = [threading.Thread(target=unit.run) for unit in units]
    for thread in threads:
        thread.start()
    try:
        for name, address in (("single", SINGLE), ("many", f"{MANY}9")):
            rotate(daemon, name)
            wait_for_secret(daemon, NEW, address, valid=True)
        for unit in units:  # a technician goes from box to box
            time.sleep(0.5)
            unit.secret = NEW
        for unit in units[1:]:  # and one is set back, and forward again
            unit.secret = OLD
            time.sleep(0.3)
            unit.secret = NEW
        time.sleep(1.5)
        for name in ("single", "many"):
            with daemon.desk() as desk:
                finish_rotation(desk, get_nas(desk.connection, name), now=datetime.now(UTC), anyway=True)
        wait_for_secret(daemon, OLD, f"{MANY}9", valid=False)
        before = [unit.done for unit in units]
        wait_until(lambda: all(u.done > b for u, b in zip(units, before, strict=True)), "logins under the new alone")
    finally:
        for unit in units:
            unit.stopping = True
        for thread in threads:
            thread.join()
    assert [unit.refused for unit in units] == [[], [], [], []]
    assert all(unit.done > 20 for unit in units)


def test_each_method_is_served_under_either_secret_in_turn(daemon: Daemon) -> None:
    rotate(daemon, "turns")
    wait_for_secret(daemon, NEW, TURNS, valid=True)
    with FakeNas(daemon, address=TURNS) as nas:
        for secret in (OLD, NEW, NEW, OLD):
            nas.digests = SecretDigests(secret)
            assert nas.ask(record(nas), daemon.accounting_port) is not None
            for method, signed in itertools.product(METHODS, (True, False)):
                request = nas.login_request(b"alice", b"wonderland", method, signed=signed)
                reply = nas.ask_again(request, daemon.access_port)
                assert reply is not None, (secret, method, signed)
                assert reply.code == Code.ACCESS_ACCEPT
                assert method != "mschap2" or proof_of(nas, request, reply)
                wrong = nas.ask_again(nas.login_request(b"alice", b"wrong", method, signed=signed), daemon.access_port)
                assert wrong is not None, (secret, method, signed)
                assert wrong.code == Code.ACCESS_REJECT


def test_an_unsigned_password_is_accepted_at_once_under_a_secret_that_nothing_proved(daemon: Daemon) -> None:
    rotate(daemon, "unproved")
    wait_for_secret(daemon, NEW, f"{UNPROVED}9", valid=True)
    for number, secret in enumerate((OLD, NEW) * 3, 20):
        with FakeNas(daemon, secret=secret, address=f"{UNPROVED}{number}") as nas:
            reply = nas.ask(nas.login_request(b"alice", b"wonderland", signed=False), daemon.access_port)
            assert reply is not None
            assert reply.code == Code.ACCESS_ACCEPT


def test_what_the_packets_prove_reaches_the_database_and_says_when_to_finish(daemon: Daemon) -> None:
    rotate(daemon, "proved")
    wait_for_secret(daemon, NEW, PROVED, valid=True)
    with daemon.desk() as desk:
        nas_row = get_nas(desk.connection, "proved")
        wait_until(lambda: find_rotation(desk.connection, nas_row).new_packets >= 10, "the recorder's evidence")
        rotation = find_rotation(desk.connection, nas_row)
        assert rotation.old_packets == 0
        assert rotation.is_safe_to_finish(datetime.now(UTC))
    assert answered_under(daemon, OLD, PROVED)
    with daemon.desk() as desk:
        wait_until(lambda: find_rotation(desk.connection, nas_row).old_packets, "the packet under the old secret")
        assert not find_rotation(desk.connection, nas_row).is_safe_to_finish(datetime.now(UTC))
    found = daemon.metrics()
    assert found['sms_aaa_nas_secret_proofs_total{nas="proved",secret="new"}'] >= 10
    assert found['sms_aaa_nas_secret_proofs_total{nas="proved",secret="old"}'] == 1


def test_a_cancelled_rotation_leaves_the_old_secret_alone_valid(daemon: Daemon) -> None:
    rotate(daemon, "cancelled")
    wait_for_secret(daemon, NEW, CANCELLED, valid=True)
    with daemon.desk() as desk:
        cancel_rotation(desk, get_nas(desk.connection, "cancelled"), now=datetime.now(UTC), anyway=True)
    wait_for_secret(daemon, NEW, CANCELLED, valid=False)
    assert answered_under(daemon, OLD, CANCELLED)
