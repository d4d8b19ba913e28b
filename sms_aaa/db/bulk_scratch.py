"""A scratch schema for pricing by SQL what nobody stored: the tables of bulk rating, filled from a caller's slices.

All of it lives in one transaction that is never committed, so nothing of it is there afterwards, whatever happens.
"""

from __future__ import annotations

from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.binary import instants, int4s, int8s
from sms_aaa.db.bulk_pricing import insert_pieces_priced
from sms_aaa.db.bulk_rating import create_bulk_tables, insert_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.db.bulk_pricing import Features
    from sms_aaa.db.bulk_rating import BulkPart
    from sms_aaa.db.engine import Connection

_SCRATCH = """
create schema sms_aaa_scratch;
set local search_path to sms_aaa_scratch;
create aggregate int8_total(bigint) (sfunc = int8pl, stype = bigint, initcond = '0');
create table session_total (session_id bigint, subscription_id bigint, component_id integer, quantity bigint);
create temp table bulk_piece (
    session_id bigint, seq integer, account_id bigint, to_at timestamptz, slice integer, begin_at timestamptz,
    end_at timestamptz, owner_n bigint, cycle_no integer, slot integer, part_n integer, quantity bigint)
    on commit drop;
"""


class Piece(Struct, frozen=True, gc=False):
    """What a component counts of a slice: > 0. `position` is its place in the order, `place` a bit of covers."""

    position: int
    session_n: int
    meter_n: int
    place: int
    part_n: int
    quantity: int


class PriceTotal(Struct, frozen=True, gc=False):
    """What a component's total begins with."""

    meter_n: int
    part_n: int
    quantity: int


class PricedPiece(Struct, frozen=True, gc=False):
    """What a piece came to: `covers` has two numbers a bucket, what it covered and its overrun."""

    position: int
    part_n: int
    priced: int
    total_before: int
    numerator: Decimal
    covers: tuple[int, ...]


@contextmanager
def open_scratch(connection: Connection) -> Iterator[None]:
    """The scratch schema, until the end; then the transaction is rolled back."""
    try:
        connection.execute(_SCRATCH)
        yield
    finally:
        connection.rollback()


def price_pieces(
    connection: Connection,
    features: Features,
    parts: Sequence[BulkPart],
    totals: Sequence[PriceTotal],
    session_totals: Sequence[tuple[int, int, int]],
    buckets: Sequence[tuple[int, bool, bool]],
    pieces: Sequence[Piece],
) -> list[PricedPiece]:
    """Prices pieces in their order, by the statement of bulk rating.

    `session_totals`: (session, part, quantity). `buckets`: (left, stops, swallows) in the order of their use.
    """
    create_bulk_tables(connection)
    connection.execute("truncate bulk_piece, session_total")
    insert_parts(connection, parts)
    connection.execute(
        """insert into bulk_meter (n, owner_n, cycle_no, part_n, account_id, subscription_id, quantity)
           select n, n, 0, part_n, 0, 0, quantity from unnest(%s, %s, %s) w(n, part_n, quantity)""",
        (
            int8s([total.meter_n for total in totals]),
            int4s([total.part_n for total in totals]),
            int8s([total.quantity for total in totals]),
        ),
    )
    connection.execute(
        "insert into session_total select session_id, 0, part_n, quantity from unnest(%s, %s, %s) "
        "w(session_id, part_n, quantity)",
        (int8s([one[0] for one in session_totals]), int4s([one[1] for one in session_totals]),
         int8s([one[2] for one in session_totals])),
    )  # fmt: skip
    if buckets:
        _insert_purse(connection, buckets)
    _insert_pieces(connection, pieces)
    insert_pieces_priced(connection, features)
    covers = "".join(f", cov{number}, over{number}" for number in range(1, len(buckets) + 1))
    rows = connection.execute(
        f"select seq, part_n, priced, total_before, numerator{covers} from bulk_priced".encode(),  # noqa: S608 - numbers
        binary=True,
    ).fetchall()
    return [PricedPiece(row[0], row[1], row[2], row[3], row[4], tuple(row[5:])) for row in rows]


def _insert_purse(connection: Connection, buckets: Sequence[tuple[int, bool, bool]]) -> None:
    numbers = range(1, len(buckets) + 1)
    names = "".join(f", left{number}, from{number}, terms{number}" for number in numbers)
    marks = "".join(f", %s, '-infinity', {number}" for number in numbers)
    flags = [sum(1 << number for number, one in zip(numbers, buckets, strict=True) if one[at]) for at in (1, 2)]
    connection.execute(
        f"insert into bulk_purse (account_id, cycle_no, stops, swallows{names}) values (0, 0, %s, %s{marks})".encode(),  # noqa: S608 - numbers
        [*flags, *(left for left, _, _ in buckets)],
    )


def _insert_pieces(connection: Connection, pieces: Sequence[Piece]) -> None:
    """An instant for each place in the order: what the time of a slice decides is in its `place`."""
    connection.execute(
        """insert into bulk_piece
           select session_n, position, 0, at, 0, at, at, meter_n, 0, place, part_n, quantity
           from unnest(%s, %s, %s, %s, %s, %s, %s) w(session_n, position, at, meter_n, place, part_n, quantity)""",
        (
            int8s([piece.session_n for piece in pieces]),
            int4s([piece.position for piece in pieces]),
            instants([piece.position for piece in pieces]),
            int8s([piece.meter_n for piece in pieces]),
            int4s([piece.place for piece in pieces]),
            int4s([piece.part_n for piece in pieces]),
            int8s([piece.quantity for piece in pieces]),
        ),
    )
