r"""The realm in a user name: user@realm or REALM\user, and under which names the service behind it is looked up.

A user is compared octet for octet, a realm without regard to the case of ASCII letters: it is a domain, and devices
write it as they like. A name is looked up as it was sent first, so that adding a realm takes away no login; if nobody
has it, as its realm says: a stripped realm's by the bare user, a kept one's as user@realm in lower case, whichever of
the two notations the device used.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.rules.entitlement import NodeRealm

if TYPE_CHECKING:
    from collections.abc import Iterable


class UnknownRealm(StrEnum):
    """What becomes of a login whose realm is none of ours, once there is any."""

    KEEP = "keep"  # the name is looked up as it was sent
    REJECT = "reject"


class Named(Struct, frozen=True, gc=False):
    """A user name that has a realm. `realm` None: it is none of ours; `identity`: the name that its realm gives it."""

    realm: NodeRealm | None
    identity: bytes
    is_refused: bool = False


def split_realm(username: bytes) -> tuple[bytes, bytes] | None:
    r"""(user, realm in lower case) of user@realm, by the last @, else of REALM\user, by the first backslash.

    None where either part is empty: such a name has no realm.
    """
    user, at, realm = username.rpartition(b"@")
    if not (at and user and realm):
        realm, backslash, user = username.partition(b"\\")
        if not (backslash and user and realm):
            return None
    return user, realm.lower()  # of octets only the ASCII letters change


class Realms:
    """The realms that there are. Without any, no name has a realm, and nothing is refused for one."""

    __slots__ = ("_by_name", "_unknown")

    def __init__(self, realms: Iterable[NodeRealm], unknown: UnknownRealm = UnknownRealm.KEEP) -> None:
        self._by_name = {realm.name.encode(): realm for realm in realms}
        self._unknown = unknown

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def find(self, username: bytes) -> Named | None:
        """The realm of a name and what it makes of it; None for a name without one."""
        parts = split_realm(username) if self._by_name else None
        if parts is None:
            return None
        user, name = parts
        realm = self._by_name.get(name)
        if realm is None:
            return Named(None, username, self._unknown is UnknownRealm.REJECT)
        return Named(realm, user if realm.is_stripped else user + b"@" + name)

    def spellings(self, identity: bytes) -> tuple[bytes, ...]:
        """The usual names of a service beside its identity: of a bare user that in each stripped realm."""
        if split_realm(identity) is not None:
            return ()
        return tuple(identity + b"@" + name for name, realm in self._by_name.items() if realm.is_stripped)

    def key(self, username: bytes) -> bytes:
        """One name for all spellings of a user in a realm of ours: what failures are counted by."""
        named = self.find(username)
        return username if named is None else named.identity

    def identities(self, username: bytes) -> tuple[bytes, ...]:
        """What to look a name up by, in this order."""
        named = self.find(username)
        return (username,) if named is None or named.identity == username else (username, named.identity)
