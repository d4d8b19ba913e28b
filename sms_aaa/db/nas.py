"""NASes and their secrets (sealed; only flows/vault.py opens them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import class_row

from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.rules.secret import SecretStrength


@dataclass(frozen=True, slots=True)
class NasRow:
    id: int
    name: str
    prefix: str
    dialect: str
    message_authenticator: str
    coa_port: int
    zone: str | None
    created_at: datetime
    observed_from: datetime
    signs_since: datetime | None
    secret_id: int
    secret_since: datetime
    secret_strength: str | None
    is_rotating: bool


_QUERY = sql.SQL(
    """select n.id, n.name, n.prefix::text, n.dialect, n.message_authenticator, n.coa_port, n.zone, n.created_at,
              n.observed_from, n.signs_since, s.id as secret_id, s.created_at as secret_since,
              s.strength as secret_strength,
              exists (select from nas_secret o where o.nas_id = n.id and o.retired_at is null and o.id < s.id)
                  as is_rotating
       from nas n
       cross join lateral (select id, created_at, strength from nas_secret
                           where nas_id = n.id and retired_at is null order by id desc limit 1) s
       where n.removed_at is null"""
)
"""With the newest secret; two are valid while it is rotating."""


def insert_nas(
    connection: Connection,
    *,
    name: str,
    prefix: str,
    dialect: Dialect,
    message_authenticator: MessageAuthenticatorPolicy,
    coa_port: int,
) -> int:
    """The NAS's id. UniqueViolation when the name or the prefix is taken.

    One that was removed and comes back at the same prefix is the same NAS: its sessions, which may still run, go on
    under the id that they have, and are not counted from zero under another.
    """
    row = connection.execute(
        """update nas set name = %s, dialect = %s, message_authenticator = %s, coa_port = %s, removed_at = null
           where id = (select max(id) from nas where prefix = %s and removed_at is not null)
             and not exists (select from nas where prefix = %s and removed_at is null)
           returning id""",
        (name, dialect.value, message_authenticator.value, coa_port, prefix, prefix),
    ).fetchone()
    if row is not None:
        begin_observation(connection, int(row[0]))
        return int(row[0])
    row = connection.execute(
        """insert into nas (name, prefix, dialect, message_authenticator, coa_port)
           values (%s, %s, %s, %s, %s) returning id""",
        (name, prefix, dialect.value, message_authenticator.value, coa_port),
    ).fetchone()
    assert row is not None
    return int(row[0])


def update_nas(
    connection: Connection,
    nas_id: int,
    *,
    dialect: Dialect,
    message_authenticator: MessageAuthenticatorPolicy,
    coa_port: int,
    prefix: str,
    zone: str | None,
) -> None:
    connection.execute(
        """update nas set dialect = %s, message_authenticator = %s, coa_port = %s, prefix = %s, zone = %s
           where id = %s""",
        (dialect.value, message_authenticator.value, coa_port, prefix, zone, nas_id),
    )


def mark_removed(connection: Connection, nas_id: int) -> None:
    """Sessions point at the row, so it stays; its name and prefix are free again."""
    connection.execute("update nas set removed_at = now() where id = %s", (nas_id,))


def begin_observation(connection: Connection, nas_id: int) -> None:
    """What it sent until now is forgotten: neither proof that it signs, nor evidence against requiring it."""
    connection.execute("delete from nas_evidence where nas_id = %s", (nas_id,))
    connection.execute(
        "update nas set observed_from = date_trunc('second', now()) + interval '1 second', signs_since = null "
        "where id = %s",
        (nas_id,),
    )


def replace_secret(connection: Connection, nas_id: int, sealed: bytes, strength: SecretStrength) -> None:
    """The one valid secret from now on."""
    connection.execute("update nas_secret set retired_at = now() where nas_id = %s and retired_at is null", (nas_id,))
    insert_secret(connection, nas_id, sealed, strength)


def insert_secret(connection: Connection, nas_id: int, sealed: bytes, strength: SecretStrength) -> None:
    """Valid from now on, beside what is."""
    connection.execute(
        "insert into nas_secret (nas_id, sealed, strength) values (%s, %s, %s)", (nas_id, sealed, strength.label)
    )


def get_sealed(connection: Connection, secret_id: int) -> bytes:
    row = connection.execute("select sealed from nas_secret where id = %s", (secret_id,)).fetchone()
    assert row is not None
    return bytes(row[0])


def retire_older_secrets(connection: Connection, nas_id: int, newest_id: int) -> None:
    connection.execute(
        "update nas_secret set retired_at = now() where nas_id = %s and retired_at is null and id < %s",
        (nas_id, newest_id),
    )


def retire_secret(connection: Connection, secret_id: int) -> None:
    connection.execute("update nas_secret set retired_at = now() where id = %s", (secret_id,))


def find_nas(connection: Connection, name: str) -> NasRow | None:
    with connection.cursor(row_factory=class_row(NasRow)) as cursor:
        return cursor.execute(sql.SQL("{} and n.name = %s").format(_QUERY), (name,)).fetchone()


def lock_nas(connection: Connection, nas_id: int) -> None:
    """Until the transaction's end nobody else changes it or its secrets."""
    connection.execute("select from nas where id = %s for update", (nas_id,))


def list_nas(connection: Connection) -> list[NasRow]:
    with connection.cursor(row_factory=class_row(NasRow)) as cursor:
        return cursor.execute(sql.SQL("{} order by n.name").format(_QUERY)).fetchall()


def list_node_nas(connection: Connection, ids: list[int] | None) -> list[NodeNas]:
    """What the node needs of the NASes with these ids (None: of all); a removed one is not among them."""
    rows = connection.execute(
        """select n.id, n.name, n.prefix::text, n.dialect, n.message_authenticator, n.coa_port,
                  array_agg(s.sealed order by s.id desc), max(s.id),
                  (array_agg(s.strength order by s.id desc))[1] <> 'strong',
                  extract(epoch from n.observed_from)::bigint, extract(epoch from n.signs_since)::bigint
           from nas n join nas_secret s on s.nas_id = n.id and s.retired_at is null
           where n.removed_at is null and (%(ids)s::int[] is null or n.id = any(%(ids)s::int[]))
           group by n.id""",
        {"ids": ids},
    ).fetchall()
    return [
        NodeNas(
            nas_id=row[0],
            name=row[1],
            prefix=row[2],
            dialect=Dialect(row[3]),
            message_authenticator=MessageAuthenticatorPolicy(row[4]),
            coa_port=row[5],
            secrets=[bytes(sealed) for sealed in row[6]],
            secret_id=row[7],
            is_weak=bool(row[8]),
            observed_from=row[9],
            signs_since=row[10] or 0,
        )
        for row in rows
    ]


def list_nas_names(connection: Connection) -> dict[int, str]:
    """Name by id, the removed ones too: old sessions point at them."""
    return {int(row[0]): str(row[1]) for row in connection.execute("select id, name from nas").fetchall()}


def list_single(connection: Connection) -> dict[int, bool]:
    """Whether each NAS, the removed ones too, is known by one address."""
    rows = connection.execute(
        "select id, masklen(prefix) = case family(prefix) when 4 then 32 else 128 end from nas"
    ).fetchall()
    return {int(row[0]): bool(row[1]) for row in rows}
