"""The lockouts: failed logins and who is kept out for them, in one mapped file that all access workers share.

A table of fixed size, so that no flood of names makes it grow, and a file, so that a lockout outlives the worker, the
server and the machine's boot. Nothing in it needs a lock or a sync: two workers that store at the same instant lose a
count, a power cut loses the last seconds, and neither can make a reader fail. An entry is found by a hash under a key
that was drawn with the file: nobody can choose names that meet a subscriber's, to lock him out or to push his entry
out. Entries stand in buckets; a full bucket gives up the oldest that is not locked, else the oldest.

Nearly every login is of somebody who has not failed, and to learn that must cost nearly nothing. So there is a second
table of `marks`: a word for each value of a short checksum of user and device, with the time until which an entry for
one of that checksum may matter. A login whose mark has passed needs no look into the table. The checksum is no secret
and not safe against somebody who chooses names: he makes others' look-ups slower by two microseconds.

The file also has a word for each NAS, for its rate (rules/limits.py step_rate).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from msgspec import Struct

from sms_aaa.rules.limits import NO_FAILURES, Scope, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_NAME = "lockouts"
ENTRIES_MAX = 65_536
"""Beyond it the oldest go: more than 200 different failing users a second all through five minutes."""

BUCKET_ENTRIES = 8
MARKS = 65_536
NAS_WORDS = 65_536
"""NASes whose ids differ by a multiple of this share their rate."""

KEY_OCTETS = 16
USER_OCTETS_MAX = 64
DEVICE_OCTETS_MAX = 40
"""As much of the texts is kept for people; the hash covers them whole."""

FORMAT_VERSION = 1
_MAGIC = b"SMSAAALK"
_HEADER = struct.Struct("=8sI16s")  # magic, version, key
_WIDE_UNTIL, _MATTERS_UNTIL = 16, 17  # the index of those words among the header's words of 4 octets
# failures, first, locked, until, last; scope, octets of user and device; the texts
_ENTRY = struct.Struct(f"=5I3Bx{USER_OCTETS_MAX}s{DEVICE_OCTETS_MAX}s")
_LAST_AT = struct.Struct("=II")  # until, last: from the fourth word on
_LAST_AT_OFFSET = 12
_HEADER_OCTETS = 4096
_MARKS_AT = _HEADER_OCTETS
_NAS_AT = _MARKS_AT + 4 * MARKS
_KEYS_AT = _NAS_AT + 8 * NAS_WORDS
_ENTRIES_AT = _KEYS_AT + 8 * ENTRIES_MAX
_FILE_OCTETS = _ENTRIES_AT + _ENTRY.size * ENTRIES_MAX
_BUCKETS = ENTRIES_MAX // BUCKET_ENTRIES
_SCOPES = {int(scope): scope for scope in Scope}


@dataclass(frozen=True, slots=True)
class LockoutsFault:
    """Why there is no table to be had; `detail` names the file and the remedy."""

    detail: str


class LockoutEntry(Struct, frozen=True, gc=False):
    """Who failed, as the NAS sent it, cut at the octets that are kept. `last_at`: epoch seconds of the last failure."""

    scope: Scope
    user: bytes
    device: bytes
    tally: Tally
    last_at: int


class Lockouts:
    """The table, mapped by one process. Close it when done."""

    def __init__(self, mapped: mmap.mmap) -> None:
        self._mapped = mapped
        _, _, key = _HEADER.unpack_from(mapped)
        self._hash = hashlib.blake2b(digest_size=8, key=key)
        self.seed = int.from_bytes(key[:4], "little")
        """To begin the checksum with: `crc32(user + device, seed) % MARKS` is the index of their mark."""
        with memoryview(mapped) as octets:
            self._header = octets[:_HEADER_OCTETS].cast("I")
            self.marks = octets[_MARKS_AT:_NAS_AT].cast("I")
            self.nas_words = octets[_NAS_AT:_KEYS_AT].cast("Q")
            self._keys = octets[_KEYS_AT:_ENTRIES_AT].cast("Q")

    @classmethod
    def open_or_create(cls, folder: Path, *, fresh: bytes) -> Lockouts | LockoutsFault:
        """The node's table; a new one, with `fresh` (KEY_OCTETS random octets) for its key, where there is none.

        For the supervisor, before the workers. A file of another format is replaced: it held minutes.
        """
        assert len(fresh) == KEY_OCTETS
        found = cls.open(folder)
        if isinstance(found, Lockouts):
            return found
        path = folder / FILE_NAME
        unfinished = path.with_suffix(".new")
        try:
            fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                # Allocated, not sparse: a store into a hole of a full disk would kill the worker.
                os.posix_fallocate(fd, 0, _FILE_OCTETS)
                os.pwrite(fd, _HEADER.pack(_MAGIC, FORMAT_VERSION, fresh), 0)
            finally:
                os.close(fd)
            unfinished.rename(path)
        except OSError as error:
            return LockoutsFault(f"{path}: cannot be created: {error.strerror}; mend the state folder")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Lockouts | LockoutsFault:
        """The table that the supervisor made in this state folder."""
        path = folder / FILE_NAME
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return LockoutsFault(f"{path}: there is none yet; has `sms-aaa serve` run here?")
        except OSError as error:
            return LockoutsFault(f"{path}: cannot be opened: {error.strerror}; use the server's user")
        try:
            magic, version, _ = _HEADER.unpack(os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0"))
            if (magic, version) != (_MAGIC, FORMAT_VERSION) or os.fstat(fd).st_size != _FILE_OCTETS:
                return LockoutsFault(f"{path}: not a table of this version; restart `sms-aaa serve`")
            return cls(mmap.mmap(fd, _FILE_OCTETS))
        except OSError as error:
            return LockoutsFault(f"{path}: cannot be mapped: {error.strerror}")
        finally:
            os.close(fd)

    @property
    def wide_until(self) -> int:
        """Until then a user or a device as a whole may be locked; later nobody needs to look for that."""
        return int(self._header[_WIDE_UNTIL])

    @property
    def matters_until(self) -> int:
        """Until then some mark may be set; later there is nothing to look for."""
        return int(self._header[_MATTERS_UNTIL])

    def find(self, scope: Scope, user: bytes, device: bytes) -> Tally:
        """NO_FAILURES if it is not there."""
        key = self._key(scope, user, device)
        at = self._find(key)
        if at is None:
            return NO_FAILURES
        failures, first_at, locked_at, until, *_ = _ENTRY.unpack_from(self._mapped, _ENTRIES_AT + _ENTRY.size * at)
        return Tally(failures, first_at, locked_at, until)

    def store(self, scope: Scope, user: bytes, device: bytes, tally: Tally, *, now: int, matters_until: int) -> None:
        """Keeps a tally after a failure, in the place of an older one if need be."""
        key = self._key(scope, user, device)
        at = self._find(key)
        if at is None:
            at = self._place_for(key, now)
            self._keys[at] = 0  # nobody may find the new texts under the old key
        texts = (user[:USER_OCTETS_MAX], device[:DEVICE_OCTETS_MAX])
        _ENTRY.pack_into(
            self._mapped, _ENTRIES_AT + _ENTRY.size * at,
            tally.failures, tally.first_at, tally.locked_at, tally.until, now, scope, *map(len, texts), *texts,
        )  # fmt: skip
        self._keys[at] = key
        self._header[_MATTERS_UNTIL] = max(self._header[_MATTERS_UNTIL], matters_until)
        if scope is Scope.USER_AND_DEVICE:
            mark = crc32(user + device, self.seed) % MARKS
            self.marks[mark] = max(self.marks[mark], matters_until)
        elif tally.until > self.wide_until:
            self._header[_WIDE_UNTIL] = tally.until

    def forget(self, scope: Scope, user: bytes, device: bytes) -> None:
        """A login that succeeded, or an operator, says that it was nothing."""
        key = self._key(scope, user, device)
        # Two workers that stored its first failure at once may have given it two places.
        while (at := self._find(key)) is not None:
            self._keys[at] = 0

    def forget_name(self, name: bytes | None) -> list[LockoutEntry]:
        """Forgets all entries of a user or device of this name (None: of everybody), in any scope; what they were."""
        gone = []
        for at, entry in self._entries():
            if name is None or (
                (entry.scope is not Scope.DEVICE and entry.user == name[:USER_OCTETS_MAX])
                or (entry.scope is not Scope.USER and entry.device == name[:DEVICE_OCTETS_MAX])
            ):
                self._keys[at] = 0
                gone.append(entry)
        return gone

    def entries(self) -> list[LockoutEntry]:
        """All of them, in no order, with those that matter no more: 65,536 in a tenth of a second."""
        return [entry for _, entry in self._entries()]

    def close(self) -> None:
        for view in (self._header, self.marks, self.nas_words, self._keys):
            view.release()
        self._mapped.close()

    def _key(self, scope: Scope, user: bytes, device: bytes) -> int:
        hashed = self._hash.copy()
        hashed.update(b"%c%c%b%b" % (scope, len(user) & 255, user, device))
        return int.from_bytes(hashed.digest(), "little") or 1  # 0 is a free place

    def _find(self, key: int) -> int | None:
        first = key % _BUCKETS * BUCKET_ENTRIES
        bucket = self._keys[first : first + BUCKET_ENTRIES].tolist()
        return first + bucket.index(key) if key in bucket else None

    def _place_for(self, key: int, now: int) -> int:
        """A free place in its bucket, else that of the oldest which is not locked, else of the oldest."""
        first = key % _BUCKETS * BUCKET_ENTRIES
        places = range(first, first + BUCKET_ENTRIES)
        return min(places, key=lambda at: (self._keys[at] != 0, *self._standing(at, now)))

    def _standing(self, at: int, now: int) -> tuple[bool, int]:
        until, last_at = _LAST_AT.unpack_from(self._mapped, _ENTRIES_AT + _ENTRY.size * at + _LAST_AT_OFFSET)
        return until > now, last_at

    def _entries(self) -> Iterator[tuple[int, LockoutEntry]]:
        for at, key in enumerate(self._keys.tolist()):
            if not key:
                continue
            failures, first_at, locked_at, until, last_at, scope, user_octets, device_octets, user, device = (
                _ENTRY.unpack_from(self._mapped, _ENTRIES_AT + _ENTRY.size * at)
            )
            if scope in _SCOPES:  # else a worker is just storing it
                tally = Tally(failures, first_at, locked_at, until)
                texts = user[:user_octets], device[:device_octets]
                yield at, LockoutEntry(_SCOPES[scope], *texts, tally, last_at)
