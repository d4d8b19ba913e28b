"""Realms: which there are, how their names are looked up, and what their services get by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.rules.entitlement import NodeRealm

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class RealmRow:
    """`plan` None: services of this realm are added with a plan of their own. `nases` by name, [] for any."""

    id: int
    name: str
    is_stripped: bool
    plan: str | None
    nases: list[str]
    created_at: datetime


_QUERY = sql.SQL(
    """select r.id, r.name, r.is_stripped, p.name as plan,
              array(select n.name from realm_nas m join nas n on n.id = m.nas_id where m.realm_id = r.id
                    order by n.name) as nases,
              r.created_at
       from realm r left join plan p on p.id = r.plan_id {} order by r.name"""
)


def insert_realm(connection: Connection, name: str, *, is_stripped: bool, plan: str | None) -> int:
    """The realm's id. UniqueViolation when there is one of this name."""
    row = connection.execute(
        """insert into realm (name, is_stripped, plan_id) values (%s, %s, (select id from plan where name = %s))
           returning id""",
        (name, is_stripped, plan),
    ).fetchone()
    assert row is not None
    return int(row[0])


def update_realm(connection: Connection, realm_id: int, *, is_stripped: bool, plan: str | None) -> None:
    connection.execute(
        "update realm set is_stripped = %s, plan_id = (select id from plan where name = %s) where id = %s",
        (is_stripped, plan, realm_id),
    )


def replace_nases(connection: Connection, realm_id: int, nas_ids: list[int]) -> None:
    """Where the realm's services may log in from now on."""
    connection.execute("delete from realm_nas where realm_id = %s", (realm_id,))
    connection.execute("insert into realm_nas (realm_id, nas_id) select %s, unnest(%s::int[])", (realm_id, nas_ids))


def delete_realm(connection: Connection, realm_id: int) -> None:
    connection.execute("delete from realm where id = %s", (realm_id,))


def find_realm(connection: Connection, name: str) -> RealmRow | None:
    with connection.cursor(row_factory=class_row(RealmRow)) as cursor:
        return cursor.execute(_QUERY.format(sql.SQL("where r.name = %s")), (name,)).fetchone()


def list_realms(connection: Connection) -> list[RealmRow]:
    with connection.cursor(row_factory=class_row(RealmRow)) as cursor:
        return cursor.execute(_QUERY.format(sql.SQL(""))).fetchall()


def list_node_realms(connection: Connection, ids: list[int] | None) -> list[NodeRealm]:
    """What the node needs of these realms (None: of all); a removed one is not among them."""
    rows = connection.execute(
        """select r.id, r.name, r.is_stripped,
                  array(select nas_id from realm_nas where realm_id = r.id order by nas_id)
           from realm r where %(ids)s::int[] is null or r.id = any(%(ids)s::int[])""",
        {"ids": ids},
    ).fetchall()
    return [NodeRealm(row[0], row[1], row[2], tuple(row[3])) for row in rows]
