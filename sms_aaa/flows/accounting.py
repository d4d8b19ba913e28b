"""Accounting-Request on the worker's side: what is journaled, what is answered, what it means for the live set.

The record is journaled as the packet came, but for secrets, and undecoded: settling decodes it (flows/settling.py),
so that a mended decoder can read it again. Here only as much is read as the live set needs at once: our Class and the
status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.access import copied_proxy_states, device_of, read_class
from sms_aaa.flows.tables import Nas
from sms_aaa.node.live_change import session_key
from sms_aaa.node.records import AccountingRecord, pack_accounting
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Code, Packet, as_text
from sms_aaa.radius.secrets import without_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.node.live import LiveView
    from sms_aaa.node.live_change import LiveChange

_ACCOUNTING_RESPONSE = int(Code.ACCOUNTING_RESPONSE)
_STOP = (2).to_bytes(4, "big")
_MEANINGFUL = frozenset(status.to_bytes(4, "big") for status in (1, 2, 3))  # Start, Stop, Interim-Update


class AccountingRequest(Struct, frozen=True, gc=False):
    """A verified, new Accounting-Request from `source`, `source_port`; `digests` are those of the secret it proved."""

    packet: Packet
    nas: Nas
    digests: SecretDigests
    source: str
    source_port: int


class Login(Struct, frozen=True, gc=False):
    """The login that a record belongs to; `session`: session_key of its Acct-Session-Id; `ends`: it is its Stop."""

    request: AccountingRequest
    service_id: int
    token: bytes
    session: int
    ends: bool


def pack_requests(requests: Sequence[AccountingRequest], *, now_ns: int) -> list[bytes]:
    """The journal's payloads, a record a request: the packet as it came, but no secret lies in a journal for weeks."""
    return [
        pack_accounting(AccountingRecord(now_ns, r.nas.nas_id, r.source, r.source_port, without_secrets(r.packet)))
        for r in requests
    ]


def reply_to(request: AccountingRequest) -> bytes:
    """The Accounting-Response: to be sent only when the record is on disk (RFC 2866 section 4.1)."""
    packet = request.packet
    if dictionary.PROXY_STATE not in packet.attributes:
        return request.digests.plain_reply(_ACCOUNTING_RESPONSE, packet.identifier, packet.authenticator)
    # A request is no shorter than the Proxy-State in it: the reply always fits.
    attributes = copied_proxy_states(packet)
    return request.digests.reply(
        Code.ACCOUNTING_RESPONSE, packet.identifier, packet.authenticator, attributes, message_authenticator=False
    )


def find_logins(requests: Sequence[AccountingRequest]) -> list[Login]:
    """The requests that carry our Class, with what they mean for their login's place."""
    found = []
    for request in requests:
        packet = request.packet
        status = packet.attributes.get(dictionary.ACCT_STATUS_TYPE)
        if status in _MEANINGFUL and (named := read_class(packet)) is not None:
            session = session_key(as_text(packet.attributes.get(dictionary.ACCT_SESSION_ID, b"")))
            found.append(Login(request, named[0], named[1], session, ends=status == _STOP))
    return found


def leave_out_known(logins: Sequence[Login], view: LiveView, *, until: int) -> list[Login]:
    """Without those that the live set knows to be online to `until` at least: most Interims.

    Looking costs half of writing, and keeps nobody from writing. It has to be looked each time: the place may be taken
    over or given back by another worker, or by what is settled, and then an Interim takes it again.
    """
    return [
        login
        for login in logins
        if login.ends
        or not view.knows(
            login.service_id, login.token, nas_id=login.request.nas.nas_id, until=until, session=login.session
        )
    ]


def apply_to_live_set(logins: Sequence[Login], change: LiveChange, *, until: int) -> None:
    """Start and Interim make a reservation an online session to `until` (epoch seconds), Stop gives its place back."""
    for login in logins:
        if login.ends:
            change.release(login.service_id, login.token, session=login.session)
            continue
        nas_id = login.request.nas.nas_id
        device = device_of(login.request.packet, nas_id)
        change.promote(login.service_id, login.token, device=device, nas_id=nas_id, until=until, session=login.session)
