"""What operators change: NASes, plans, subscribers. Every flow takes an Actor and leaves an audit row and an event.

Values come from a door as text; what is wrong with one is said with place, reason and remedy (Invalid). What cannot be
done as things stand is a Refused. Neither leaves anything half done: the door rolls back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sms_aaa.db import audit as db_audit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.vault import Vault
    from sms_aaa.rules.actor import Actor

NAME_OCTETS_MAX = 253


class RefusedKind(StrEnum):
    NOT_FOUND = "not-found"
    CONFLICT = "conflict"


@dataclass(slots=True, eq=False)  # not frozen: contextlib sets the traceback of what passes through
class Refused(Exception):  # noqa: N818 - an outcome that a door turns into an exit code, not a program's error
    """It cannot be done as things stand: the thing is not there, or something is in its way."""

    kind: RefusedKind
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


@dataclass(slots=True, eq=False)
class Invalid(Exception):  # noqa: N818 - as above
    """A value is wrong: where, why, what to do."""

    place: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a provisioning flow works with: an open transaction, who asks, the vault, randomness."""

    connection: Connection
    actor: Actor
    vault: Vault
    nonce: Callable[[], bytes]

    def record(
        self, action: str, kind: str, object_id: int, *, before: Mapping[str, object] | None, after: object
    ) -> None:
        assert after is None or isinstance(after, dict)
        db_audit.insert_change(
            self.connection,
            self.actor,
            action=action,
            object_kind=kind,
            object_id=object_id,
            before=before,
            after=after,
        )


def check_name(place: str, name: str) -> None:
    if not name or not name.isprintable() or len(name.encode()) > NAME_OCTETS_MAX or name != name.strip():
        raise Invalid(
            place, f"{name!r} is not a name", f"1 to {NAME_OCTETS_MAX} octets, printable, without space at either end"
        )
