"""Access-Request -> Access-Accept or -Reject: load, decide, reserve, speak the NAS's dialect.

The first step stands in flows/deciding.py, the others here.

A batch at a time, in three steps, because that is what the way can afford: one reader transaction on the replica for
all look-ups; one short write transaction on the live set for the reservations of those that passed (the other worker
waits for it, so nothing slow is done inside); then the replies are signed. The door owns the transactions, the time and
the randomness; nothing here waits, and nothing here knows PostgreSQL. A refusal costs no reservation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.places import Claim
from sms_aaa.flows.passwords import PasswordCheck
from sms_aaa.flows.tables import Nas, Plan
from sms_aaa.node.live_change import LimitReached, LiveFault, device_key
from sms_aaa.node.records import DecisionRecord
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Credential, Method, StoredPassword
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import HEADER_OCTETS, PACKET_OCTETS_MAX, Code, Packet, as_text, attribute
from sms_aaa.rules.access import seconds_left
from sms_aaa.rules.entitlement import Entitlement, SessionsPolicy
from sms_aaa.rules.reasons import UNPROVED, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.node.live_change import LiveChange

CLASS_MAGIC = b"SMS\x01"
REPLY_OCTETS_MAX = PACKET_OCTETS_MAX - HEADER_OCTETS - 18
"""For attributes beside the Message-Authenticator."""

_PPP = (1).to_bytes(4, "big")
_CLASS_BEFORE_SERVICE = bytes((dictionary.CLASS, 22)) + CLASS_MAGIC
_FRAMED_IP_ADDRESS_HEADER = bytes((dictionary.FRAMED_IP_ADDRESS, 6))
# Members of an enum are found through its metaclass: once here, not for each login.
_ACCEPTED = Reason.ACCEPTED
_REPLACES = SessionsPolicy.REPLACE_SAME_DEVICE
_ACCESS_ACCEPT, _ACCESS_REJECT = int(Code.ACCESS_ACCEPT), int(Code.ACCESS_REJECT)
_FRAMED_PPP = attribute(dictionary.SERVICE_TYPE, (2).to_bytes(4, "big")) + attribute(dictionary.FRAMED_PROTOCOL, _PPP)


class AccessRequest(Struct, frozen=True, gc=False):
    """A verified, new Access-Request; `digests` are those of the secret that it came under.

    `other`: it may as well have come under this one, which only its password can tell (see server/rotation.py).
    `caller`: user and device in one, as server/defence.py knows them.
    """

    packet: Packet
    nas: Nas
    digests: SecretDigests
    other: SecretDigests | None = None
    caller: bytes = b""


class Case(Struct, gc=False):
    """One request on its way through the steps; the door only carries it from one to the next.

    `work`, when there is some, takes too long for the loop: the door has it done beside it and tells the result to
    `prove_case`; then the case goes on with the second step. `reason` is what holds if the work proves the password,
    and `otherwise` the same request under the NAS's other secret, to be tried if it does not.
    """

    request: AccessRequest
    proof: Credential | None
    entitlement: Entitlement | None
    stored: StoredPassword | None
    plan: Plan | None
    method: Method
    reason: Reason
    token: bytes
    salts: bytes
    sessions_seen: int = 0
    work: PasswordCheck | None = None
    otherwise: Case | None = None
    saw: bytes = b""
    is_told: bool = True
    """It goes into the decision stream."""
    decided_at: int = 0  # epoch seconds; only with terms, or in a realm with places

    def proves_secret(self) -> bool:
        """Whether a password that was revealed with the request's secret is right, and so the secret too."""
        return self.reason is _ACCEPTED and self.method is Method.PAP

    def is_refused_anyhow(self) -> bool:
        """Whether its work changes nothing but the time that it takes."""
        return self.reason in UNPROVED

    def wants_place(self) -> bool:
        """Whether this login, let in so far, counts against a limit."""
        plan = self.plan
        return self.reason is _ACCEPTED and plan is not None and plan.plan.policy.sessions_max > 0

    def wants_strict_place(self) -> bool:
        """Whether PostgreSQL is to say if there is a place, too."""
        return self.wants_place() and self.plan is not None and self.plan.plan.policy.sessions_strict

    def refuse(self, reason: Reason, saw: bytes = b"") -> None:
        self.reason, self.saw = reason, saw


def devices_of(cases: Sequence[Case]) -> list[bytes]:
    """Which device each case is about: for `reserve_places`, reckoned before everybody else waits for that."""
    return [device_of(case.request.packet, case.request.nas.nas_id) for case in cases]


def reserve_places(
    cases: Sequence[Case], devices: Sequence[bytes], change: LiveChange, *, now: int, until: int
) -> None:
    """The second step, for cases that want a place, in the order of arrival; one that finds none is refused.

    `now`, `until`: epoch seconds. If the change has a fault in the end, none of these cases may be answered.
    """
    for case, device in zip(cases, devices, strict=True):
        entitlement, plan = case.entitlement, case.plan
        assert entitlement is not None
        assert plan is not None
        got = change.reserve(
            entitlement.service_id,
            device=device,
            nas_id=case.request.nas.nas_id,
            sessions_max=plan.plan.policy.sessions_max,
            token=case.token,
            now=now,
            until=until,
            replaces=plan.plan.policy.sessions_policy is _REPLACES,
        )
        if isinstance(got, LiveFault):
            return
        case.sessions_seen = got.sessions_seen
        if isinstance(got, LimitReached):
            case.reason = Reason.CONCURRENT_LIMIT


def claim_of(case: Case) -> Claim:
    """What PostgreSQL is asked for a strict place."""
    assert case.entitlement is not None
    assert case.plan is not None
    policy, attributes = case.plan.plan.policy, case.request.packet.attributes
    return Claim(
        service_id=case.entitlement.service_id,
        token=case.token,
        nas_id=case.request.nas.nas_id,
        station=as_text(attributes.get(dictionary.CALLING_STATION_ID, b"")),
        port_id=as_text(attributes.get(dictionary.NAS_PORT_ID, b"")),
        port=int.from_bytes(attributes.get(dictionary.NAS_PORT, b"")[:4], "big"),
        sessions_max=policy.sessions_max,
        replaces=policy.sessions_policy is _REPLACES,
    )


def withdraw_place(case: Case, change: LiveChange) -> None:
    """The case was refused after `reserve_places` had given it one."""
    assert case.entitlement is not None
    change.withdraw(case.entitlement.service_id, case.token)


def answer_case(case: Case) -> bytes | PacketFault:
    """The third step: the reply, in the NAS's dialect.

    A fault where the request brought more Proxy-State than a reply with its rights has room for: silence.
    """
    request = case.request
    packet = request.packet
    if case.reason is _ACCEPTED:
        code, attributes = _ACCESS_ACCEPT, _accept_attributes(case)
    else:
        code, attributes = _ACCESS_REJECT, _reject_attributes(case)
    if dictionary.PROXY_STATE in packet.attributes:
        attributes += copied_proxy_states(packet)
    if len(attributes) > REPLY_OCTETS_MAX:
        return PacketFault.REPLY_TOO_LONG
    return request.digests.signed_reply(code, packet.identifier, packet.authenticator, attributes)


def decision_of(case: Case) -> DecisionRecord:
    """What was decided, for the journal."""
    request, entitlement, plan = case.request, case.entitlement, case.plan
    attributes = request.packet.attributes
    port = attributes.get(dictionary.NAS_PORT_ID)
    if port is None:
        number = attributes.get(dictionary.NAS_PORT, b"")
        port = b"%d" % int.from_bytes(number, "big") if number else b""
    reason = case.reason
    return DecisionRecord(
        request.nas.nas_id,
        entitlement.service_id if entitlement is not None else 0,
        entitlement.plan_version_id if entitlement is not None else 0,
        reason.code,
        case.method,
        attributes.get(dictionary.USER_NAME, b""),
        attributes.get(dictionary.CALLING_STATION_ID, b""),
        port,
        case.token if reason is _ACCEPTED else b"",
        case.sessions_seen,
        plan.plan.policy.sessions_max if plan is not None else 0,
        case.saw,
    )


def device_of(packet: Packet, nas_id: int) -> bytes:
    """Which device asks: what makes a retransmission or a re-login the same one; b"" when nothing tells."""
    attributes = packet.attributes
    return name_device(
        nas_id,
        station=attributes.get(dictionary.CALLING_STATION_ID, b""),
        port_id=attributes.get(dictionary.NAS_PORT_ID, b""),
        port=attributes.get(dictionary.NAS_PORT, b""),
    )


def name_device(nas_id: int, *, station: bytes, port_id: bytes, port: bytes) -> bytes:
    """A device's key: by its own address at this NAS, else by the port that it is at.

    Where the NAS tells the station the port says nothing more: many number their ports by session, and the same
    device would be another after each dial-up. A NAS-Port of 0 is what a NAS says that has no ports.
    """
    if station:
        return device_key(nas_id, b"", station)
    return device_key(nas_id, port_id or port, b"") if port_id or port.strip(b"\0") else b""


def encode_class(service_id: int, token: bytes) -> bytes:
    """The value of our Class: magic, service, token (20 octets)."""
    return CLASS_MAGIC + service_id.to_bytes(8, "big") + token


def read_class(packet: Packet) -> tuple[int, bytes] | None:
    """(service id, token) from the Class that is ours; others may have put theirs beside it."""
    value = packet.attributes.get(dictionary.CLASS)
    if value is not None and packet.repeated is not None:
        value = next((one for one in packet.all(dictionary.CLASS) if _is_ours(one)), None)
    if value is None or not _is_ours(value):
        return None
    return int.from_bytes(value[4:12], "big"), value[12:]


def _is_ours(value: bytes) -> bool:
    return len(value) == 20 and value.startswith(CLASS_MAGIC)


def copied_proxy_states(packet: Packet) -> bytes:
    """RFC 2865 section 5.33: unmodified and in order."""
    if dictionary.PROXY_STATE not in packet.attributes:
        return b""
    return b"".join(attribute(dictionary.PROXY_STATE, value) for value in packet.all(dictionary.PROXY_STATE))


def _accept_attributes(case: Case) -> bytes:
    entitlement, plan, request = case.entitlement, case.plan, case.request
    assert entitlement is not None
    assert plan is not None
    packet, dialect_at, terms = request.packet, request.nas.dialect_at, entitlement.terms
    attributes = (
        (
            plan.attributes[dialect_at]
            if terms is None
            else plan.attributes_until(dialect_at, seconds_left(terms, case.decided_at))
        )
        + _CLASS_BEFORE_SERVICE
        + entitlement.service_id.to_bytes(8, "big")
        + case.token
    )
    if packet.attributes.get(dictionary.FRAMED_PROTOCOL) == _PPP:
        attributes += _FRAMED_PPP
    if entitlement.static_ipv4:
        attributes += _FRAMED_IP_ADDRESS_HEADER + entitlement.static_ipv4.to_bytes(4, "big")
    if case.proof is not None and case.stored is not None:
        attributes += case.proof.success_attributes(case.stored, request.digests, packet.authenticator, case.salts)
    return attributes


def _reject_attributes(case: Case) -> bytes:
    """RFC 2865 section 5.44: a Reject carries no rights, only words."""
    words = attribute(dictionary.REPLY_MESSAGE, case.reason.text.encode())
    return words + case.proof.failure_attributes() if case.proof is not None else words
