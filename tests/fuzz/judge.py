"""Whether an answer is one that the RFCs allow: asked of every datagram that comes back, whatever was sent.

The judge knows what a NAS sent, from where, and who may log in; nothing of how the server works. Silence is always
allowed here: that valid requests are answered is what the campaign's own logins in between show.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

UNSIGNED_PROXY_STATE_OCTETS_MAX = 64  # etc/sms-aaa.toml and README: what is taken without Message-Authenticator
CALL_CHECK = (10).to_bytes(4, "big")

ANSWERS = {
    ("access", wire.ACCESS_REQUEST): {wire.ACCESS_ACCEPT, wire.ACCESS_REJECT, wire.ACCESS_CHALLENGE},
    ("access", wire.STATUS_SERVER): {wire.ACCESS_ACCEPT},
    ("accounting", wire.ACCOUNTING_REQUEST): {wire.ACCOUNTING_RESPONSE},
    ("accounting", wire.STATUS_SERVER): {wire.ACCOUNTING_RESPONSE},
}
WORDS = {18, wire.PROXY_STATE, wire.EAP_MESSAGE, wire.MESSAGE_AUTHENTICATOR}  # and MS-CHAP-Error


@dataclass(frozen=True, slots=True)
class Sender:
    """A NAS as the server knows it; `secret` None: it does not. `must_sign`: Message-Authenticator policy `yes`."""

    address: str
    secret: bytes | None
    must_sign: bool = True


@dataclass(frozen=True, slots=True)
class Judge:
    """`proofs`: (user, challenge, peer's challenge, response) of the MS-CHAP logins that are right."""

    users: Mapping[bytes, bytes]
    devices: frozenset[str]
    proofs: set[tuple[bytes, ...]]

    def complaint(self, datagram: bytes, sender: Sender, port: str, answer: bytes) -> str | None:
        """What is wrong with this answer to this datagram; None when nothing is."""
        wrong = unworthy(datagram, sender, port)
        if wrong is not None:
            return f"answered although {wrong}"
        asked, reply = wire.read(datagram), wire.read(answer)
        assert asked is not None
        assert sender.secret is not None
        if reply is None or len(reply.data) != len(answer):
            return "the answer is malformed"
        if reply.code not in ANSWERS[port, asked.code]:
            return f"code {reply.code} answers {asked.code} on the {port} port"
        return _flaw_of_form(asked, reply, sender.secret) or self._flaw_of_meaning(asked, reply, sender.secret)

    def _flaw_of_meaning(self, asked: wire.Message, reply: wire.Message, secret: bytes) -> str | None:
        kinds = {kind for kind, _ in reply.pairs}
        if reply.code == wire.ACCESS_REJECT:
            if kinds - WORDS - {wire.VENDOR_SPECIFIC}:
                return f"a Reject with attributes {sorted(kinds - WORDS)}"
            if len(reply.all(wire.VENDOR_SPECIFIC)) != len(reply.microsoft(2)):  # RFC 2548 section 2.1.5
                return "a Reject with a vendor's attribute that is no MS-CHAP-Error"
        if reply.code != wire.ACCESS_ACCEPT or asked.code == wire.STATUS_SERVER:
            return None
        # RFC 3579 section 2.6.3: an EAP peer is told Success or Failure in EAP.
        if asked.all(wire.EAP_MESSAGE) and wire.EAP_MESSAGE not in kinds:
            return "an Accept without EAP-Message to a request with one"
        return None if self._is_proved(asked, secret) else "an Accept to a login that proves nothing"

    def _is_proved(self, asked: wire.Message, secret: bytes) -> bool:
        offered = [kind for kind, _ in asked.pairs if kind in {wire.USER_PASSWORD, wire.CHAP_PASSWORD}]
        old, new = asked.microsoft(1), asked.microsoft(25)
        if len(offered) + len(old) + len(new) > 1:
            return False  # RFC 2865 section 4.1
        user = asked.first(wire.USER_NAME) or b""
        if self._is_device(asked, user):
            return True
        if asked.all(wire.USER_PASSWORD):
            plain = wire.reveal(asked.all(wire.USER_PASSWORD)[0], asked.authenticator, secret)
            return plain is not None and self.users.get(user) == plain
        if asked.all(wire.CHAP_PASSWORD):
            return self._is_chap(asked, user)
        challenge = next(iter(asked.microsoft(11)), b"")
        if new:
            return (user, challenge, new[0][2:18], new[0][26:]) in self.proofs
        return bool(old) and (user, challenge, b"", old[0][26:]) in self.proofs

    def _is_chap(self, asked: wire.Message, user: bytes) -> bool:
        value, challenge = asked.all(wire.CHAP_PASSWORD)[0], asked.first(wire.CHAP_CHALLENGE)
        text = value[:1] + self.users.get(user, b"") + (asked.authenticator if challenge is None else challenge)
        return user in self.users and hmac.compare_digest(hashlib.md5(text).digest(), value[1:])

    def _is_device(self, asked: wire.Message, user: bytes) -> bool:
        """RFC 2865 section 5.6, Call-Check; else the user name is the very device that the NAS saw."""
        named, seen = _digits(user), _digits(asked.first(wire.CALLING_STATION_ID) or b"")
        if asked.first(wire.SERVICE_TYPE) == CALL_CHECK:
            return (seen or named) in self.devices
        return named is not None and named == seen and named in self.devices


def unworthy(datagram: bytes, sender: Sender, port: str) -> str | None:
    """Why a datagram deserves no answer whatever the server thinks of the login; None when it may have one."""
    if sender.secret is None:
        return "nobody knows the sender"
    asked = wire.read(datagram)
    if asked is None:
        return "it is malformed"
    if (port, asked.code) not in ANSWERS:
        return f"code {asked.code} is not one of the {port} port"
    signatures = asked.all(wire.MESSAGE_AUTHENTICATOR)
    is_digest = asked.code == wire.ACCOUNTING_REQUEST
    if is_digest:
        text = asked.data[:4] + wire.ZEROS + asked.data[20:] + sender.secret
        if hashlib.md5(text).digest() != asked.authenticator:
            return "its Request Authenticator is wrong"
    if len(signatures) > 1:
        return "it has several Message-Authenticators"
    if signatures:
        authenticator = wire.ZEROS if is_digest else asked.authenticator
        return None if wire.is_signed_by(asked, sender.secret, authenticator) else "its Message-Authenticator is wrong"
    return _missing_signature(asked, sender)


def _missing_signature(asked: wire.Message, sender: Sender) -> str | None:
    if asked.all(wire.EAP_MESSAGE):
        return "it has EAP-Message and no Message-Authenticator"  # RFC 3579 section 3.1
    if asked.code == wire.STATUS_SERVER:
        return "a Status-Server has no Message-Authenticator"  # RFC 5997 section 3
    if asked.code != wire.ACCESS_REQUEST:
        return None
    if sender.must_sign:
        return "this NAS signs its requests, and it has no Message-Authenticator"
    if sum(map(len, asked.all(wire.PROXY_STATE))) > UNSIGNED_PROXY_STATE_OCTETS_MAX:
        return "it has much Proxy-State and no Message-Authenticator"  # CVE-2024-3596
    return None


def _flaw_of_form(asked: wire.Message, reply: wire.Message, secret: bytes) -> str | None:
    if reply.identifier != asked.identifier:
        return "the Identifier is another"
    text = reply.data[:4] + asked.authenticator + reply.data[20:] + secret
    if hashlib.md5(text).digest() != reply.authenticator:
        return "the Response Authenticator is wrong"
    signatures = reply.all(wire.MESSAGE_AUTHENTICATOR)
    if len(signatures) > 1 or (signatures and not wire.is_signed_by(reply, secret, asked.authenticator)):
        return "the answer's Message-Authenticator is wrong"
    if asked.code != wire.ACCOUNTING_REQUEST and (not reply.pairs or reply.pairs[0][0] != wire.MESSAGE_AUTHENTICATOR):
        return "the answer does not begin with a Message-Authenticator"
    if asked.all(wire.PROXY_STATE) != reply.all(wire.PROXY_STATE):
        return "Proxy-State did not come back as it was, in its order"  # RFC 2865 section 5.33
    return None


def _digits(text: bytes) -> str | None:
    """Of a hardware address in any notation; None when it is none."""
    digits = text.decode("latin-1").translate(str.maketrans("", "", ":-. ")).lower()
    return digits if len(digits) == 12 and set(digits) <= set("0123456789abcdef") else None
