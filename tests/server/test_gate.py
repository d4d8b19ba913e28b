"""The gate in process: who passes, under which secret, what is counted; what it learns is told to the other workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from make import make_vault

from sms_aaa.flows.tables import Nas, Tables
from sms_aaa.metrics import Word, fault_word
from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.node.drops import list_windows, read_window
from sms_aaa.node.nas_rows import NasWord, assign_rows
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Code, attribute
from sms_aaa.radius.request import (
    access_request,
    accounting_request,
    chap_attributes,
    pap_attributes,
    reply_is_authentic,
    status_server,
)
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas
from sms_aaa.rules.secret import Secret
from sms_aaa.server.drops import DropLog
from sms_aaa.server.duplicates import DuplicateCache
from sms_aaa.server.gate import Admitted, Gate
from sms_aaa.server.signers import Signers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = b"the old shared secret", b"the new shared secret"
AT = ("192.0.2.1", 40_000)
EAP = attribute(dictionary.EAP_MESSAGE, b"\2\1\0\5\1")
DATABASE_ID = bytes(16)
NS = 1_000_000_000
AUTO, YES, NO = MessageAuthenticatorPolicy


def nas_at(
    prefix: str = "192.0.2.1/32",
    *secrets: bytes,
    nas_id: int = 1,
    policy: MessageAuthenticatorPolicy = AUTO,
    observed_from: int = 0,
    signs_since: int = 0,
) -> NodeNas:
    """A NAS with these secrets, the newest first; OLD when none is given."""
    sealed = [make_vault().seal_nas_secret(Secret(one), nas_id, nonce=os.urandom(12)) for one in secrets or (OLD,)]
    return NodeNas(
        nas_id, f"nas{nas_id}", prefix, sealed, Dialect.GENERIC, policy, 3799,
        secret_id=10 + len(sealed), observed_from=observed_from, signs_since=signs_since,
    )  # fmt: skip


@dataclass
class Worker:
    """A gate with counters of its own, as one worker has it."""

    folder: Path
    nases: list[NodeNas]
    name: str = "access-1"
    code: Code = Code.ACCESS_REQUEST
    counters: memoryview = field(default_factory=lambda: memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q"))
    database_id: bytes = DATABASE_ID

    def __post_init__(self) -> None:
        self.gate = Gate(
            code=self.code,
            tables=Tables((), (), make_vault()),
            cache=DuplicateCache(10),
            counters=self.counters,
            signers=Signers(self.counters, self.folder, name=self.name, database_id=self.database_id),
            drops=DropLog(self.folder, name=self.name, database_id=self.database_id),
        )
        self.use(*self.nases)

    def use(self, *nases: NodeNas) -> None:
        rows = assign_rows(self.counters, nases)
        self.gate.use(Tables(nases, (), make_vault(), rows=rows, before=self.gate.tables))

    def admit(self, datagram: bytes, source: tuple[str, int] = AT) -> Admitted | bytes | None:
        return self.gate.admit(datagram, source)

    def passes(self, datagram: bytes, source: tuple[str, int] = AT) -> bool:
        return isinstance(self.admit(datagram, source), Admitted)

    def row(self, word: NasWord, address: str = AT[0]) -> int:
        nas = self.gate.tables.find_nas(address)
        assert isinstance(nas, Nas)
        return int(self.counters[nas.row + word])

    def dropped(self, fault: PacketFault) -> int:
        return int(self.counters[fault_word(fault)])


@pytest.fixture
def worker_of(tmp_path: Path) -> Callable[..., Worker]:
    return lambda *nases, **more: Worker(tmp_path, list(nases), **more)


def login(secret: bytes = OLD, *, signed: bool = True, extra: bytes = b"", method: str = "pap") -> bytes:
    """A login that no other one equals."""
    authenticator, digests = os.urandom(16), SecretDigests(secret)
    proof = (
        pap_attributes(b"password", authenticator, digests)
        if method == "pap"
        else chap_attributes(1, b"password", authenticator)
    )
    attributes = attribute(dictionary.USER_NAME, b"alice") + proof + extra
    return access_request(7, authenticator, attributes, digests, message_authenticator=signed)


def eap(secret: bytes = OLD) -> bytes:
    return access_request(7, os.urandom(16), EAP, SecretDigests(secret))


def proves(admitted: Admitted | bytes | None, secret: bytes) -> bool:
    """Whether the request is answered under this secret."""
    assert isinstance(admitted, Admitted)
    authenticator = admitted.packet.authenticator
    reply = admitted.digests.reply(2, 7, authenticator, b"", message_authenticator=True)
    return reply_is_authentic(reply, authenticator, SecretDigests(secret))


def answer(admitted: Admitted | bytes | None) -> bytes:
    """Answers the request, as the dispatcher does; the reply."""
    assert isinstance(admitted, Admitted)
    reply = admitted.digests.reply(2, 7, admitted.packet.authenticator, b"", message_authenticator=True)
    admitted.entry.reply = reply
    return reply


def test_a_request_passes_once_and_its_retransmission_meets_the_cache(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at())
    request = login()
    admitted = worker.admit(request)
    assert isinstance(admitted, Admitted)
    assert worker.admit(bytes(bytearray(request))) is None, "pending, within one batch too"
    admitted.entry.reply = b"reply"
    assert worker.admit(request) == b"reply"
    assert worker.passes(request, ("192.0.2.1", 40_001)), "another source port is another request"
    assert worker.row(NasWord.SIGNED) == 2
    assert worker.row(NasWord.DUPLICATES) == 2
    assert worker.counters[Word.DUPLICATES_PENDING] == worker.counters[Word.DUPLICATES_ANSWERED] == 1


def test_one_request_authenticator_for_two_requests_does_not_make_them_one(worker_of: Callable[..., Worker]) -> None:
    """radius-eap-mschapv2-client keeps it for a whole conversation."""
    worker, authenticator, digests = worker_of(nas_at()), os.urandom(16), SecretDigests(OLD)
    for said in (b"\2\1\0\5\1", b"\2\2\0\5\1"):
        request = access_request(7, authenticator, attribute(dictionary.EAP_MESSAGE, said), digests)
        assert worker.passes(request)
        assert worker.admit(request) is None


def test_a_forged_packet_does_not_touch_the_cache(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at())
    request = login()
    admitted = worker.admit(request)
    assert isinstance(admitted, Admitted)
    admitted.entry.reply = b"reply"
    assert worker.admit(request[:-1] + bytes([request[-1] ^ 1])) is None
    assert worker.admit(login(NEW)) is None
    assert worker.admit(request) == b"reply"
    assert worker.dropped(PacketFault.MESSAGE_AUTHENTICATOR_INVALID) == 2


@pytest.mark.parametrize(
    ("policy", "unsigned", "unsigned_after_a_signed_one"),
    [(AUTO, True, False), (YES, False, False), (NO, True, True)],
)
def test_the_policy_says_whether_a_login_must_be_signed(
    worker_of: Callable[..., Worker],
    policy: MessageAuthenticatorPolicy,
    unsigned: bool,
    unsigned_after_a_signed_one: bool,
) -> None:
    worker = worker_of(nas_at(policy=policy))
    assert worker.passes(login(signed=False)) is unsigned
    assert worker.passes(login())
    assert worker.passes(login(signed=False)) is unsigned_after_a_signed_one


def test_neither_eap_nor_status_server_nor_one_of_a_prefix_makes_a_signature_required(
    worker_of: Callable[..., Worker],
) -> None:
    worker = worker_of(nas_at(), nas_at("198.51.100.0/24", nas_id=2))
    assert worker.passes(eap())
    assert isinstance(worker.admit(status_server(1, os.urandom(16), SecretDigests(OLD))), bytes)
    assert worker.passes(login(signed=False))
    assert worker.passes(login(), ("198.51.100.7", 1))
    assert worker.passes(login(signed=False), ("198.51.100.7", 1))
    assert worker.passes(login(signed=False), ("198.51.100.8", 1))


def test_eap_and_status_server_never_go_without_whatever_is_set(worker_of: Callable[..., Worker]) -> None:
    worker, digests = worker_of(nas_at(policy=NO)), SecretDigests(OLD)
    unsigned_eap = access_request(7, os.urandom(16), EAP, digests, message_authenticator=False)
    assert worker.admit(unsigned_eap) is None
    assert worker.admit(bytes([Code.STATUS_SERVER, 1, 0, 20]) + bytes(16)) is None
    assert worker.dropped(PacketFault.EAP_UNSIGNED) == worker.dropped(PacketFault.STATUS_SERVER_UNSIGNED) == 1
    assert worker.row(NasWord.MISSING) == 0, "neither is a login"


def test_proxy_state_is_limited_where_nothing_is_signed(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at(policy=NO))
    some, much = attribute(dictionary.PROXY_STATE, bytes(64)), attribute(dictionary.PROXY_STATE, bytes(65))
    assert worker.passes(login(signed=False, extra=some))
    assert worker.admit(login(signed=False, extra=much)) is None
    assert worker.passes(login(extra=much))


def test_what_one_worker_learns_the_others_know_and_a_restart_too(worker_of: Callable[..., Worker]) -> None:
    first, second = worker_of(nas_at()), worker_of(nas_at(), name="access-2")
    assert first.passes(login())
    assert second.passes(login(signed=False))
    first.gate.share([second.counters], NS)
    second.gate.share([first.counters], NS)
    assert not second.passes(login(signed=False))
    assert not worker_of(nas_at(), name="access-3").passes(login(signed=False))
    stranger = worker_of(nas_at(), name="access-4", database_id=b"another database")
    assert stranger.passes(login(signed=False)), "the file is about another database's NASes"


def test_a_nas_that_another_node_saw_sign_must_sign_here(worker_of: Callable[..., Worker]) -> None:
    assert not worker_of(nas_at(signs_since=1_700_000_000)).passes(login(signed=False))


def test_a_new_observation_forgets_what_was_learned_everywhere(worker_of: Callable[..., Worker]) -> None:
    later = 4_000_000_000  # an operator set `auto` again; by the database's clock, which may be ahead of this one
    first, second = worker_of(nas_at()), worker_of(nas_at(), name="access-2")
    assert first.passes(login())
    first.gate.share([second.counters], NS)
    first.use(nas_at(observed_from=later))
    assert first.passes(login(signed=False))
    first.gate.share([second.counters], NS)
    second.gate.share([first.counters], NS)
    second.use(nas_at(observed_from=later))
    assert second.passes(login(signed=False))
    assert worker_of(nas_at(observed_from=later), name="access-3").passes(login(signed=False))
    assert first.passes(login())
    assert not first.passes(login(signed=False)), "and what is learned anew counts"
    first.gate.share([], NS)
    assert not worker_of(nas_at(observed_from=later), name="access-4").passes(login(signed=False))


def test_evidence_is_counted_by_request_with_the_last_that_was_not_signed(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at())
    unsigned = login(signed=False)
    for request in (unsigned, unsigned, eap(), login(), login()):
        worker.admit(request)
    worker.admit(login(signed=False), ("192.0.2.1", 40_777))
    found = {word: worker.row(word) for word in (NasWord.SIGNED, NasWord.UNSIGNED, NasWord.EAP, NasWord.MISSING)}
    assert list(found.values()) == [2, 1, 1, 1]
    assert worker.row(NasWord.LAST_UNSIGNED_PORT) == 40_777
    assert worker.row(NasWord.DROPS) == 1


def test_each_drop_is_counted_and_logged_with_its_source(worker_of: Callable[..., Worker], tmp_path: Path) -> None:
    worker = worker_of(nas_at())
    for datagram, source in (
        (b"", AT),
        (login(NEW), AT),
        (login(NEW), ("192.0.2.1", 40_001)),
        (login(), ("203.0.113.9", 5)),
        (accounting_request(1, b"", SecretDigests(OLD)), AT),
    ):
        assert worker.admit(datagram, source) is None
    worker.gate.share([], NS)
    [(began_at, name)] = list_windows(tmp_path)
    window = read_window(tmp_path, began_at, name)
    assert window is not None
    told = {(drop.address, drop.fault): (drop.nas_id, drop.packets, drop.last_port) for drop in window.drops}
    assert told == {
        ("192.0.2.1", "too-short"): (1, 1, 40_000),
        ("192.0.2.1", "message-authenticator-invalid"): (1, 2, 40_001),
        ("203.0.113.9", "unknown-nas"): (0, 1, 5),
        ("192.0.2.1", "unexpected-code"): (1, 1, 40_000),
    }
    assert worker.row(NasWord.DROPS) == 4


def test_the_longest_prefix_wins_whatever_the_family(worker_of: Callable[..., Worker]) -> None:
    prefixes = ["192.0.2.0/24", "192.0.2.128/25", "192.0.2.129/32", "2001:db8::/32", "2001:db8:1::/48", "::/0"]
    worker = worker_of(*(nas_at(prefix, nas_id=number) for number, prefix in enumerate(prefixes, 1)))
    found = {
        "192.0.2.1": 1,
        "192.0.2.130": 2,
        "192.0.2.129": 3,
        "::ffff:192.0.2.129": 3,
        "2001:db8:2::1": 4,
        "2001:db8:1::1": 5,
        "2001:db9::1": 6,
        "198.51.100.1": None,
        "::ffff:198.51.100.1": None,
    }
    for address, nas_id in found.items():
        nas = worker.gate.tables.find_nas(address)
        assert (nas.nas_id if nas is not None else None) == nas_id, address
        assert worker.passes(login(), (address, 1)) is (nas_id is not None)


def test_new_tables_take_over_what_did_not_change_and_nothing_else(worker_of: Callable[..., Worker]) -> None:
    same, moved, gone = nas_at(), nas_at("198.51.100.1/32", nas_id=2), nas_at("203.0.113.1/32", nas_id=3)
    worker = worker_of(same, moved, gone)
    before = worker.gate.tables
    worker.use(same, nas_at("198.51.100.2/32", nas_id=2))
    after = worker.gate.tables
    assert after.find_nas("192.0.2.1") is before.find_nas("192.0.2.1")
    assert worker.passes(login(), ("198.51.100.2", 1))
    assert not worker.passes(login(), ("198.51.100.1", 1))
    assert not worker.passes(login(), ("203.0.113.1", 1))
    assert [nas.nas_id for nas in after.nases] == [1, 2]


def test_two_secrets_are_valid_while_they_are_rotated(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at("192.0.2.1/32", NEW, OLD))
    for secret in (OLD, NEW, NEW, OLD):
        assert proves(worker.admit(login(secret)), secret)
        assert proves(worker.admit(eap(secret)), secret)
        answered = worker.admit(status_server(1, bytes(16), SecretDigests(secret)))
        assert isinstance(answered, bytes)
        assert reply_is_authentic(answered, bytes(16), SecretDigests(secret))
    assert worker.admit(login(b"neither of the two")) is None
    assert (worker.row(NasWord.OLD_SECRET), worker.row(NasWord.NEW_SECRET)) == (6, 6)
    worker.use(nas_at("192.0.2.1/32", NEW))
    assert worker.admit(login(OLD)) is None
    assert worker.passes(login(NEW))


def test_accounting_proves_its_secret_and_tells_the_access_workers(worker_of: Callable[..., Worker]) -> None:
    both = nas_at("192.0.2.1/32", NEW, OLD)
    access, accounting = worker_of(both), worker_of(both, code=Code.ACCOUNTING_REQUEST)
    unsigned = [login(signed=False, method="chap") for _ in range(3)]
    assert proves(access.admit(unsigned[0]), OLD), "before the first proof: the one that everybody had"
    for number, secret in enumerate((NEW, OLD), 1):
        assert proves(accounting.admit(accounting_request(number, b"", SecretDigests(secret))), secret)
        access.gate.share([accounting.counters], NS)
        assert proves(access.admit(unsigned[number]), secret)


def test_a_request_that_proves_nothing_is_answered_under_what_its_source_proved_last(
    worker_of: Callable[..., Worker],
) -> None:
    worker = worker_of(nas_at("192.0.2.0/24", NEW, OLD))
    one, other = ("192.0.2.1", 1), ("192.0.2.2", 1)
    assert worker.passes(login(NEW), one)
    assert proves(worker.admit(login(signed=False, method="chap"), one), NEW)
    assert proves(worker.admit(login(signed=False, method="chap"), other), OLD)
    assert worker.passes(login(OLD), one)
    assert proves(worker.admit(login(signed=False, method="chap"), one), OLD)


def test_a_password_may_be_revealed_by_either_secret_and_teaches_which(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at("192.0.2.1/32", NEW, OLD))
    admitted = worker.admit(login(NEW, signed=False))
    assert isinstance(admitted, Admitted)
    assert admitted.other is not None
    hidden = admitted.packet.attributes[dictionary.USER_PASSWORD]
    revealed = [d.reveal_password(hidden, admitted.packet.authenticator) for d in (admitted.digests, admitted.other)]
    assert revealed[0] != b"password"
    assert revealed[1] == b"password"
    worker.gate.learn_secret(admitted, admitted.other)
    assert proves(worker.admit(login(signed=False, method="chap")), NEW)
    assert worker.row(NasWord.NEW_SECRET) == 1
    signed = worker.admit(login(NEW))
    assert isinstance(signed, Admitted)
    assert signed.other is None


def test_whoever_does_not_believe_a_reply_gets_one_under_the_other_secret(worker_of: Callable[..., Worker]) -> None:
    worker = worker_of(nas_at("192.0.2.1/32", NEW, OLD, policy=NO))
    request = login(signed=False, method="chap")
    for secret in (OLD, NEW, OLD):
        admitted = worker.admit(request)
        assert proves(admitted, secret)
        assert worker.admit(request) is None
        answer(admitted)
        worker.passes(login(NEW), ("192.0.2.1", 40_001))  # whatever is learned of the source meanwhile
    signed = login()
    reply = answer(worker.admit(signed))
    assert worker.admit(signed) == reply, "what a request proved is not doubted"
