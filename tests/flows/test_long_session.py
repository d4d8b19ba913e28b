"""A session of 70 days: over three months of its account's zone, a change of the clocks, and a counter reset.

Usage runs evenly, so what every local day and month has to show is plain arithmetic: octets a second times its seconds.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, record_of

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows.settling import settle_accounting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

BERLIN = ZoneInfo("Europe/Berlin")
BEGIN = datetime(2026, 9, 12, 17, 23, 11, tzinfo=UTC)
DAYS = 70  # to 21 November: the clocks of Berlin go back on 25 October
SECONDS = DAYS * 86_400
INTERIM_SECONDS = 3_907  # full hours and midnights lie within
UP, DOWN = 1_300, 9_100  # octets a second: 79 GB in all, so Gigawords are there
RESET_AT = 5_000_000 // INTERIM_SECONDS * INTERIM_SECONDS  # right after a reading, 58 days on


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as connection:
        yield connection
        connection.rollback()


def said_at(seconds: int, status: str = "interim") -> Said:
    counted = seconds if seconds <= RESET_AT else seconds - RESET_AT
    return Said(
        status=status,
        at=BEGIN + timedelta(seconds=seconds),
        seconds=seconds,
        octets_in=UP * counted,
        octets_out=DOWN * counted,
    )


def true_seconds_by_day() -> dict[date, int]:
    """The session's seconds in each day of Berlin, counted minute by minute and, at its ends, second by second."""
    days: Counter[date] = Counter()
    moment, end = BEGIN, BEGIN + timedelta(seconds=SECONDS)
    while moment < end:
        step = min(60 - moment.second, int((end - moment).total_seconds()))
        days[moment.astimezone(BERLIN).date()] += step
        moment += timedelta(seconds=step)
    return dict(days)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_seventy_days_are_right_by_month_by_day_and_in_total_in_any_order(
    connection: Connection, seed: int | None
) -> None:
    desk = make_desk(connection)
    nas_id = make_nas(desk)
    make_plan(desk)
    make_subscriber(desk, zone="Europe/Berlin")
    create_ahead(connection, BEGIN)
    said = [Said(status="start", at=BEGIN), *map(said_at, range(INTERIM_SECONDS, SECONDS, INTERIM_SECONDS))]
    said.append(said_at(SECONDS, "stop"))
    for number, batch in enumerate(batches(said, seed)):
        records = [
            record_of(one, nas_id=nas_id, offset=64 + number * 10_000 + at, received_at=one.at + timedelta(seconds=2))
            for at, one in enumerate(batch)
        ]
        settle_accounting(connection, records, single_nas={nas_id: True})

    query = "select life, run, seconds, octets_in, octets_out, state from session"
    assert connection.execute(query).fetchall() == [(1, 2, SECONDS, UP * SECONDS, DOWN * SECONDS, 2)]
    kinds = {row[0] for row in connection.execute("select kind from anomaly").fetchall()}
    assert "counter-reset" in kinds
    assert kinds == {"counter-reset"} if seed is None else kinds <= {"counter-reset", "late-reading"}

    by_day = connection.execute("select day, octets_in, octets_out, seconds from usage_day order by day").fetchall()
    expected = true_seconds_by_day()
    assert {row[0]: row[1:3] for row in by_day} == {
        day: (UP * seconds, DOWN * seconds) for day, seconds in expected.items()
    }
    assert expected[date(2026, 10, 25)] == 25 * 3600
    by_month = connection.execute(
        "select to_char(day, 'YYYY-MM'), sum(octets_out)::bigint from usage_day group by 1 order by 1"
    ).fetchall()
    months: Counter[str] = Counter()
    for day, seconds in expected.items():
        months[f"{day:%Y-%m}"] += DOWN * seconds
    assert by_month == sorted(months.items())
    assert connection.execute("select sum(octets_in)::bigint, sum(octets_out)::bigint from usage_hour").fetchone() == (
        UP * SECONDS,
        DOWN * SECONDS,
    )
    for law, violations in list_violations(connection):
        assert not violations, (law, violations)


def batches(said: list[Said], seed: int | None) -> list[list[Said]]:
    """Of 300. Without a seed as they were said; else a tenth never come, some come late or twice, one after weeks."""
    if seed is not None:
        random = Random(seed)
        arrived = [
            (at + random.choice((0, 0, 0, 3, 9)), one)
            for at, one in enumerate(said)
            if one.seconds in {None, RESET_AT, SECONDS} or random.random() > 0.1
        ]
        arrived += [(at + random.randint(1, 40), one) for at, one in random.sample(arrived, 100)]
        arrived += [(at + 1_200, one) for at, one in arrived if at == 100]
        said = [one for _, one in sorted(arrived, key=lambda pair: pair[0])]
    return [said[start : start + 300] for start in range(0, len(said), 300)]
