"""The duplicate cache (RFC 5080 section 2.2.2): a retransmission costs a look-up, and gets the very same reply.

Key: source address and port, identifier, code (each socket's worker has its own cache, and the kernel sends a source
always to the same worker). The same authenticator is a retransmission: replayed once the answer is out, silence while
it is pending. Another authenticator is a new request that took the identifier over. Only verified packets get here.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

ENTRIES_MAX = 262_144
"""Beyond it the oldest entries go first: a flood of sources costs the memory of this many replies."""


class Standing(Enum):
    NEW = "new"
    PENDING = "pending"


Key = tuple[str, int, int]
"""Address, port, identifier with the code above it."""


class DuplicateCache:
    """One worker's. Times are seconds of any clock that does not go back."""

    __slots__ = ("_by_age", "_entries", "_keep_seconds")

    def __init__(self, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._entries: dict[Key, tuple[bytes, bytes | None]] = {}
        self._by_age: deque[tuple[float, Key, bytes]] = deque()

    def look_up(self, key: Key, authenticator: bytes, now: float) -> bytes | Standing:
        """The reply to send again, PENDING, or NEW: then the caller works on it, and the key is pending."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == authenticator:
            return Standing.PENDING if entry[1] is None else entry[1]
        self._entries[key] = (authenticator, None)
        self._by_age.append((now, key, authenticator))
        if len(self._by_age) > ENTRIES_MAX:
            self._forget_oldest()
        return Standing.NEW

    def remember(self, key: Key, authenticator: bytes, reply: bytes) -> None:
        """The answer is out (J6: for accounting, after the sync). A key that was taken over meanwhile stays so."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == authenticator:
            self._entries[key] = (authenticator, reply)

    def forget(self, key: Key, authenticator: bytes) -> None:
        """It was not answered: its retransmission is to be worked on anew."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] == authenticator:
            del self._entries[key]

    def expire(self, now: float) -> None:
        """Forgets what is older than the cache keeps; to be called between batches."""
        limit = now - self._keep_seconds
        while self._by_age and self._by_age[0][0] < limit:
            self._forget_oldest()

    def __len__(self) -> int:
        return len(self._entries)

    def _forget_oldest(self) -> None:
        _, key, authenticator = self._by_age.popleft()
        self.forget(key, authenticator)
