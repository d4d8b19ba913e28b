"""What was done, by whom (audit), and what became true (event): one row of each in the transaction of every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.actor import Actor


@dataclass(frozen=True, slots=True)
class AuditRow:
    at: datetime
    actor: str
    door: str
    ticket: str | None
    action: str
    object_kind: str
    object_id: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def insert_change(
    connection: Connection,
    actor: Actor,
    *,
    action: str,
    object_kind: str,
    object_id: int,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """One audit row and one domain event (`object_kind.action`). Neither may hold a secret: pass what may be shown."""
    connection.execute(
        """insert into audit (actor, door, ticket, action, object_kind, object_id, before, after)
           values (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            actor.name,
            actor.door.value,
            actor.ticket,
            action,
            object_kind,
            object_id,
            Jsonb(dict(before)) if before is not None else None,
            Jsonb(dict(after)) if after is not None else None,
        ),
    )
    connection.execute(
        "insert into event (kind, object_kind, object_id, payload) values (%s, %s, %s, %s)",
        (f"{object_kind}.{action}", object_kind, object_id, Jsonb(dict(after or {}))),
    )


def list_changes(connection: Connection, object_kind: str, object_id: int) -> list[AuditRow]:
    """The history of one object, oldest first."""
    with connection.cursor(row_factory=class_row(AuditRow)) as cursor:
        return cursor.execute(
            """select at, actor, door, ticket, action, object_kind, object_id, before, after
               from audit where object_kind = %s and object_id = %s order by id""",
            (object_kind, object_id),
        ).fetchall()
