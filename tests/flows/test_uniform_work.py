"""Who does not prove himself costs the same work, whoever he is: a clock at the NAS does not tell who there is."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from make import make_vault

from sms_aaa.flows.access import AccessRequest, Case, answer_case
from sms_aaa.flows.deciding import RANDOM_OCTETS, Known, decide_requests, refuse_request
from sms_aaa.flows.passwords import PasswordChecks
from sms_aaa.flows.tables import Tables
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_writer import EntitlementChange, ReplicaWriter
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Packet, attribute, parse
from sms_aaa.radius.request import (
    access_request,
    chap_attributes,
    mschap2_attributes,
    mschap_attributes,
    pap_attributes,
)
from sms_aaa.rules.entitlement import (
    Dialect,
    Entitlement,
    MessageAuthenticatorPolicy,
    NodeNas,
    NodePlan,
    Policy,
)
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

METHODS = ["pap", "chap", "mschap", "mschap2"]
DEAR = ("decrypt", "compare_digest", "_compare_digest")
"""What of a refusal's work takes the time, by the names of its functions."""


class Node:
    """A replica with alice in it, and bob, whose password is not to be read."""

    def __init__(self, root: Path) -> None:
        self.vault = make_vault()
        sealed = self.vault.seal_nas_secret(Secret(b"secret"), 1, nonce=os.urandom(12))
        nas = NodeNas(1, "bng1", "127.0.0.1/32", [sealed], Dialect.GENERIC, MessageAuthenticatorPolicy.AUTO, 3799)
        plan = NodePlan(1, "plan", 1, Policy(rate_up_kbps=1, rate_down_kbps=1, sessions_max=1))
        password = self.vault.seal_password(Secret(b"wonderland"), 1, nonce=os.urandom(12))
        filler = ReplicaFiller.begin(root, database_id=bytes(16), schema_version=1)
        assert isinstance(filler, ReplicaFiller)
        changes = [
            EntitlementChange(1, b"alice", Entitlement(1, 1, 1, 1, password, 0)),
            EntitlementChange(1, b"bobby", Entitlement(2, 1, 1, 1, b"", 0)),
        ]
        filler.put_tables([plan], [nas], [])
        filler.put_records(changes)
        filler.put_keys([(change.entitlement.service_id, change.kind, change.identity) for change in changes])
        writer = filler.finish(cursor="", refreshed_ns=1, dated_us=1)
        assert isinstance(writer, ReplicaWriter)
        assert writer.make_current() is None
        writer.close()
        replica = Replica.open(root)
        assert isinstance(replica, Replica)
        self.replica = replica
        self.tables = Tables([nas], [plan], self.vault)
        found = self.tables.find_nas("127.0.0.1")
        assert found is not None
        self.nas = found

    def request(self, user: bytes, password: bytes, method: str) -> AccessRequest:
        authenticator, digests = bytes(range(16)), self.nas.digests
        proof = {
            "pap": lambda: pap_attributes(password, authenticator, digests),
            "chap": lambda: chap_attributes(1, password, authenticator),
            "mschap": lambda: mschap_attributes(1, password, bytes(8)),
            "mschap2": lambda: mschap2_attributes(1, user, password, challenge=bytes(16), peer_challenge=bytes(16)),
        }[method]()
        name = attribute(dictionary.USER_NAME, user)
        packet = parse(access_request(1, authenticator, name + proof, digests))
        assert isinstance(packet, Packet)
        return AccessRequest(packet, self.nas, digests, None)

    def decide(self, request: AccessRequest) -> Case:
        with self.replica.read() as view:
            passwords = PasswordChecks(key=bytes(32), remember_seconds=0)
            known = Known(self.tables, self.vault, view, passwords, now=1)
            [case] = decide_requests([request], known, randomness=bytes(RANDOM_OCTETS))
        assert isinstance(case, Case)
        return case

    def work(self, request: AccessRequest) -> tuple[Reason, Counter[str]]:
        """How often each of the dear functions is called while a request is decided."""
        calls: Counter[str] = Counter()

        def note(_frame: FrameType, event: str, function: object) -> None:
            name = getattr(function, "__name__", "") if event == "c_call" else ""
            if name in DEAR:
                calls[name.strip("_")] += 1

        sys.setprofile(note)
        try:
            case = self.decide(request)
        finally:
            sys.setprofile(None)
        return case.reason, calls


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.replica.close()


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_user_costs_a_decryption_and_a_comparison_as_a_wrong_password_does(node: Node, method: str) -> None:
    wrong, of_wrong = node.work(node.request(b"alice", b"wrong", method))
    unknown, of_unknown = node.work(node.request(b"nobod", b"wrong", method))
    unusable, of_unusable = node.work(node.request(b"bobby", b"wrong", method))
    assert (wrong, unknown, unusable) == (Reason.BAD_PASSWORD, Reason.UNKNOWN_USER, Reason.NO_CREDENTIAL)
    assert of_wrong == of_unknown == of_unusable == {"decrypt": 1, "compare_digest": 1}


@pytest.mark.parametrize("method", METHODS)
def test_every_refusal_without_proof_is_the_same_reply(node: Node, method: str) -> None:
    wrong = node.decide(node.request(b"alice", b"wrong", method))
    unknown = node.decide(node.request(b"nobod", b"wrong", method))
    limited = refuse_request(node.request(b"alice", b"wrong", method), Reason.RATE_LIMITED, b"", is_told=True)
    locked = refuse_request(node.request(b"alice", b"wrong", method), Reason.LOCKED_OUT, b"", is_told=True)
    assert isinstance(limited, Case)
    assert isinstance(locked, Case)
    replies = {answer_case(case) for case in (wrong, unknown, limited, locked)}
    assert len(replies) == 1
