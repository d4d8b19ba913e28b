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
    """One version of a plan; `document` is what rules.plan.plan_from_document reads."""

    id: int
    name: str
    version: int
    document: dict[str, Any]
    digest: str
    effective_at: datetime
    services: int


_QUERY = sql.SQL(
    """select v.id, p.name, v.version, v.document, v.digest, v.effective_at,
              (select count(*) from subscription s where s.plan_version_id = v.id and s.during @> now()) as services
       from plan_version v join plan p on p.id = v.plan_id {}"""
)


def insert_version(
    connection: Connection,
    name: str,
    *,
    document: Mapping[str, Any],
    digest: str,
    components: Iterable[tuple[str, str, int]],
) -> tuple[int, int]:
    """(id, version) of a new version of the plan; `components` are (name, kind, opening) of what it charges."""
    connection.execute("insert into plan (name) values (%s) on conflict (name) do nothing", (name,))
    plan = connection.execute("select id from plan where name = %s for update", (name,)).fetchone()
    assert plan is not None
    row = connection.execute(
        """insert into plan_version (plan_id, version, document, digest)
           select %(plan)s, coalesce(max(version), 0) + 1, %(document)s, %(digest)s
           from plan_version where plan_id = %(plan)s returning id, version""",
        {"plan": plan[0], "document": Jsonb(dict(document)), "digest": digest},
    ).fetchone()
    assert row is not None
    connection.cursor().executemany(
        "insert into component (plan_version_id, name, kind, opening) values (%s, %s, %s, %s)",
        [(row[0], *component) for component in components],
    )
    return int(row[0]), int(row[1])


def find_latest(connection: Connection, name: str) -> PlanVersionRow | None:
    return _one(connection, sql.SQL("where p.name = %s order by v.version desc limit 1"), name)


def list_latest(connection: Connection) -> list[PlanVersionRow]:
    """The newest version of each plan, by name."""
    latest = "where v.version = (select max(version) from plan_version o where o.plan_id = p.id) order by p.name"
    with connection.cursor(row_factory=class_row(PlanVersionRow)) as cursor:
        return cursor.execute(_QUERY.format(sql.SQL(latest))).fetchall()


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
