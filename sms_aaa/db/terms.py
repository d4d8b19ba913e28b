"""A service's terms: from when to when it is valid, and to which devices, NASes and lines it is bound."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from sms_aaa.rules.entitlement import BindingKind, ServiceState, Terms

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class BindingRow:
    """`kind`: BindingKind. `value`: a canonical MAC, a NAS's id in decimal, or a line; `nas`: the NAS's name."""

    service_id: int
    kind: int
    value: str
    nas: str | None
    created_at: datetime


def list_bindings(connection: Connection, service_ids: list[int]) -> list[BindingRow]:
    """The bindings of these services, by service, kind and age."""
    with connection.cursor(row_factory=class_row(BindingRow)) as cursor:
        return cursor.execute(
            """select b.service_id, b.kind, b.value, n.name as nas, b.created_at
               from service_binding b
               left join nas n on b.kind = %s and n.id = case when b.kind = %s then b.value::int end
               where b.service_id = any(%s) order by b.service_id, b.kind, b.created_at, b.value""",
            (int(BindingKind.NAS), int(BindingKind.NAS), service_ids),
        ).fetchall()


def list_bound(connection: Connection, service_ids: list[int]) -> dict[int, Terms]:
    """Terms without dates of those of the services that are bound to something."""
    values: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    rows = connection.execute(
        "select service_id, kind, value from service_binding where service_id = any(%s) order by kind, value",
        (service_ids,),
    )
    for service_id, kind, value in rows.fetchall():
        values[service_id][kind].append(value)
    return {
        service_id: Terms(
            nas_ids=tuple(map(int, of_kind[BindingKind.NAS])),
            ports=tuple(value.encode() for value in of_kind[BindingKind.PORT]),
            macs=tuple(value.encode() for value in of_kind[BindingKind.MAC]),
        )
        for service_id, of_kind in values.items()
    }


def insert_binding(connection: Connection, service_id: int, kind: BindingKind, value: str) -> bool:
    """False when the service was bound so already."""
    done = connection.execute(
        "insert into service_binding (service_id, kind, value) values (%s, %s, %s) on conflict do nothing",
        (service_id, int(kind), value),
    )
    return done.rowcount == 1


def delete_binding(connection: Connection, service_id: int, kind: BindingKind, value: str) -> bool:
    """False when the service was not bound so."""
    done = connection.execute(
        "delete from service_binding where service_id = %s and kind = %s and value = %s",
        (service_id, int(kind), value),
    )
    return done.rowcount == 1


def update_learning(connection: Connection, service_id: int, *, learns: bool) -> None:
    """Whether the next login of the service, while it is bound to no MAC, binds it to its device's."""
    connection.execute(
        "update service set learns_mac_since = case when %s then clock_timestamp() end where id = %s",
        (learns, service_id),
    )


def list_learning(connection: Connection, service_ids: list[int]) -> dict[int, datetime]:
    """Since when those of the services learn that are bound to no MAC yet."""
    rows = connection.execute(
        """select s.id, s.learns_mac_since from service s
           where s.id = any(%s) and s.learns_mac_since is not null
             and not exists (select from service_binding b where b.service_id = s.id and b.kind = %s)""",
        (service_ids, int(BindingKind.MAC)),
    )
    return {int(row[0]): row[1] for row in rows.fetchall()}


def has_learning(connection: Connection) -> bool:
    """Whether any service learns at all."""
    row = connection.execute("select exists (select from service where learns_mac_since is not null)").fetchone()
    return bool(row and row[0])


def update_validity(
    connection: Connection, service_id: int, *, valid_from: datetime | None, valid_until: datetime | None
) -> None:
    connection.execute(
        "update service set valid_from = %s, valid_until = %s where id = %s", (valid_from, valid_until, service_id)
    )


def find_state_reason(connection: Connection, service_id: int, at: datetime) -> str:
    """What was said of the state that the service was in at that instant; "" for nothing."""
    row = connection.execute(
        "select reason from service_state where service_id = %s and during @> %s", (service_id, at)
    ).fetchone()
    return str(row[0]) if row is not None else ""


def find_state_before_block(connection: Connection, service_id: int) -> tuple[ServiceState, str]:
    """(state, its reason) that the service was in before it was blocked."""
    row = connection.execute(
        """select state, reason from service_state where service_id = %s and state <> %s
           order by lower(during) desc limit 1""",
        (service_id, int(ServiceState.BLOCKED)),
    ).fetchone()
    return (ServiceState(row[0]), str(row[1])) if row is not None else (ServiceState.ACTIVE, "")
