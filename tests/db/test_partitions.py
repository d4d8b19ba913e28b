"""Months: made ahead and for rows that nobody foresaw, and nobody waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from make import utc

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import PARTITIONED, Month, create_ahead, drop, list_months, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

NOW = utc("2026-11-28 12:00:00")


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as connection:
        yield connection
        connection.rollback()


def insert_hour(connection: Connection, at: str, octets: int = 1) -> None:
    connection.execute("insert into usage_hour values (1, 1, %s, %s, 0, 60)", (at, octets))


def where_hours_are(connection: Connection) -> dict[str, int]:
    rows = connection.execute("select tableoid::regclass::text, sum(octets_in) from usage_hour group by 1").fetchall()
    return {str(name): int(octets) for name, octets in rows}


def test_every_parted_table_of_the_schema_is_kept(connection: Connection) -> None:
    rows = connection.execute("select relname from pg_class where relkind = 'p' order by 1").fetchall()
    assert sorted(parted.table for parted in PARTITIONED) == [row[0] for row in rows]


def test_the_history_has_the_columns_of_a_session_in_their_order(connection: Connection) -> None:
    columns = [
        connection.execute(
            """select attname, atttypid from pg_attribute
               where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum""",
            (table,),
        ).fetchall()
        for table in ("session", "session_history")
    ]
    assert columns[0] == columns[1]


def test_a_partition_has_the_indexes_of_its_table_and_room_for_updates(connection: Connection) -> None:
    create_ahead(connection, NOW)
    rows = connection.execute(
        """select p.relname, count(*) from pg_class p join pg_index i on i.indrelid = p.oid
           where p.relname in ('session_history', 'session_history_202611') group by 1"""
    ).fetchall()
    assert len({count for _, count in rows}) == 1
    options = connection.execute("select reloptions from pg_class where relname = 'usage_hour_202611'").fetchone()
    assert options == (["fillfactor=80"],)


def test_rows_of_a_month_that_nobody_foresaw_are_moved_into_one(connection: Connection) -> None:
    create_ahead(connection, NOW)
    for at in ("2026-06-30 23:00:00+00", "2026-07-01 00:00:00+00", "2026-11-28 00:00:00+00", "1970-01-01 00:00:00+00"):
        insert_hour(connection, at)
    assert where_hours_are(connection) == {"usage_hour_default": 3, "usage_hour_202611": 1}
    assert sweep(connection, NOW) == ["usage_hour_202606", "usage_hour_202607"]
    assert where_hours_are(connection) == {
        "usage_hour_default": 1,
        "usage_hour_202606": 1,
        "usage_hour_202607": 1,
        "usage_hour_202611": 1,
    }
    assert sweep(connection, NOW) == []


def test_who_is_in_the_way_is_not_waited_for_and_the_next_time_does_it(
    connection: Connection, database_dsn: str
) -> None:
    create_ahead(connection, NOW)
    insert_hour(connection, "2026-06-30 23:00:00+00")
    connection.commit()
    with connect(database_dsn, name="reader") as reader:
        reader.execute("select count(*) from usage_hour")
        assert sweep(connection, NOW) == []
        assert not drop(connection, "usage_hour", Month(2026, 10))
        assert create_ahead(connection, utc("2027-01-01 00:00:00")) == 2 * len(PARTITIONED) - 2
        reader.rollback()
    assert sweep(connection, NOW) == ["usage_hour_202606"]
    assert drop(connection, "usage_hour", Month(2026, 10))
    assert Month(2026, 10) not in list_months(connection, "usage_hour")


def test_a_writer_of_other_months_goes_on_while_one_is_made(connection: Connection, database_dsn: str) -> None:
    create_ahead(connection, NOW)
    connection.commit()
    with connect(database_dsn, name="writer") as writer:
        insert_hour(writer, "2026-11-28 00:00:00+00")
        assert create_ahead(connection, utc("2027-01-01 00:00:00")) == 2 * len(PARTITIONED)
        insert_hour(writer, "2026-11-28 01:00:00+00")
        writer.commit()
