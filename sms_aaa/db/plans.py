"""Plans and their versions. A version is stored as the canonical document of rules/plan.py and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class PlanVersionRow:
    """One version of a plan; `document` is what rules.plan.plan_from_document reads.

    In force is, of the versions whose time has come, the one that came last: new subscriptions get it.
    """

    id: int
    name: str
    version: int
    document: dict[str, Any]
    digest: str
    effective_at: datetime
    services: int
    is_in_force: bool
    is_upcoming: bool


_QUERY = sql.SQL(
    """select v.id, p.name, v.version, v.document, v.digest, v.effective_at,
              (select count(*) from subscription s where s.plan_version_id = v.id and s.during @> now()) as services,
              v.id = (select o.id from plan_version o where o.plan_id = v.plan_id and o.effective_at <= now()
                      order by o.effective_at desc, o.version desc limit 1) is true as is_in_force,
              v.effective_at > now() as is_upcoming
       from plan_version v join plan p on p.id = v.plan_id {}"""
)


def insert_version(
    connection: Connection,
    name: str,
    *,
    document: Mapping[str, Any],
    digest: str,
    components: Iterable[tuple[str, str, int]],
    effective_at: datetime | None = None,
) -> tuple[int, int]:
    """(id, version) of a new version of the plan; `components` are (name, kind, opening) of what it charges.

    `effective_at` None: at once.
    """
    connection.execute("insert into plan (name) values (%s) on conflict (name) do nothing", (name,))
    plan = connection.execute("select id from plan where name = %s for update", (name,)).fetchone()
    assert plan is not None
    row = connection.execute(
        """insert into plan_version (plan_id, version, document, digest, effective_at)
           select %(plan)s, coalesce(max(version), 0) + 1, %(document)s, %(digest)s, coalesce(%(effective)s, now())
           from plan_version where plan_id = %(plan)s returning id, version""",
        {"plan": plan[0], "document": Jsonb(dict(document)), "digest": digest, "effective": effective_at},
    ).fetchone()
    assert row is not None
    connection.cursor().executemany(
        "insert into component (plan_version_id, name, kind, opening) values (%s, %s, %s, %s)",
        [(row[0], *component) for component in components],
    )
    return int(row[0]), int(row[1])


def find_in_force(connection: Connection, name: str, at: datetime | None = None) -> PlanVersionRow | None:
    """The version that subscriptions made at an instant get (None: now)."""
    where = sql.SQL(
        """where p.name = %s and v.effective_at <= coalesce(%s, now())
           order by v.effective_at desc, v.version desc limit 1"""
    )
    return _one(connection, where, name, at)


def find_version(connection: Connection, name: str, version: int) -> PlanVersionRow | None:
    return _one(connection, sql.SQL("where p.name = %s and v.version = %s"), name, version)


def find_latest(connection: Connection, name: str) -> PlanVersionRow | None:
    return _one(connection, sql.SQL("where p.name = %s order by v.version desc limit 1"), name)


def list_plans(connection: Connection, *, is_all: bool = False) -> list[PlanVersionRow]:
    """The versions in force and upcoming, or all, by name and version."""
    query = sql.SQL("select * from ({}) v where %s or is_in_force or is_upcoming order by name, version")
    with connection.cursor(row_factory=class_row(PlanVersionRow)) as cursor:
        return cursor.execute(query.format(_QUERY.format(sql.SQL(""))), (is_all,)).fetchall()


def count_plans(connection: Connection) -> int:
    row = connection.execute("select count(*) from plan").fetchone()
    assert row is not None
    return int(row[0])


def list_versions(connection: Connection, ids: list[int] | None) -> list[PlanVersionRow]:
    """These versions (None: every version of every plan)."""
    with connection.cursor(row_factory=class_row(PlanVersionRow)) as cursor:
        where = sql.SQL("where %(ids)s::int[] is null or v.id = any(%(ids)s::int[])")
        return cursor.execute(_QUERY.format(where), {"ids": ids}).fetchall()


def list_components(connection: Connection, plan_version_id: int) -> dict[str, int]:
    """Component id by name."""
    rows = connection.execute("select name, id from component where plan_version_id = %s", (plan_version_id,))
    return {str(row[0]): int(row[1]) for row in rows.fetchall()}


def _one(connection: Connection, where: sql.SQL, *parameters: object) -> PlanVersionRow | None:
    with connection.cursor(row_factory=class_row(PlanVersionRow)) as cursor:
        return cursor.execute(_QUERY.format(where), parameters).fetchone()


def get_longest_interim(connection: Connection) -> int:
    """Seconds between the reports of the slowest plan; 0 without plans."""
    row = connection.execute(
        "select coalesce(max((document->'policy'->>'interim_seconds')::int), 0) from plan_version"
    ).fetchone()
    assert row is not None
    return int(row[0])
