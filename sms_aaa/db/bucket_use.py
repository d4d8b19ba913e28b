"""What rating reads of buckets, locked, and what it writes of their use. Quantities are whole numbers of base units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import int8s, load_ints, numerics
from sms_aaa.rules.instants import instant_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection


class BucketRow(Struct, frozen=True, gc=False):
    """A bucket; `terms` is rules.buckets.BucketTerms as a JSON text. Instants as db/binary.py has them."""

    id: int
    account_id: int
    terms: str
    from_us: int
    until_us: int | None
    created_us: int
    granted: int
    used: int
    overrun: int
    is_closed: bool


def lock_buckets(
    connection: Connection, account_ids: Iterable[int], *, since_us: int | None, also_ids: Iterable[int] = ()
) -> list[BucketRow]:
    """Buckets of these accounts that nobody closed yet, locked in the order of their ids.

    `since_us`: closed ones too, that were valid at an instant or later; and those of `also_ids`.
    """
    with connection.cursor(binary=True) as cursor:
        load_ints(cursor)
        rows = cursor.execute(
            """select id, account_id, terms::text, from_at, until_at, created_at, granted::text, used::text,
                      overrun::text, closed_at is not null
               from bucket where account_id = any(%s) and (closed_at is null or until_at >= %s) or id = any(%s)
               order by id for no key update""",
            (int8s(sorted(account_ids)), None if since_us is None else instant_of(since_us), int8s(sorted(also_ids))),
        ).fetchall()
    return [BucketRow(*[*row[:6], *map(int, row[6:9]), row[9]]) for row in rows]


class SessionUse(Struct, frozen=True, gc=False):
    """Usage of a session that a bucket covered, where its terms count by session."""

    bucket_id: int
    session_id: int
    covered: int


def list_session_uses(
    connection: Connection, bucket_ids: Sequence[int], session_ids: Iterable[int]
) -> list[SessionUse]:
    rows = connection.execute(
        """select bucket_id, session_id, covered from bucket_session
           where bucket_id = any(%s) and session_id = any(%s)""",
        (int8s(bucket_ids), int8s(sorted(session_ids))),
        binary=True,
    ).fetchall()
    return [SessionUse(*row) for row in rows]


class MemberUse(Struct, frozen=True, gc=False):
    """What a member took of a shared bucket that bounds each member's share."""

    bucket_id: int
    account_id: int
    taken: int


def list_member_uses(connection: Connection, bucket_ids: Sequence[int]) -> list[MemberUse]:
    rows = connection.execute(
        "select bucket_id, account_id, taken::text from bucket_member where bucket_id = any(%s)", (int8s(bucket_ids),)
    ).fetchall()
    return [MemberUse(row[0], row[1], int(row[2])) for row in rows]


class Held(Struct, frozen=True, gc=False):
    """What is reserved of a bucket for a session, which a door named as it liked."""

    bucket_id: int
    session: str
    quantity: int


def list_held(connection: Connection, bucket_ids: Sequence[int]) -> list[Held]:
    rows = connection.execute(
        "select bucket_id, session, quantity::text from reservation where bucket_id = any(%s)", (int8s(bucket_ids),)
    ).fetchall()
    return [Held(row[0], row[1], int(row[2])) for row in rows]


class BucketUse(Struct, frozen=True, gc=False):
    """What a bucket has come to, and by how much that is more."""

    bucket_id: int
    used: int
    used_more: int
    overrun: int
    overrun_more: int
    released: int


def update_buckets(connection: Connection, uses: Sequence[BucketUse], *, kind: str, run_id: int) -> None:
    """Stores what they have come to, each difference with an entry: `kind` is use or adjust."""
    ids = int8s([use.bucket_id for use in uses])
    connection.execute(
        """update bucket b set used = w.used, overrun = w.overrun, reserved = b.reserved - w.released
           from unnest(%s, %s, %s, %s) w(id, used, overrun, released) where b.id = w.id""",
        (
            ids,
            numerics([use.used for use in uses]),
            numerics([use.overrun for use in uses]),
            numerics([use.released for use in uses]),
        ),
    )
    connection.execute(
        """insert into bucket_entry (bucket_id, kind, quantity, run_id)
           select w.bucket_id, e.kind, e.quantity, %s
           from unnest(%s, %s, %s, %s) w(bucket_id, used_more, overrun_more, released)
           cross join lateral (values (%s, used_more), ('overrun', overrun_more), ('release', released))
             e(kind, quantity)
           where e.quantity <> 0""",
        (
            run_id,
            ids,
            numerics([use.used_more for use in uses]),
            numerics([use.overrun_more for use in uses]),
            numerics([use.released for use in uses]),
            kind,
        ),
    )


def update_held(connection: Connection, held: Sequence[Held]) -> None:
    """What is left of these reservations; one of which nothing is, is deleted."""
    connection.cursor().executemany(
        "update reservation set quantity = %s where bucket_id = %s and session = %s",
        [(one.quantity, one.bucket_id, one.session) for one in held if one.quantity],
    )
    connection.cursor().executemany(
        "delete from reservation where bucket_id = %s and session = %s",
        [(one.bucket_id, one.session) for one in held if not one.quantity],
    )


def upsert_session_uses(connection: Connection, uses: Sequence[SessionUse]) -> None:
    connection.execute(
        """insert into bucket_session (bucket_id, session_id, covered) select * from unnest(%s, %s, %s)
           on conflict (bucket_id, session_id) do update set covered = excluded.covered""",
        (
            int8s([use.bucket_id for use in uses]),
            int8s([use.session_id for use in uses]),
            int8s([use.covered for use in uses]),
        ),
    )


def upsert_member_uses(connection: Connection, uses: Sequence[MemberUse]) -> None:
    connection.execute(
        """insert into bucket_member (bucket_id, account_id, taken) select * from unnest(%s, %s, %s)
           on conflict (bucket_id, account_id) do update set taken = excluded.taken""",
        (
            int8s([use.bucket_id for use in uses]),
            int8s([use.account_id for use in uses]),
            numerics([use.taken for use in uses]),
        ),
    )
