"""Subscribers, their accounts, services, credentials and subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace
from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.db.terms import list_bound
from sms_aaa.rules.entitlement import Entitlement, IdentityKind, ServiceState, Terms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sms_aaa.db.engine import Connection


@dataclass(frozen=True, slots=True)
class SubscriberRow:
    """A subscriber with one of its services, as a listing shows it. A subscriber without a service has None there."""

    subscriber_id: int
    name: str
    full_name: str
    service_id: int | None
    identity_kind: int | None
    identity: str | None
    state: int | None
    state_reason: str | None
    plan: str | None
    plan_version: int | None
    account_id: int | None
    currency: str | None
    zone: str | None
    static_ipv4: str | None
    has_credential: bool
    valid_from: datetime | None
    valid_until: datetime | None
    learns_mac_since: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A service's credential. `form` is a code, radius/hashes.py has the words; `sealed` opens in flows/vault.py."""

    service_id: int
    identity: str
    form: int
    sealed: bytes
    changed_at: datetime


_QUERY = sql.SQL(
    """select b.id as subscriber_id, b.name, b.full_name, s.id as service_id, s.identity_kind, s.identity, s.state,
              s.state_reason, p.name as plan, v.version as plan_version, a.id as account_id, a.currency, a.zone,
              host(s.static_ipv4) as static_ipv4, c.service_id is not null as has_credential, s.valid_from,
              s.valid_until, s.learns_mac_since, b.created_at
       from subscriber b
       left join service s on s.subscriber_id = b.id and s.state <> 3
       left join subscription u on u.service_id = s.id and u.during @> now()
       left join plan_version v on v.id = u.plan_version_id
       left join plan p on p.id = v.plan_id
       left join assignment g on g.service_id = s.id and g.during @> now()
       left join account a on a.id = g.account_id
       left join credential c on c.service_id = s.id
       where b.removed_at is null {} order by b.name, s.id"""
)


def insert_subscriber(connection: Connection, *, name: str, full_name: str, email: str, phone: str) -> int:
    """The new id. UniqueViolation when the name is taken."""
    return _id(
        connection.execute(
            "insert into subscriber (name, full_name, email, phone) values (%s, %s, %s, %s) returning id",
            (name, full_name, email, phone),
        ).fetchone()
    )


def insert_account(connection: Connection, subscriber_id: int, *, currency: str, zone: str, anchor_day: int) -> int:
    return _id(
        connection.execute(
            "insert into account (subscriber_id, currency, zone, anchor_day) values (%s, %s, %s, %s) returning id",
            (subscriber_id, currency, zone, anchor_day),
        ).fetchone()
    )


def insert_service(
    connection: Connection,
    subscriber_id: int,
    *,
    kind: IdentityKind,
    identity: str,
    static_ipv4: str | None,
    account_id: int,
    plan_version_id: int,
) -> int:
    """An active service with its account and plan from now on.

    UniqueViolation when the identity or the address is in use.
    """
    service_id = _id(
        connection.execute(
            """insert into service (subscriber_id, identity_kind, identity, state, static_ipv4)
               values (%s, %s, %s, %s, %s) returning id""",
            (subscriber_id, int(kind), identity, int(ServiceState.ACTIVE), static_ipv4),
        ).fetchone()
    )
    connection.execute(
        "insert into service_state (service_id, state, reason, during) values (%s, %s, '', tstzrange(now(), null))",
        (service_id, int(ServiceState.ACTIVE)),
    )
    connection.execute(
        "insert into assignment (service_id, account_id, during) values (%s, %s, tstzrange(now(), null))",
        (service_id, account_id),
    )
    connection.execute(
        "insert into subscription (service_id, plan_version_id, during) values (%s, %s, tstzrange(now(), null))",
        (service_id, plan_version_id),
    )
    return service_id


def upsert_credential(connection: Connection, service_id: int, *, form: int, sealed: bytes) -> None:
    """`form`: radius/hashes.py has the words; the seal says it too, this one is for lists."""
    connection.execute(
        """insert into credential (service_id, form, sealed) values (%s, %s, %s)
           on conflict (service_id)
           do update set form = excluded.form, sealed = excluded.sealed, changed_at = now()""",
        (service_id, form, sealed),
    )


def list_credentials(connection: Connection, service_ids: list[int]) -> list[CredentialRow]:
    """The credentials of these services, by service; a service that has none is not among them."""
    with connection.cursor(row_factory=class_row(CredentialRow)) as cursor:
        query = """select c.service_id, s.identity, c.form, c.sealed, c.changed_at from credential c
                   join service s on s.id = c.service_id where c.service_id = any(%s) order by c.service_id"""
        return cursor.execute(query, (service_ids,)).fetchall()


def update_state(connection: Connection, service_id: int, state: ServiceState, reason: str) -> None:
    """The state from now on; the one before it keeps its dates."""
    connection.execute(
        "update service set state = %s, state_reason = %s where id = %s", (int(state), reason, service_id)
    )
    connection.execute(
        """update service_state set during = tstzrange(lower(during), clock_timestamp())
           where service_id = %s and upper_inf(during)""",
        (service_id,),
    )
    connection.execute(
        """insert into service_state (service_id, state, reason, during)
           select %(id)s, %(state)s, %(reason)s, tstzrange(max(upper(during)), null)
           from service_state where service_id = %(id)s""",
        {"id": service_id, "state": int(state), "reason": reason},
    )


def mark_removed(connection: Connection, subscriber_id: int) -> None:
    """The name is free again; the rows stay, because usage and money point at them."""
    connection.execute("update subscriber set removed_at = now() where id = %s", (subscriber_id,))
    connection.execute(
        """update subscription u set during = tstzrange(lower(u.during), clock_timestamp())
           from service s where s.id = u.service_id and s.subscriber_id = %s and u.during @> clock_timestamp()""",
        (subscriber_id,),
    )


def find_by_name(connection: Connection, name: str) -> list[SubscriberRow]:
    """The subscriber of this name, a row a service; [] when there is none."""
    with connection.cursor(row_factory=class_row(SubscriberRow)) as cursor:
        return cursor.execute(_QUERY.format(sql.SQL("and b.name = %s")), (name,)).fetchall()


def find_by_identity(connection: Connection, identities: list[str]) -> list[SubscriberRow]:
    """The subscribers whose living services have one of these identities; [] when there is none."""
    with connection.cursor(row_factory=class_row(SubscriberRow)) as cursor:
        return cursor.execute(_QUERY.format(sql.SQL("and s.identity = any(%s)")), (identities,)).fetchall()


@dataclass(frozen=True, slots=True)
class FormerSubscriber:
    """One that was removed."""

    name: str
    removed_at: datetime


def find_former(connection: Connection, identities: list[str]) -> FormerSubscriber | None:
    """Who went by one of these names, or had a service that did, and was removed; the latest."""
    with connection.cursor(row_factory=class_row(FormerSubscriber)) as cursor:
        return cursor.execute(
            """select name, removed_at from (
                   select name, removed_at from subscriber where removed_at is not null and name = any(%(names)s)
                   union all
                   select b.name, b.removed_at from service s join subscriber b on b.id = s.subscriber_id
                   where s.identity = any(%(names)s) and b.removed_at is not null
               ) former order by removed_at desc limit 1""",
            {"names": identities},
        ).fetchone()


def list_account_names(connection: Connection, account_ids: list[int]) -> dict[int, str]:
    """Whose accounts these are, by account id; those of removed subscribers too."""
    rows = connection.execute(
        "select a.id, b.name from account a join subscriber b on b.id = a.subscriber_id where a.id = any(%s)",
        (account_ids,),
    )
    return {int(row[0]): str(row[1]) for row in rows.fetchall()}


def list_subscribers(connection: Connection, *, limit: int) -> list[SubscriberRow]:
    with connection.cursor(row_factory=class_row(SubscriberRow)) as cursor:
        query = _QUERY.format(sql.SQL("")) + sql.SQL(" limit %s")
        return cursor.execute(query, (limit,)).fetchall()


_EntitlementRow = tuple[int, str, int, int, int, int, bytes, int, int | None, int | None]
_ENTITLEMENTS = sql.SQL(
    """select s.identity_kind, s.identity, s.id, coalesce(g.account_id, 0), coalesce(u.plan_version_id, 0), s.state,
              coalesce(c.sealed, ''::bytea), coalesce(s.static_ipv4 - '0.0.0.0'::inet, 0),
              extract(epoch from s.valid_from)::bigint, extract(epoch from s.valid_until)::bigint
       from service s
       left join assignment g on g.service_id = s.id and g.during @> now()
       left join subscription u on u.service_id = s.id and u.during @> now()
       left join credential c on c.service_id = s.id
       where s.state <> 3 and {}"""
)


def list_entitlements(connection: Connection, service_ids: list[int]) -> list[tuple[int, bytes, Entitlement]]:
    """(identity kind, identity, entitlement) of these services; one that has ended is not among them."""
    rows = connection.execute(_ENTITLEMENTS.format(sql.SQL("s.id = any(%s)")), (service_ids,)).fetchall()
    return _entitlements(connection, rows)


def list_service_ids(connection: Connection, identities: list[tuple[int, str]]) -> list[int]:
    """The living services with one of these (identity kind, identity)."""
    kinds, names = [kind for kind, _ in identities], [name for _, name in identities]
    rows = connection.execute(
        """select s.id from unnest(%s::smallint[], %s::text[]) as i (kind, identity)
           join service s on s.identity_kind = i.kind and s.identity = i.identity and s.state <> 3""",
        (kinds, names),
    )
    return [int(row[0]) for row in rows.fetchall()]


def stream_entitlements(connection: Connection, *, page: int) -> Iterator[list[tuple[int, bytes, Entitlement]]]:
    """Every service in the order of (identity kind, identity's octets), a page at a time: for a rebuild or a check.

    To be read to its end, or until the transaction ends.
    """
    query = _ENTITLEMENTS.format(sql.SQL('true order by s.identity_kind, s.identity collate "C"'))
    with connection.cursor("entitlements", binary=True) as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(page):
            yield _entitlements(connection, rows)


def stream_identities(connection: Connection, *, page: int) -> Iterator[list[tuple[int, int, bytes]]]:
    """(service id, identity kind, identity) of every service in the order of the ids, a page at a time."""
    with connection.cursor("identities", binary=True) as cursor:
        cursor.execute("select id, identity_kind, identity from service where state <> 3 order by id")
        while rows := cursor.fetchmany(page):
            yield [(row[0], row[1], row[2].encode()) for row in rows]


def count_services(connection: Connection) -> int:
    return _id(connection.execute("select count(*) from service where state <> 3").fetchone())


def _entitlements(connection: Connection, rows: list[_EntitlementRow]) -> list[tuple[int, bytes, Entitlement]]:
    bound = list_bound(connection, [row[2] for row in rows])
    found = []
    for kind, identity, service_id, account_id, plan_version_id, state, sealed, ipv4, since, until in rows:
        terms = bound.get(service_id)
        if since is not None or until is not None:
            terms = replace(terms or Terms(), valid_from=since or 0, valid_until=until or 0)
        entitlement = Entitlement(service_id, account_id, plan_version_id, state, bytes(sealed), ipv4, terms)
        found.append((kind, identity.encode(), entitlement))
    return found


def _id(row: tuple[int, ...] | None) -> int:
    assert row is not None
    return int(row[0])
