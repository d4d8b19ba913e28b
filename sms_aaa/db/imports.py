"""Subscribers in bulk: how far an import is, what of a batch exists already, a batch stored, a cursor over all.

A batch is copied into a temporary table and spread from there with one statement a table, so that its cost is that of
the rows. Whoever calls has one open transaction a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql
from psycopg.rows import args_row, class_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection

PAGE_ROWS = 2000
"""As many rows as the export's cursor fetches at once."""


@dataclass(frozen=True, slots=True)
class ImportRun:
    """How far the import of a file is: `octets` and lines of it, and of the rejects file, are committed."""

    id: int
    octets: int
    line: int
    added: int
    updated: int
    unchanged: int
    rejected: int
    rejects_octets: int
    started_at: datetime
    finished_at: datetime | None


_RUN = sql.SQL("id, octets, line, added, updated, unchanged, rejected, rejects_octets, started_at, finished_at")


def insert_run(
    connection: Connection, *, digest: bytes, updates: bool, actor: str, octets_total: int, octets: int, line: int
) -> ImportRun:
    """A new one, of which the header is done. UniqueViolation when one of the same file is not finished."""
    with connection.cursor(row_factory=class_row(ImportRun)) as cursor:
        row = cursor.execute(
            sql.SQL(
                """insert into import_run (digest, updates, actor, octets_total, octets, line)
                   values (%s, %s, %s, %s, %s, %s) returning {}"""
            ).format(_RUN),
            (digest, updates, actor, octets_total, octets, line),
        ).fetchone()
    assert row is not None
    return row


def find_last_run(connection: Connection, *, digest: bytes, updates: bool) -> ImportRun | None:
    """The last import of this file in this mode.

    It is locked, so that a server process whose client was killed in mid-batch has ended that batch before.
    """
    with connection.cursor(row_factory=class_row(ImportRun)) as cursor:
        return cursor.execute(
            sql.SQL(
                "select {} from import_run where digest = %s and updates = %s order by id desc limit 1 for update"
            ).format(_RUN),
            (digest, updates),
        ).fetchone()


def lock_run(connection: Connection, run: ImportRun) -> bool:
    """False when it does not stand where it stood; whoever else wants to move it waits for this transaction."""
    row = connection.execute(
        "select octets = %s and finished_at is null from import_run where id = %s for update", (run.octets, run.id)
    ).fetchone()
    return row is not None and bool(row[0])


def move_run(connection: Connection, run: ImportRun, to: ImportRun) -> bool:
    """False when it does not stand where it stood: somebody else moved it, and this batch is not ours to commit."""
    moved = connection.execute(
        """update import_run
           set octets = %s, line = %s, added = %s, updated = %s, unchanged = %s, rejected = %s, rejects_octets = %s,
               moved_at = now()
           where id = %s and octets = %s and finished_at is null""",
        (to.octets, to.line, to.added, to.updated, to.unchanged, to.rejected, to.rejects_octets, run.id, run.octets),
    )
    return moved.rowcount == 1


def finish_run(connection: Connection, run: ImportRun) -> bool:
    """False when somebody else moved or finished it."""
    done = connection.execute(
        "update import_run set finished_at = now() where id = %s and octets = %s and finished_at is null",
        (run.id, run.octets),
    )
    return done.rowcount == 1


class SoldPlan(NamedTuple):
    plan_version_id: int
    name: str
    version: int
    currency: str


def list_sold(connection: Connection) -> list[SoldPlan]:
    """Every version of every plan, by name, the newest first."""
    with connection.cursor(row_factory=args_row(SoldPlan)) as cursor:
        return cursor.execute(
            """select v.id, p.name, v.version, v.document->'tariff'->>'currency'
               from plan_version v join plan p on p.id = v.plan_id order by p.name, v.version desc"""
        ).fetchall()


@dataclass(frozen=True, slots=True)
class StoredSubscriber:
    """A subscriber with its service, as it can be written into a file.

    `sealed`: its credential. `changes_at`: when its plan is to change, None: nothing is to come.
    """

    subscriber_id: int
    account_id: int | None
    service_id: int | None
    name: str
    full_name: str
    email: str
    phone: str
    identity_kind: int | None
    identity: str | None
    state: int | None
    state_reason: str | None
    static_ipv4: str | None
    valid_from: datetime | None
    valid_until: datetime | None
    bound_macs: list[str]
    bound_nases: list[str]
    bound_ports: list[str]
    plan: str | None
    plan_version: int | None
    plan_version_id: int | None
    changes_at: datetime | None
    currency: str | None
    zone: str | None
    anchor_day: int | None
    sealed: bytes | None


_STORED = sql.SQL(
    """
    select b.id as subscriber_id, a.id as account_id, s.id as service_id, b.name, b.full_name, b.email, b.phone,
           s.identity_kind, s.identity, s.state, s.state_reason, host(s.static_ipv4) as static_ipv4, s.valid_from,
           s.valid_until,
           array(select value from service_binding where service_id = s.id and kind = 1 order by 1) as bound_macs,
           array(select n.name from service_binding m join nas n on n.id = m.value::int
                 where m.service_id = s.id and m.kind = 2 order by 1) as bound_nases,
           array(select value from service_binding where service_id = s.id and kind = 3 order by 1) as bound_ports,
           p.name as plan, v.version as plan_version, v.id as plan_version_id,
           upper(u.during) as changes_at, a.currency, a.zone, a.anchor_day,
           c.sealed
    from subscriber b
    left join service s on s.subscriber_id = b.id and s.state <> 3
    left join subscription u on u.service_id = s.id and u.during @> now()
    left join plan_version v on v.id = u.plan_version_id
    left join plan p on p.id = v.plan_id
    left join assignment g on g.service_id = s.id and g.during @> now()
    left join account a on a.id = g.account_id
    left join credential c on c.service_id = s.id
    where b.removed_at is null {}"""
)


def iterate_stored(connection: Connection) -> Iterator[StoredSubscriber]:
    """Every living subscriber in the order of their ids, a row a service, by a cursor on the server."""
    with connection.cursor("export", row_factory=class_row(StoredSubscriber)) as cursor:
        cursor.itersize = PAGE_ROWS
        yield from cursor.execute(_STORED.format(sql.SQL("order by b.id, s.id")))


def list_stored(connection: Connection, names: Sequence[str]) -> list[StoredSubscriber]:
    with connection.cursor(row_factory=class_row(StoredSubscriber)) as cursor:
        return cursor.execute(_STORED.format(sql.SQL("and b.name = any(%s) order by s.id")), (list(names),)).fetchall()


class ClaimKind(IntEnum):
    """What only one subscriber or service can have. The identities' kinds are those of rules.entitlement."""

    NAME = 0
    USERNAME = 1
    MAC = 2
    ADDRESS = 3


class Claim(NamedTuple):
    kind: ClaimKind
    value: str


class Holder(NamedTuple):
    """Who has it: a subscriber (None: one of a dry run), and the line if the same file brought it."""

    subscriber_id: int | None
    line: int | None


def create_stage(connection: Connection) -> None:
    """The temporary tables of a session: a batch on its way, and what a dry run would have stored so far."""
    connection.execute(
        """create temporary table import_stage (
               line bigint, is_new boolean, subscriber_id bigint, account_id bigint, service_id bigint, name text,
               full_name text, email text, phone text, identity_kind smallint, identity text, state smallint,
               state_reason text, static_ipv4 inet, valid_from timestamptz, valid_until timestamptz,
               plan_version_id integer, currency text, zone text, anchor_day smallint, form smallint, sealed bytea
           );
           create temporary table import_bond (service_id bigint, kind smallint, value text);
           create temporary table import_dry (kind smallint, value text, line bigint, subscriber_id bigint);
           create index on pg_temp.import_dry (value);
           create index on pg_temp.import_dry (subscriber_id)"""
    )


def find_holders(connection: Connection, import_id: int, claims: Iterable[Claim]) -> dict[Claim, Holder]:
    """Who has what of these already. Whoever was changed in the dry run has what the dry run gave."""
    by_kind: dict[ClaimKind, list[str]] = {kind: [] for kind in ClaimKind}
    for claim in claims:
        by_kind[claim.kind].append(claim.value)
    rows = connection.execute(
        """select h.kind, h.value, h.subscriber_id, r.line
           from (select 0 as kind, name as value, id as subscriber_id
                 from subscriber where removed_at is null and name = any(%(names)s)
                 union all select 1, identity, subscriber_id
                 from service where state <> 3 and identity_kind = 1 and identity = any(%(usernames)s)
                 union all select 2, identity, subscriber_id
                 from service where state <> 3 and identity_kind = 2 and identity = any(%(macs)s)
                 union all select 3, host(static_ipv4), subscriber_id
                 from service where state <> 3 and static_ipv4 = any(%(addresses)s::inet[])) h
           left join import_row r on r.subscriber_id = h.subscriber_id and r.import_id = %(import)s
           where not exists (select from import_dry d where d.subscriber_id = h.subscriber_id)
           union all
           select kind, value, subscriber_id, line from import_dry
           join unnest(%(kinds)s::smallint[], %(values)s::text[]) k(kind, value) using (kind, value)""",
        {
            "names": by_kind[ClaimKind.NAME],
            "usernames": by_kind[ClaimKind.USERNAME],
            "macs": by_kind[ClaimKind.MAC],
            "addresses": by_kind[ClaimKind.ADDRESS],
            "kinds": [int(kind) for kind, values in by_kind.items() for _ in values],
            "values": [value for values in by_kind.values() for value in values],
            "import": import_id,
        },
    )
    return {Claim(ClaimKind(row[0]), row[1]): Holder(row[2], row[3]) for row in rows.fetchall()}


def insert_dry(connection: Connection, claims: Iterable[tuple[Claim, Holder]]) -> None:
    """What a dry run's rows would have from now on, for the rows after them."""
    with connection.cursor().copy("copy import_dry (kind, value, line, subscriber_id) from stdin") as copy:
        for claim, holder in claims:
            copy.write_row((int(claim.kind), claim.value, holder.line, holder.subscriber_id))


class StagedRow(NamedTuple):
    """A row of a batch, in the order of the temporary table's columns. No `sealed`: the credential stays."""

    line: int
    is_new: bool
    subscriber_id: int
    account_id: int
    service_id: int
    name: str
    full_name: str
    email: str
    phone: str
    identity_kind: int
    identity: str
    state: int
    state_reason: str
    static_ipv4: str | None
    valid_from: datetime | None
    valid_until: datetime | None
    plan_version_id: int
    currency: str
    zone: str
    anchor_day: int
    form: int | None
    sealed: bytes | None


def take_ids(connection: Connection, count: int) -> list[tuple[int, int, int]]:
    """(subscriber, account, service) ids for so many new rows: a credential is sealed for its service's id."""
    return connection.execute(
        """select nextval(pg_get_serial_sequence('subscriber', 'id')), nextval(pg_get_serial_sequence('account', 'id')),
                  nextval(pg_get_serial_sequence('service', 'id'))
           from generate_series(1, %s)""",
        (count,),
    ).fetchall()


_INSERTS = (
    """insert into subscriber (id, name, full_name, email, phone) overriding system value
       select subscriber_id, name, full_name, email, phone from import_stage where is_new order by line""",
    """insert into account (id, subscriber_id, currency, zone, anchor_day) overriding system value
       select account_id, subscriber_id, currency, zone, anchor_day from import_stage where is_new order by line""",
    """insert into service (id, subscriber_id, identity_kind, identity, state, state_reason, static_ipv4, valid_from,
                            valid_until)
       overriding system value
       select service_id, subscriber_id, identity_kind, identity, state, state_reason, static_ipv4, valid_from,
              valid_until
       from import_stage where is_new order by line""",
    """insert into service_state (service_id, state, reason, during)
       select service_id, state, state_reason, tstzrange(now(), null) from import_stage where is_new order by line""",
    """insert into assignment (service_id, account_id, during)
       select service_id, account_id, tstzrange(now(), null) from import_stage where is_new order by line""",
    """insert into subscription (service_id, plan_version_id, during)
       select service_id, plan_version_id, tstzrange(now(), null) from import_stage where is_new order by line""",
)

# Dated rows are closed by the clock and not by the transaction's begin, which may lie before they were opened.
_UPDATES = (
    """update service_state t set during = tstzrange(lower(t.during), clock_timestamp())
       from import_stage i join service s on s.id = i.service_id
       where not i.is_new and t.service_id = i.service_id and upper_inf(t.during)
         and (s.state, s.state_reason) is distinct from (i.state, i.state_reason)""",
    """insert into service_state (service_id, state, reason, during)
       select i.service_id, i.state, i.state_reason, tstzrange(max(upper(t.during)), null)
       from import_stage i join service_state t on t.service_id = i.service_id
       where not i.is_new group by i.service_id, i.state, i.state_reason having bool_and(not upper_inf(t.during))""",
    """update subscriber b set full_name = i.full_name, email = i.email, phone = i.phone
       from import_stage i where not i.is_new and b.id = i.subscriber_id
         and (b.full_name, b.email, b.phone) is distinct from (i.full_name, i.email, i.phone)""",
    """update service s set identity = i.identity, state = i.state, state_reason = i.state_reason,
           static_ipv4 = i.static_ipv4, valid_from = i.valid_from, valid_until = i.valid_until
       from import_stage i where not i.is_new and s.id = i.service_id
         and (s.identity, s.state, s.state_reason, s.static_ipv4, s.valid_from, s.valid_until)
             is distinct from (i.identity, i.state, i.state_reason, i.static_ipv4, i.valid_from, i.valid_until)""",
    """update subscription u set during = tstzrange(lower(u.during), clock_timestamp())
       from import_stage i where not i.is_new and u.service_id = i.service_id and upper_inf(u.during)
         and u.during @> clock_timestamp() and u.plan_version_id <> i.plan_version_id""",
    """insert into subscription (service_id, plan_version_id, during)
       select i.service_id, i.plan_version_id, tstzrange(greatest(max(upper(u.during)), now()), null)
       from import_stage i left join subscription u on u.service_id = i.service_id
       where not i.is_new group by i.service_id, i.plan_version_id
       having bool_and(not upper_inf(u.during)) is not false""",
    """delete from service_binding b using import_stage i
       where not i.is_new and b.service_id = i.service_id
         and (b.service_id, b.kind, b.value) not in (select service_id, kind, value from import_bond)""",
)

_CREDENTIALS = """
    insert into credential (service_id, form, sealed)
    select service_id, form, sealed from import_stage where sealed is not null order by line
    on conflict (service_id) do update set form = excluded.form, sealed = excluded.sealed, changed_at = now()"""


class StagedBond(NamedTuple):
    """What a service of the batch is bound to. `kind`: BindingKind."""

    service_id: int
    kind: int
    value: str


def store_batch(connection: Connection, import_id: int, rows: Sequence[StagedRow], bonds: Sequence[StagedBond]) -> None:
    """New rows are inserted, the others updated where they differ; each leaves its line. `bonds`: all of these rows.

    UniqueViolation when somebody took a name, an identity or an address meanwhile.
    """
    connection.execute("truncate import_stage, import_bond")
    with connection.cursor().copy("copy import_stage from stdin") as copy:
        for row in rows:
            copy.write_row(row)
    if bonds:
        with connection.cursor().copy("copy import_bond from stdin") as copy:
            for bond in bonds:
                copy.write_row(bond)
    for statement in _INSERTS if all(row.is_new for row in rows) else _INSERTS + _UPDATES:
        connection.execute(statement)
    connection.execute(_CREDENTIALS)
    if bonds:
        connection.execute(
            """insert into service_binding (service_id, kind, value) select service_id, kind, value from import_bond
               on conflict do nothing"""
        )
    connection.execute(
        "insert into import_row (import_id, line, subscriber_id) select %s, line, subscriber_id from import_stage",
        (import_id,),
    )
