"""The first steps of both ways, in their order: parse, NAS, verify, duplicate. What passes is new and genuine.

Verify comes before the duplicate cache: a packet with a bad Message-Authenticator must not touch it (RFC 5080 section
2.2.2). A fault is silence, its counter, and a line of the drop log. While a NAS has two secrets either will do; what is
answered is signed with the one that the request proved, and where it proves none with the one that its source proved
last (see rotation.py).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.access import copied_proxy_states
from sms_aaa.flows.tables import Nas, Tables
from sms_aaa.metrics import Word, fault_word
from sms_aaa.node.nas_rows import NasWord
from sms_aaa.radius.dictionary import EAP_MESSAGE, USER_PASSWORD
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.faults import Malformed, PacketFault
from sms_aaa.radius.packet import Code, Packet, parse
from sms_aaa.radius.request import reply_is_authentic
from sms_aaa.rules.entitlement import MessageAuthenticatorPolicy
from sms_aaa.server.duplicates import DuplicateCache, Entry
from sms_aaa.server.rotation import Proofs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.server.drops import DropLog
    from sms_aaa.server.signers import Signers

# Plain integers: on the packet's way an enum's member costs a look-up and a conversion.
_STATUS_SERVER = int(Code.STATUS_SERVER)
_ACCESS_REQUEST = int(Code.ACCESS_REQUEST)
_SIGNED = int(NasWord.SIGNED)
_EAP = int(NasWord.EAP)
_ACCOUNTING = int(NasWord.ACCOUNTING)
_YES = MessageAuthenticatorPolicy.YES
_AUTO = MessageAuthenticatorPolicy.AUTO
_ANOTHER_SECRET = frozenset((PacketFault.MESSAGE_AUTHENTICATOR_INVALID, PacketFault.BAD_REQUEST_AUTHENTICATOR))
"""What a packet under the other secret looks like."""


class Admitted(Struct, frozen=True, gc=False):
    """A request to work on. `entry` is its place in the duplicate cache: pending until it has a reply.

    `digests` are those of the secret that answers it. `other`: nothing in it proves a secret, but its password may: if
    it is not right under `digests`, it is to be tried under these.
    """

    packet: Packet
    nas: Nas
    digests: SecretDigests
    other: SecretDigests | None
    entry: Entry


class Gate:
    """One worker's. `code` is the one that its port serves beside Status-Server."""

    __slots__ = ("_codes", "_counters", "_status_reply", "cache", "drops", "proofs", "signers", "tables")

    def __init__(
        self,
        *,
        code: Code,
        tables: Tables,
        cache: DuplicateCache,
        counters: memoryview,
        signers: Signers,
        drops: DropLog,
    ) -> None:
        self._codes = frozenset((int(code), _STATUS_SERVER))
        # RFC 5997 section 3: the port says what the answer to Status-Server is.
        self._status_reply = Code.ACCESS_ACCEPT if code is Code.ACCESS_REQUEST else Code.ACCOUNTING_RESPONSE
        self._counters = counters
        self.tables = tables
        self.cache = cache
        self.signers = signers
        self.drops = drops
        self.proofs = Proofs(counters)

    def admit(self, datagram: bytes, source: tuple[str, int]) -> Admitted | bytes | None:
        """A new request, a reply to be sent at once, or None: silence."""
        packet = parse(datagram)
        if type(packet) is not Packet:
            assert type(packet) is Malformed
            self.drop(packet.fault, source, self.tables.find_nas(source[0]))
            return None
        address = source[0]
        nas = self.tables.found.get(address) or self.tables.find_nas(address)
        if nas is None:
            self.drop(PacketFault.UNKNOWN_NAS, source, None)
            return None
        code = packet.code
        if code not in self._codes:
            self.drop(PacketFault.UNEXPECTED_CODE, source, nas)
            return None
        digests, other = nas.digests, None
        required = packet.message_authenticator_at < 0 and self._requires_signature(nas)
        fault = verify(packet, digests, message_authenticator_required=required)
        if nas.older is not None:
            fault, digests, other = self._choose_secret(packet, nas, nas.older, address, fault)
        if fault is not None:
            self._drop_packet(fault, source, nas)
            return None
        if code == _STATUS_SERVER:
            return self._answer_status(packet, digests)
        entry = self.cache.look_up((address, source[1], datagram[:2]), packet.data)
        if not isinstance(entry, Entry):
            return self._repeat(packet, nas, source, entry)
        kind = self._classify(packet, nas, source) if code == _ACCESS_REQUEST else _ACCOUNTING
        self._counters[nas.row + kind] += 1
        return Admitted(packet, nas, digests, other, entry)

    def _classify(self, packet: Packet, nas: Nas, source: tuple[str, int]) -> int:
        """What an Access-Request is counted as; and what it proves of its NAS."""
        if packet.message_authenticator_at < 0:
            return self._note_unsigned(nas, source[1], NasWord.UNSIGNED)
        if EAP_MESSAGE in packet.attributes:
            return _EAP
        if nas.nas_id not in self.signers.ids and nas.single:
            # Not tripped by EAP, which is always signed, nor for a prefix: one of its NASes proves nothing of others.
            self.signers.learn(nas, int(time.time()))
        return _SIGNED

    def learn_secret(self, admitted: Admitted, digests: SecretDigests) -> None:
        """A password was right under this one of the two secrets, and nothing else in the request proved any."""
        nas = admitted.nas
        self.proofs.note(nas, admitted.entry.key[0], is_new=digests is nas.digests, now_ns=time.time_ns())

    def use(self, tables: Tables) -> None:
        """New tables, from the next packet on."""
        self.tables = tables
        self.signers.use(tables.nases)

    def share(self, others: Sequence[memoryview], now_ns: int) -> None:
        """Learns what the workers of the other slots did, and writes what this one did. Between batches."""
        self.signers.keep(others)
        self.proofs.learn_from(others, self.tables.nases)
        self.drops.keep(now_ns)

    def drop(self, fault: PacketFault, source: tuple[str, int], nas: Nas | None) -> None:
        """Silence: counted by fault, by NAS, and with its source in the drop log."""
        self._counters[fault_word(fault)] += 1
        if nas is not None:
            self._counters[nas.row + NasWord.DROPS] += 1
        self.drops.note(source, fault, 0 if nas is None else nas.nas_id, time.time_ns())

    def _drop_packet(self, fault: PacketFault, source: tuple[str, int], nas: Nas) -> None:
        if fault is PacketFault.MESSAGE_AUTHENTICATOR_MISSING:
            self._counters[nas.row + self._note_unsigned(nas, source[1], NasWord.MISSING)] += 1
        self.drop(fault, source, nas)

    def _requires_signature(self, nas: Nas) -> bool:
        policy = nas.message_authenticator
        return policy is _YES or (policy is _AUTO and nas.nas_id in self.signers.ids)

    def _note_unsigned(self, nas: Nas, port: int, word: NasWord) -> int:
        """The evidence against requiring it; `word` says whether it was let in."""
        self._counters[nas.row + NasWord.LAST_UNSIGNED_NS] = time.time_ns()
        self._counters[nas.row + NasWord.LAST_UNSIGNED_PORT] = port
        return int(word)

    def _choose_secret(
        self, packet: Packet, nas: Nas, older: SecretDigests, address: str, fault: PacketFault | None
    ) -> tuple[PacketFault | None, SecretDigests, SecretDigests | None]:
        """Two secrets are valid, and `fault` is what the packet has under the newer: (fault, secret, other secret)."""
        if fault in _ANOTHER_SECRET:
            fault = verify(packet, older, message_authenticator_required=False)
            if fault is None:
                self.proofs.note(nas, address, is_new=False, now_ns=time.time_ns())
            return fault, older, None
        if packet.code != _ACCESS_REQUEST or packet.message_authenticator_at >= 0:
            if fault is None:
                self.proofs.note(nas, address, is_new=True, now_ns=time.time_ns())
            return fault, nas.digests, None
        # Nothing in it proves a secret.
        digests, other = (nas.digests, older) if self.proofs.proved_new(nas, address) else (older, nas.digests)
        return fault, digests, other if USER_PASSWORD in packet.attributes else None

    def _answer_status(self, packet: Packet, digests: SecretDigests) -> bytes:
        self._counters[Word.STATUS_SERVER] += 1
        # No longer than the request, which has a Message-Authenticator too: it always fits.
        attributes = copied_proxy_states(packet)
        return digests.reply(
            self._status_reply, packet.identifier, packet.authenticator, attributes, message_authenticator=True
        )

    def _repeat(
        self, packet: Packet, nas: Nas, source: tuple[str, int], reply: bytes | None
    ) -> Admitted | bytes | None:
        self._counters[nas.row + NasWord.DUPLICATES] += 1
        if reply is None:
            self._counters[Word.DUPLICATES_PENDING] += 1
            return None
        if nas.older is not None and packet.code == _ACCESS_REQUEST and packet.message_authenticator_at < 0:
            return self._answer_anew(packet, nas, nas.older, source, reply)
        self._counters[Word.DUPLICATES_ANSWERED] += 1
        return reply

    def _answer_anew(
        self, packet: Packet, nas: Nas, older: SecretDigests, source: tuple[str, int], reply: bytes
    ) -> Admitted:
        """The request proves no secret, and asked again it says that this reply was not believed: it gets the other."""
        address, port = source
        is_new = not reply_is_authentic(reply, packet.authenticator, nas.digests)
        self.proofs.guess(nas, address, is_new=is_new)
        digests, other = (nas.digests, older) if is_new else (older, nas.digests)
        entry = self.cache.renew((address, port, packet.data[:2]), packet.data)
        return Admitted(packet, nas, digests, other if USER_PASSWORD in packet.attributes else None, entry)
