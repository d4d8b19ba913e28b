"""What the nodes saw of each NAS: how many of its logins were signed, and which of two secrets its packets proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRow:
    """The totals of one run of a node's server. `observed_from`: of which observation, in epoch seconds."""

    nas_id: int
    node: str
    run: int
    observed_from: int
    signed: int
    unsigned: int
    last_unsigned_at: datetime | None
    last_unsigned_port: int | None
    secret_id: int
    old_secret: int
    new_secret: int
    last_old_at: datetime | None
    last_new_at: datetime | None


@dataclass(frozen=True, slots=True)
class EvidenceTotals:
    """Over all nodes and runs. The counts of secrets are those of one rotation. `since` None: nothing is known."""

    since: datetime | None
    signed: int
    unsigned: int
    last_unsigned_at: datetime | None
    last_unsigned_port: int | None
    old_secret: int
    new_secret: int
    last_old_at: datetime | None
    last_new_at: datetime | None


def upsert_evidence(connection: Connection, rows: Iterable[EvidenceRow]) -> None:
    """The totals of this run as they are now; those of an observation that ended are left out."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """insert into nas_evidence (nas_id, node, run, since, signed, unsigned, last_unsigned_at,
                   last_unsigned_port, secret_id, old_secret, new_secret, last_old_at, last_new_at)
               select n.id, %(node)s, %(run)s, greatest(now(), n.observed_from), %(signed)s, %(unsigned)s,
                   %(last_unsigned_at)s, %(last_unsigned_port)s, %(secret_id)s, %(old_secret)s, %(new_secret)s,
                   %(last_old_at)s, %(last_new_at)s
               from nas n where n.id = %(nas_id)s and extract(epoch from n.observed_from) = %(observed_from)s
               on conflict (nas_id, node, run) do update set
                   signed = excluded.signed, unsigned = excluded.unsigned,
                   last_unsigned_at = excluded.last_unsigned_at, last_unsigned_port = excluded.last_unsigned_port,
                   secret_id = excluded.secret_id, old_secret = excluded.old_secret,
                   new_secret = excluded.new_secret, last_old_at = excluded.last_old_at,
                   last_new_at = excluded.last_new_at""",
            [{name: getattr(row, name) for name in EvidenceRow.__slots__} for row in rows],
        )


def fold_runs(connection: Connection, node: str, run: int) -> None:
    """A node's earlier runs become one row a NAS: restarts add none. Counts of secrets: of the latest rotation."""
    connection.execute(
        """with gone as (delete from nas_evidence where node = %(node)s and run <> %(run)s returning *),
                latest as (select nas_id, max(secret_id) as secret_id from gone group by nas_id)
           insert into nas_evidence (nas_id, node, run, since, signed, unsigned, last_unsigned_at, last_unsigned_port,
               secret_id, old_secret, new_secret, last_old_at, last_new_at)
           select g.nas_id, %(node)s, 0, min(since), sum(signed), sum(unsigned), max(last_unsigned_at),
               (array_agg(last_unsigned_port order by last_unsigned_at desc nulls last))[1], l.secret_id,
               coalesce(sum(old_secret) filter (where g.secret_id = l.secret_id), 0),
               coalesce(sum(new_secret) filter (where g.secret_id = l.secret_id), 0),
               max(last_old_at) filter (where g.secret_id = l.secret_id),
               max(last_new_at) filter (where g.secret_id = l.secret_id)
           from gone g join latest l using (nas_id) group by g.nas_id, l.secret_id""",
        {"node": node, "run": run},
    )


def mark_signing(connection: Connection, nas_id: int, *, at: int) -> None:
    """A signed login was seen at `at` (epoch seconds): the first one, if it is of this observation."""
    connection.execute(
        """update nas set signs_since = to_timestamp(%(at)s)
           where id = %(nas_id)s and signs_since is null and removed_at is null
             and observed_from <= to_timestamp(%(at)s)""",
        {"nas_id": nas_id, "at": at},
    )


def get_evidence(connection: Connection, nas_id: int, secret_id: int) -> EvidenceTotals:
    """What all nodes saw of a NAS; of its secrets, in the rotation to `secret_id`."""
    with connection.cursor(row_factory=class_row(EvidenceTotals)) as cursor:
        found = cursor.execute(
            """select min(since) as since, coalesce(sum(signed), 0)::bigint as signed,
                      coalesce(sum(unsigned), 0)::bigint as unsigned, max(last_unsigned_at) as last_unsigned_at,
                      (array_agg(last_unsigned_port order by last_unsigned_at desc nulls last))[1]
                          as last_unsigned_port,
                      coalesce(sum(old_secret) filter (where secret_id = %(secret_id)s), 0)::bigint as old_secret,
                      coalesce(sum(new_secret) filter (where secret_id = %(secret_id)s), 0)::bigint as new_secret,
                      max(last_old_at) filter (where secret_id = %(secret_id)s) as last_old_at,
                      max(last_new_at) filter (where secret_id = %(secret_id)s) as last_new_at
               from nas_evidence where nas_id = %(nas_id)s""",
            {"nas_id": nas_id, "secret_id": secret_id},
        ).fetchone()
    assert found is not None
    return found
