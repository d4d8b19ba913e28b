"""A login whose hash is slow, from the packet to the decision, on a real replica; the work is done here by hand."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from make import make_vault

from sms_aaa.flows.access import AccessRequest, Case, answer_case, decision_of
from sms_aaa.flows.deciding import RANDOM_OCTETS, Known, decide_requests, prove_case
from sms_aaa.flows.passwords import KEY_OCTETS, PasswordChecks
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import NONCE_OCTETS
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_writer import EntitlementChange, ReplicaWriter
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import StoredPassword
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.hashes import Pbkdf2
from sms_aaa.radius.packet import Code, Packet, attribute, parse
from sms_aaa.radius.request import access_request, chap_attributes, pap_attributes, reply_is_authentic
from sms_aaa.rules.entitlement import (
    Dialect,
    Entitlement,
    IdentityKind,
    MessageAuthenticatorPolicy,
    NodeNas,
    NodePlan,
    Policy,
    ServiceState,
)
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEWER, OLDER = b"the newer secret", b"the older secret"
AUTHENTICATOR = bytes(range(16))
PASSWORD = b"wonderland"
SLOW = StoredPassword(hashed=Pbkdf2("sha1", 200, b"salt", hashlib.pbkdf2_hmac("sha1", PASSWORD, b"salt", 200)))
VAULT = make_vault()
NAS = NodeNas(
    1,
    "bng1",
    "127.0.0.1/32",
    [VAULT.seal_nas_secret(Secret(secret), 1, nonce=os.urandom(NONCE_OCTETS)) for secret in (NEWER, OLDER)],
    Dialect.GENERIC,
    MessageAuthenticatorPolicy.NO,
    3799,
)
PLAN = NodePlan(1, "plan", 1, Policy(sessions_max=0))
WHO = {
    b"slow": (1, ServiceState.ACTIVE, SLOW),
    b"suspended": (2, ServiceState.SUSPENDED, SLOW),
    b"quick": (3, ServiceState.ACTIVE, StoredPassword.from_cleartext(PASSWORD)),
}


class Worker:
    """As much of an access worker as a decision needs."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.tables = Tables([NAS], [PLAN], VAULT)
        self.passwords = PasswordChecks(key=bytes(KEY_OCTETS), remember_seconds=300)

    def decide(self, username: bytes, password: bytes, *, secret: bytes = NEWER, method: str = "pap") -> Case:
        """A login under one of two secrets, of which nobody can tell which it is."""
        proof = (
            pap_attributes(password, AUTHENTICATOR, SecretDigests(secret))
            if method == "pap"
            else chap_attributes(1, password, AUTHENTICATOR)
        )
        packet = parse(
            access_request(1, AUTHENTICATOR, attribute(dictionary.USER_NAME, username) + proof, SecretDigests(secret))
        )
        assert isinstance(packet, Packet)
        [nas] = self.tables.nases
        assert nas.older is not None
        request = AccessRequest(packet, nas, nas.digests, nas.older)
        with self.replica.read() as view:
            known = Known(self.tables, VAULT, view, self.passwords, now=0)
            [case] = decide_requests([request], known, randomness=bytes(RANDOM_OCTETS))
        assert isinstance(case, Case)
        return case

    def finish(self, case: Case) -> tuple[Case, int]:
        """The case with all its work done, and how often there was some."""
        times = 0
        while case.work is not None:
            case = prove_case(case, self.passwords, matches=case.work())
            times += 1
        return case, times

    def ask(
        self, username: bytes, password: bytes, *, secret: bytes = NEWER, method: str = "pap"
    ) -> tuple[Reason, int]:
        case, times = self.finish(self.decide(username, password, secret=secret, method=method))
        return case.reason, times


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    filler = ReplicaFiller.begin(tmp_path, database_id=bytes(16), schema_version=1)
    assert isinstance(filler, ReplicaFiller)
    filler.put_tables([PLAN], [NAS], [])
    changes = []
    for username, (service_id, state, stored) in WHO.items():
        sealed = VAULT.seal_stored(stored, service_id, nonce=os.urandom(NONCE_OCTETS))
        entitlement = Entitlement(service_id, 1, 1, int(state), sealed)
        changes.append(EntitlementChange(int(IdentityKind.USERNAME), username, entitlement))
    filler.put_records(changes)
    filler.put_keys([(change.entitlement.service_id, change.kind, change.identity) for change in changes])
    writer = filler.finish(cursor="", refreshed_ns=1, dated_us=1)
    assert isinstance(writer, ReplicaWriter)
    assert writer.make_current() is None
    writer.close()
    replica = Replica.open(tmp_path)
    assert isinstance(replica, Replica)
    yield Worker(replica)
    replica.close()


def test_a_right_password_is_computed_once_and_then_known(worker: Worker) -> None:
    assert worker.ask(b"slow", PASSWORD) == (Reason.ACCEPTED, 1)
    assert worker.ask(b"slow", PASSWORD) == (Reason.ACCEPTED, 0)
    assert worker.passwords.hits == 1


def test_rights_are_looked_at_whether_the_password_is_known_or_not(worker: Worker) -> None:
    assert worker.ask(b"suspended", PASSWORD) == (Reason.SUSPENDED, 1)
    assert worker.ask(b"suspended", PASSWORD) == (Reason.SUSPENDED, 0)
    # Under two secrets a wrong one is tried twice, and what it would have had is not told.
    assert worker.ask(b"suspended", b"wrong") == (Reason.BAD_PASSWORD, 2)


def test_a_password_under_the_older_secret_is_found_after_the_newer(worker: Worker) -> None:
    case, times = worker.finish(worker.decide(b"slow", PASSWORD, secret=OLDER))
    assert (case.reason, times) == (Reason.ACCEPTED, 2)
    assert case.proves_secret()
    reply = answer_case(case)
    assert isinstance(reply, bytes)
    assert reply[0] == Code.ACCESS_ACCEPT
    assert reply_is_authentic(reply, AUTHENTICATOR, SecretDigests(OLDER)), "signed with the secret that was proved"
    assert decision_of(case).reason_code == Reason.ACCEPTED.code
    assert worker.ask(b"slow", PASSWORD, secret=OLDER) == (Reason.ACCEPTED, 0)


def test_a_refusal_before_the_proof_costs_work_once_a_slow_hash_was_met(worker: Worker) -> None:
    for username in (b"nobody", b"quick"):
        assert worker.ask(username, b"wrong")[1] == 0
    worker.ask(b"slow", PASSWORD)
    assert worker.ask(b"nobody", b"wrong") == (Reason.UNKNOWN_USER, 1)
    assert worker.ask(b"nobody", PASSWORD) == (Reason.UNKNOWN_USER, 1), "the password of another proves nothing"
    assert worker.ask(b"nobody", PASSWORD) == (Reason.UNKNOWN_USER, 1), "and is not remembered"
    assert worker.ask(b"quick", b"wrong") == (Reason.BAD_PASSWORD, 1)
    assert worker.ask(b"quick", PASSWORD) == (Reason.ACCEPTED, 0)


def test_a_worker_that_starts_learns_from_its_replica_what_a_stranger_costs(worker: Worker) -> None:
    with worker.replica.read() as view:
        assert len(view.first_entitlements(2)) == 2
        worker.passwords.meet(view.first_entitlements(1), VAULT)  # quick comes first
    assert worker.ask(b"nobody", b"wrong") == (Reason.UNKNOWN_USER, 0)
    with worker.replica.read() as view:
        worker.passwords.meet(view.first_entitlements(10), VAULT)
    assert worker.ask(b"nobody", b"wrong") == (Reason.UNKNOWN_USER, 1)


def test_a_method_that_a_hash_cannot_serve_is_told(worker: Worker) -> None:
    assert worker.decide(b"slow", PASSWORD, method="chap").saw == b"pbkdf2 cannot serve chap"
    assert worker.decide(b"quick", b"wrong", method="chap").saw == b""


@pytest.mark.parametrize(
    ("username", "reason"),
    [(b"slow", Reason.NO_CREDENTIAL), (b"nobody", Reason.UNKNOWN_USER), (b"quick", Reason.BAD_PASSWORD)],
)
def test_what_a_hash_cannot_serve_is_refused_at_once(worker: Worker, username: bytes, reason: Reason) -> None:
    worker.ask(b"slow", PASSWORD)
    assert worker.ask(username, b"wrong", method="chap") == (reason, 0)
