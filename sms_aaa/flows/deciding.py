"""The first step of a login: who it is, and whether the rights are there.

From the packet and what the node holds to a Case with its reason; flows/access.py goes on with it. What takes too long
for the loop (a slow password hash) is left in the case as work, and its result comes back here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.access import AccessRequest, Case
from sms_aaa.flows.passwords import BELIEVED, PasswordChecks, believed, pretend, tell_credential
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import Vault
from sms_aaa.flows.whereabouts import tell_terms, whereabouts
from sms_aaa.node.replica import ReplicaFault, ReplicaView
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Method, Pap, read_credential
from sms_aaa.radius.faults import PacketFault
from sms_aaa.rules.access import Whereabouts, decide, decide_rights
from sms_aaa.rules.entitlement import IdentityKind
from sms_aaa.rules.identity import mac_identity
from sms_aaa.rules.reasons import UNPROVED, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.radius.packet import Packet
    from sms_aaa.rules.realms import Named

TOKEN_OCTETS = 8
SALT_OCTETS = 4
RANDOM_OCTETS = TOKEN_OCTETS + SALT_OCTETS
"""How much randomness a request may need; the door draws it for a batch at once."""

_CALL_CHECK = (10).to_bytes(4, "big")
_USERNAME = int(IdentityKind.USERNAME)
_MAC = int(IdentityKind.MAC)
# Members of an enum are found through its metaclass: once here, not for each login.
_ACCEPTED = Reason.ACCEPTED
_WITHOUT_COMPARISON = UNPROVED - {Reason.BAD_PASSWORD}


class Known(Struct, frozen=True):
    """What a batch of logins is decided by. `now`: epoch seconds."""

    tables: Tables
    vault: Vault
    view: ReplicaView
    passwords: PasswordChecks
    now: int


def decide_requests(
    requests: Sequence[AccessRequest], known: Known, *, randomness: bytes
) -> list[Case | PacketFault | ReplicaFault]:
    """The first step: who it is, and whether the rights are there.

    A fault, and so silence, where a credential is cut wrong, or where the replica cannot say who it is.

    `randomness`: RANDOM_OCTETS for each request.
    """
    decide_plain, decide_either = (
        (_decide, _decide_under_either) if known.tables.realms is None else (_decide_in_realm, _decide_in_realm)
    )
    return [
        (decide_plain if request.other is None else decide_either)(request, known, randomness[at : at + RANDOM_OCTETS])
        for request, at in zip(requests, range(0, len(requests) * RANDOM_OCTETS, RANDOM_OCTETS), strict=True)
    ]


def refuse_request(request: AccessRequest, reason: Reason, saw: bytes, *, is_told: bool) -> Case | PacketFault:
    """The first step for a request that the door turns away: nobody is looked up and no password is tried.

    What it offers is read all the same: cut wrong it meets silence as ever, and MS-CHAP is refused in its own words.
    """
    proof = read_credential(request.packet, request.digests)
    if isinstance(proof, PacketFault):
        return proof
    method = Method.NONE if proof is None else proof.method
    return Case(request, proof, None, None, None, method, reason, b"", b"", saw=saw, is_told=is_told)


def distrust(case: Case) -> bool:
    """For a replica that is too old to let anybody in by it: whether this case was refused for that.

    Whom it refuses is refused for the reason that it has.
    """
    if case.reason is not _ACCEPTED:
        return False
    case.refuse(Reason.BACKEND_UNAVAILABLE, b"the replica is too old")
    return True


def prove_case(case: Case, passwords: PasswordChecks, *, matches: bool) -> Case:
    """What the work beside the loop found. The case that goes on with the second step, or with work of its own."""
    work, case.work = case.work, None
    assert work is not None
    if case.is_refused_anyhow():
        return case
    if matches:
        passwords.remember(work)
    elif case.otherwise is not None:
        return case.otherwise
    else:
        case.reason, case.saw = Reason.BAD_PASSWORD, b""
    return case


def _decide_under_either(
    request: AccessRequest, known: Known, randomness: bytes, named: Named | None = None
) -> Case | PacketFault | ReplicaFault:
    """Under the wrong secret a right password looks like noise: it is refused only if it is wrong under both."""
    case = _decide(request, known, randomness, named)
    if type(case) is not Case or request.other is None:
        return case
    is_open = case.work is not None and not case.is_refused_anyhow()
    if case.reason not in UNPROVED and not is_open:
        return case
    other = AccessRequest(request.packet, request.nas, request.other, caller=request.caller)
    second = _decide(other, known, randomness, named)
    if type(second) is not Case or second.reason in UNPROVED:
        return case
    if is_open and second.work is not None:
        case.otherwise = second
        return case
    return second


def _decide_in_realm(request: AccessRequest, known: Known, randomness: bytes) -> Case | PacketFault | ReplicaFault:
    """Where there are realms: the name may have one, and be refused for it."""
    assert known.tables.realms is not None
    named = known.tables.realms.find(request.packet.attributes.get(dictionary.USER_NAME, b""))
    if named is None or not named.is_refused:
        decide_one = _decide if request.other is None else _decide_under_either
        return decide_one(request, known, randomness, named)
    proof = read_credential(request.packet, request.digests)
    if isinstance(proof, PacketFault):
        return proof
    method = Method.NONE if proof is None else proof.method
    pretend(proof, known.vault)
    token, salts = randomness[:TOKEN_OCTETS], randomness[TOKEN_OCTETS:]
    return Case(request, proof, None, None, None, method, Reason.REALM_UNKNOWN, token, salts)


def _decide(
    request: AccessRequest, known: Known, randomness: bytes, named: Named | None = None
) -> Case | PacketFault | ReplicaFault:
    packet, view, vault, now = request.packet, known.view, known.vault, known.now
    proof = read_credential(packet, request.digests)
    if isinstance(proof, PacketFault):
        return proof
    username = packet.attributes.get(dictionary.USER_NAME, b"")
    method = Method.NONE if proof is None else proof.method
    stored = where = asked = None
    entitlement = view.entitlement(_USERNAME, username) if proof is not None else None
    if entitlement is None and proof is not None and named is not None:
        entitlement = view.entitlement(_USERNAME, named.identity)
    if entitlement is None and (device := _device(packet, username)) is not None:
        by_mac = view.entitlement(_MAC, device)
        if by_mac is not None or proof is None:
            # The address that the NAS saw is the proof.
            entitlement, method, proof = by_mac, Method.MAC, None
    if isinstance(entitlement, ReplicaFault):
        return entitlement
    plan = known.tables.plans.get(entitlement.plan_version_id) if entitlement is not None else None
    node_plan = plan.plan if plan is not None else None
    if entitlement is not None and (entitlement.terms is not None or named is not None):
        where = whereabouts(packet, request.nas.nas_id, entitlement.terms, named)
    if method is not Method.MAC:
        stored = vault.open_password(entitlement.credential, entitlement.service_id) if entitlement else None
        asked = proof if stored is None or stored.hashed is None else believed(proof, stored)
        reason = decide(asked, entitlement, stored, node_plan, now=now, where=where)
        if reason in _WITHOUT_COMPARISON:
            pretend(proof, vault)
    else:
        reason = (
            Reason.UNKNOWN_USER if entitlement is None else decide_rights(entitlement, node_plan, now=now, where=where)
        )
    token, salts = randomness[:TOKEN_OCTETS], randomness[TOKEN_OCTETS:]
    case = Case(request, proof, entitlement, stored, plan, method, reason, token, salts)
    if asked is BELIEVED or reason is not _ACCEPTED:
        _look_later(case, known.passwords)
    return case if where is None else _bound(case, where, known)


def _look_later(case: Case, passwords: PasswordChecks) -> None:
    """What has to be done beside the loop for a password, or has to seem so; and what was wrong with the credential."""
    if case.reason is Reason.NO_CREDENTIAL:
        case.saw = tell_credential(case.entitlement, case.stored, case.method)
    if type(case.proof) is not Pap:
        return
    if case.is_refused_anyhow():
        username = case.request.packet.attributes.get(dictionary.USER_NAME, b"")
        case.work = passwords.dummy_check(username, case.proof.password)
    elif case.entitlement is not None and case.stored is not None:
        case.work = passwords.check(case.entitlement.credential, case.stored, case.proof.password)


def _bound(case: Case, where: Whereabouts, known: Known) -> Case:
    """The case with what its terms, or its realm's, were held against and saw."""
    assert case.entitlement is not None
    case.decided_at = known.now
    case.saw = tell_terms(case.reason, case.entitlement.terms, where, known.tables.nas_names) or case.saw
    return case


def _device(packet: Packet, username: bytes) -> bytes | None:
    attributes = packet.attributes
    if dictionary.EAP_MESSAGE in attributes:
        # RFC 3579 section 2.1: who does not speak EAP rejects it; to let it in by its address ends no conversation.
        return None
    call_check = attributes.get(dictionary.SERVICE_TYPE) == _CALL_CHECK
    return mac_identity(username, attributes.get(dictionary.CALLING_STATION_ID, b""), call_check=call_check)
