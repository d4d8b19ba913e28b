"""Access-Request -> Access-Accept or -Reject: load, decide, reserve, speak the NAS's dialect.

A batch at a time, in three steps, because that is what the way can afford: one reader transaction on the replica for
all look-ups; one short write transaction on the live set for the reservations of those that passed (the other worker
waits for it, so nothing slow is done inside); then the replies are signed. The door owns the transactions, the time and
the randomness; nothing here waits, and nothing here knows PostgreSQL. A refusal costs no reservation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.tables import Nas, Plan
from sms_aaa.node.live import LimitReached, LiveFault, device_key
from sms_aaa.node.records import DecisionRecord
from sms_aaa.node.replica import ReplicaFault
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Credential, Method, StoredPassword, read_credential
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import HEADER_OCTETS, PACKET_OCTETS_MAX, Code, Packet, attribute, ipv4
from sms_aaa.rules.access import decide, decide_rights
from sms_aaa.rules.entitlement import Entitlement, IdentityKind
from sms_aaa.rules.identity import mac_identity
from sms_aaa.rules.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.flows.tables import Tables
    from sms_aaa.flows.vault import Vault
    from sms_aaa.node.live import LiveChange
    from sms_aaa.node.replica import ReplicaView

CLASS_MAGIC = b"SMS\x01"
TOKEN_OCTETS = 8
SALT_OCTETS = 4
RANDOM_OCTETS = TOKEN_OCTETS + SALT_OCTETS
"""How much randomness a request may need; the door draws it for a batch at once."""

REPLY_OCTETS_MAX = PACKET_OCTETS_MAX - HEADER_OCTETS - 18
"""For attributes beside the Message-Authenticator."""

_CALL_CHECK = (10).to_bytes(4, "big")
_PPP = (1).to_bytes(4, "big")
_USERNAME = int(IdentityKind.USERNAME)
_MAC = int(IdentityKind.MAC)
_FRAMED_PPP = attribute(dictionary.SERVICE_TYPE, (2).to_bytes(4, "big")) + attribute(dictionary.FRAMED_PROTOCOL, _PPP)


class AccessRequest(Struct, frozen=True, gc=False):
    """A verified, new Access-Request."""

    packet: Packet
    nas: Nas


class AccessAnswer(Struct, frozen=True, gc=False):
    """The reply to a request and the decision behind it. A refusal is to be sent late (reject delay)."""

    reply: bytes
    reason: Reason
    decision: DecisionRecord


class Case(Struct, gc=False):
    """One request on its way through the three steps; the door only carries it from one to the next."""

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

    def wants_place(self) -> bool:
        """Whether this login, let in so far, counts against a limit."""
        plan = self.plan
        return self.reason is Reason.ACCEPTED and plan is not None and plan.plan.policy.sessions_max > 0


def decide_requests(
    requests: Sequence[AccessRequest], *, tables: Tables, vault: Vault, view: ReplicaView, randomness: bytes
) -> list[Case | PacketFault | ReplicaFault]:
    """The first step: who it is, and whether the rights are there.

    A fault, and so silence, where a credential is cut wrong, or where the replica cannot say who it is.

    `randomness`: RANDOM_OCTETS for each request.
    """
    return [
        _decide(request, tables, vault, view, randomness[at : at + RANDOM_OCTETS])
        for request, at in zip(requests, range(0, len(requests) * RANDOM_OCTETS, RANDOM_OCTETS), strict=True)
    ]


def reserve_places(cases: Sequence[Case], change: LiveChange, *, now: int, until: int) -> None:
    """The second step, for cases that want a place, in the order of arrival; one that finds none is refused.

    `now`, `until`: epoch seconds. If the change has a fault in the end, none of these cases may be answered.
    """
    for case in cases:
        assert case.entitlement is not None
        assert case.plan is not None
        nas_id = case.request.nas.nas_id
        got = change.reserve(
            case.entitlement.service_id,
            device=device_of(case.request.packet, nas_id),
            nas_id=nas_id,
            sessions_max=case.plan.plan.policy.sessions_max,
            token=case.token,
            now=now,
            until=until,
        )
        if isinstance(got, LiveFault):
            return
        case.sessions_seen = got.sessions_seen
        if isinstance(got, LimitReached):
            case.reason = Reason.CONCURRENT_LIMIT


def answer_request(case: Case, now_ns: int) -> AccessAnswer | PacketFault:
    """The third step: the reply in the NAS's dialect, and the decision for the journal.

    A fault where the request brought more Proxy-State than a reply with its rights has room for: silence.
    """
    packet, nas = case.request.packet, case.request.nas
    if case.reason is Reason.ACCEPTED:
        code, attributes = Code.ACCESS_ACCEPT, _accept_attributes(case)
    else:
        code, attributes = Code.ACCESS_REJECT, _reject_attributes(case)
    attributes += copied_proxy_states(packet)
    if len(attributes) > REPLY_OCTETS_MAX:
        return PacketFault.PROXY_STATE_LIMIT
    reply = nas.digests.reply(code, packet.identifier, packet.authenticator, attributes, message_authenticator=True)
    return AccessAnswer(reply, case.reason, _decision(case, now_ns))


def _decide(
    request: AccessRequest, tables: Tables, vault: Vault, view: ReplicaView, randomness: bytes
) -> Case | PacketFault | ReplicaFault:
    packet = request.packet
    proof = read_credential(packet, request.nas.digests)
    if isinstance(proof, PacketFault):
        return proof
    username = packet.attributes.get(dictionary.USER_NAME, b"")
    method = Method.NONE if proof is None else proof.method
    stored = None
    entitlement = view.entitlement(_USERNAME, username) if proof is not None else None
    if entitlement is None and (device := _device(packet, username)) is not None:
        by_mac = view.entitlement(_MAC, device)
        if by_mac is not None or proof is None:
            # The address that the NAS saw is the proof.
            entitlement, method, proof = by_mac, Method.MAC, None
    if isinstance(entitlement, ReplicaFault):
        return entitlement
    plan = tables.plans.get(entitlement.plan_version_id) if entitlement is not None else None
    node_plan = plan.plan if plan is not None else None
    if method is not Method.MAC:
        if entitlement is not None:
            stored = vault.open_password(entitlement.credential, entitlement.service_id)
        reason = decide(proof, entitlement, stored, node_plan)
    else:
        reason = decide_rights(entitlement, node_plan) if entitlement is not None else Reason.UNKNOWN_USER
    token, salts = randomness[:TOKEN_OCTETS], randomness[TOKEN_OCTETS:]
    return Case(request, proof, entitlement, stored, plan, method, reason, token, salts)


def _device(packet: Packet, username: bytes) -> bytes | None:
    attributes = packet.attributes
    call_check = attributes.get(dictionary.SERVICE_TYPE) == _CALL_CHECK
    return mac_identity(username, attributes.get(dictionary.CALLING_STATION_ID, b""), call_check=call_check)


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
    for value in packet.all(dictionary.CLASS):
        if len(value) == 20 and value.startswith(CLASS_MAGIC):
            return int.from_bytes(value[4:12], "big"), value[12:]
    return None


def copied_proxy_states(packet: Packet) -> bytes:
    """RFC 2865 section 5.33: unmodified and in order."""
    if dictionary.PROXY_STATE not in packet.attributes:
        return b""
    return b"".join(attribute(dictionary.PROXY_STATE, value) for value in packet.all(dictionary.PROXY_STATE))


def _accept_attributes(case: Case) -> bytes:
    entitlement, plan, packet, nas = case.entitlement, case.plan, case.request.packet, case.request.nas
    assert entitlement is not None
    assert plan is not None
    attributes = plan.attributes[nas.dialect] + attribute(
        dictionary.CLASS, encode_class(entitlement.service_id, case.token)
    )
    if packet.attributes.get(dictionary.FRAMED_PROTOCOL) == _PPP:
        attributes += _FRAMED_PPP
    if entitlement.static_ipv4:
        attributes += attribute(dictionary.FRAMED_IP_ADDRESS, ipv4(entitlement.static_ipv4))
    if case.proof is not None and case.stored is not None:
        attributes += case.proof.success_attributes(case.stored, nas.digests, packet.authenticator, case.salts)
    return attributes


def _reject_attributes(case: Case) -> bytes:
    """RFC 2865 section 5.44: a Reject carries no rights, only words."""
    words = attribute(dictionary.REPLY_MESSAGE, case.reason.text.encode())
    return words + case.proof.failure_attributes() if case.proof is not None else words


def _decision(case: Case, now_ns: int) -> DecisionRecord:
    attributes = case.request.packet.attributes
    entitlement, plan = case.entitlement, case.plan
    port = attributes.get(dictionary.NAS_PORT_ID)
    if port is None:
        number = attributes.get(dictionary.NAS_PORT, b"")
        port = b"%d" % int.from_bytes(number, "big") if number else b""
    return DecisionRecord(
        at_ns=now_ns,
        nas_id=case.request.nas.nas_id,
        service_id=entitlement.service_id if entitlement is not None else 0,
        plan_version_id=entitlement.plan_version_id if entitlement is not None else 0,
        reason_code=case.reason.code,
        method=case.method,
        username=attributes.get(dictionary.USER_NAME, b""),
        calling_station_id=attributes.get(dictionary.CALLING_STATION_ID, b""),
        nas_port=port,
        token=case.token if case.reason is Reason.ACCEPTED else b"",
        sessions_seen=case.sessions_seen,
        sessions_max=plan.plan.policy.sessions_max if plan is not None else 0,
        duration_us=0,
    )
