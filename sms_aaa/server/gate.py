"""The first steps of both ways, in their order: parse, NAS, verify, duplicate. What passes is new and genuine.

Verify comes before the duplicate cache: a packet with a bad Message-Authenticator must not touch it (RFC 5080 section
2.2.2). A fault is silence and its counter.
"""

from __future__ import annotations

from msgspec import Struct

from sms_aaa.flows.tables import Nas, Tables
from sms_aaa.metrics import NasCount, Word, fault_word, nas_word
from sms_aaa.radius.dictionary import EAP_MESSAGE
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import Malformed, PacketFault
from sms_aaa.radius.packet import Code, Packet, parse
from sms_aaa.rules.entitlement import MessageAuthenticatorPolicy
from sms_aaa.server.duplicates import DuplicateCache, Key, Standing

_STATUS_SERVER = int(Code.STATUS_SERVER)
_ACCESS_REQUEST = int(Code.ACCESS_REQUEST)
_YES = MessageAuthenticatorPolicy.YES
_AUTO = MessageAuthenticatorPolicy.AUTO


class Admitted(Struct, frozen=True, gc=False):
    """A request to work on. `digests`: of the secret that it proved; `key`: its place in the cache, pending."""

    packet: Packet
    nas: Nas
    digests: SecretDigests
    key: Key


class Gate:
    """One worker's. `code` is the one that its port serves beside Status-Server; `count` the row to count it in."""

    __slots__ = ("_code", "_count", "_counters", "_status_reply", "cache", "proven", "tables")

    def __init__(
        self, *, code: Code, tables: Tables, cache: DuplicateCache, counters: memoryview, proven: set[int]
    ) -> None:
        self._code = int(code)
        self._count = NasCount.ACCESS if code is Code.ACCESS_REQUEST else NasCount.ACCOUNTING
        # RFC 5997 section 3: the port says what the answer to Status-Server is.
        self._status_reply = Code.ACCESS_ACCEPT if code is Code.ACCESS_REQUEST else Code.ACCOUNTING_RESPONSE
        self._counters = counters
        self.tables = tables
        self.cache = cache
        self.proven = proven
        """NASes that have signed an Access-Request since this worker started: `auto` requires it of them now."""

    def admit(self, datagram: bytes, source: tuple[str, int], now: float) -> Admitted | bytes | None:
        """A new request, a reply to be sent at once, or None: silence."""
        packet = parse(datagram)
        if type(packet) is Malformed:
            self._drop(packet.fault)
            return None
        assert type(packet) is Packet
        nas = self.tables.find_nas(source[0])
        if nas is None:
            self._drop(PacketFault.UNKNOWN_NAS)
            return None
        code = packet.code
        if code not in (self._code, _STATUS_SERVER):
            self._drop(PacketFault.UNEXPECTED_CODE)
            return None
        fault = verify(packet, nas.digests, message_authenticator_required=self._requires_signature(nas, code))
        if fault is not None:
            self._drop(fault)
            return None
        if code == _STATUS_SERVER:
            return self._answer_status(packet, nas)
        self._learn(packet, nas)
        key = (source[0], source[1], code << 8 | packet.identifier)
        standing = self.cache.look_up(key, packet.authenticator, now)
        if standing is Standing.NEW:
            self._counters[nas_word(nas.index, self._count)] += 1
            return Admitted(packet, nas, nas.digests, key)
        return self._repeat(nas, standing)

    def _requires_signature(self, nas: Nas, code: int) -> bool:
        if code != _ACCESS_REQUEST:
            return False
        policy = nas.message_authenticator
        return policy is _YES or (policy is _AUTO and nas.nas_id in self.proven)

    def _learn(self, packet: Packet, nas: Nas) -> None:
        """Not tripped by EAP, which is always signed, nor for a prefix: one of its NASes proves nothing of others."""
        signed = packet.message_authenticator_at >= 0 and packet.code == _ACCESS_REQUEST
        if signed and nas.single and EAP_MESSAGE not in packet.attributes:
            self.proven.add(nas.nas_id)

    def _answer_status(self, packet: Packet, nas: Nas) -> bytes:
        self._counters[Word.STATUS_SERVER] += 1
        return nas.digests.reply(
            self._status_reply, packet.identifier, packet.authenticator, b"", message_authenticator=True
        )

    def _repeat(self, nas: Nas, standing: bytes | Standing) -> bytes | None:
        self._counters[nas_word(nas.index, NasCount.DUPLICATES)] += 1
        if isinstance(standing, Standing):
            self._counters[Word.DUPLICATES_PENDING] += 1
            return None
        self._counters[Word.DUPLICATES_ANSWERED] += 1
        return standing

    def _drop(self, fault: PacketFault) -> None:
        self._counters[fault_word(fault)] += 1
