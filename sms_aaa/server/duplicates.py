"""The duplicate cache (RFC 5080 section 2.2.2): a retransmission costs a look-up, and gets the very same reply.

Key: source address and port, code and identifier (each socket's worker has its own cache, and the kernel sends a source
always to the same worker). The same octets are a retransmission: replayed once the answer is out, silence while it is
pending. Other octets are a new request that took the identifier over, even under the same Request Authenticator: there
are NASes that use one for a whole conversation. Octets are told apart by Python's keyed 64-bit hash of them, so that an
entry need not keep them. Only verified packets get here.

The entry itself travels with its request: whoever answers it sets the reply, without another look-up.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

ENTRIES_MAX = 262_144
"""Beyond it the oldest go first, at the next expire(): a flood costs the memory of this many replies."""

Key = tuple[str, int, bytes]
"""Address, port, code and identifier as they stand in the packet."""


class Entry(Struct, gc=False):
    """A request that was let in. `reply` None: it is being worked on."""

    key: Key
    fingerprint: int
    reply: bytes | None = None


class DuplicateCache:
    """One worker's. Times are seconds of any clock that does not go back."""

    __slots__ = ("_aged", "_bucket", "_entries", "_keep_seconds")

    def __init__(self, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._entries: dict[Key, Entry] = {}
        self._bucket: list[Entry] = []
        self._aged: deque[tuple[float, list[Entry]]] = deque()

    def look_up(self, key: Key, packet: bytes) -> Entry | bytes | None:
        """A new entry: the caller works on it. Else the reply to send again, or None while the first is pending."""
        fingerprint = hash(packet)
        entry = self._entries.get(key)
        if entry is not None:
            if entry.fingerprint == fingerprint:
                return entry.reply
            entry.reply = None  # nobody will ask for it again
        entry = self._entries[key] = Entry(key, fingerprint)
        self._bucket.append(entry)
        return entry

    def renew(self, key: Key, packet: bytes) -> Entry:
        """A new entry for a request whose reply is not to be sent again."""
        entry = self._entries[key] = Entry(key, hash(packet))
        self._bucket.append(entry)
        return entry

    def forget(self, entry: Entry) -> None:
        """It was not answered: its retransmission is to be worked on anew. A key that was taken over stays so."""
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    def expire(self, now: float) -> None:
        """Forgets what is older than the cache keeps, or too much; to be called between batches."""
        if self._bucket:
            self._aged.append((now, self._bucket))
            self._bucket = []
        limit = now - self._keep_seconds
        kept = len(self)
        while self._aged and (self._aged[0][0] < limit or kept > ENTRIES_MAX):
            _, bucket = self._aged.popleft()
            kept -= len(bucket)
            for entry in bucket:
                self.forget(entry)

    def __len__(self) -> int:
        """What it holds, with what was taken over and is not old enough."""
        return len(self._bucket) + sum(len(bucket) for _, bucket in self._aged)
