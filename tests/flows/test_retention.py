"""Stories of months past their retention: what goes, what stays because money needs it, what is written of it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, move_ended, record_of, utc

from sms_aaa.config import HistorySettings
from sms_aaa.db.audit import list_changes
from sms_aaa.db.engine import connect
from sms_aaa.db.history import bring_back
from sms_aaa.db.partitions import Month, create_ahead, list_months
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows.retention import Gone, Needed, drop_next
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.rules.lateness import PastLife
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

START = utc("2026-01-10 12:00:00")
STOP = utc("2026-01-10 13:00:00")
LATER = utc("2026-06-10 12:00:00")
pytestmark = pytest.mark.months(START, LATER)
KEEP = HistorySettings(sessions_days=60, deltas_days=60, hours_days=30, days_days=3000)
SECOND = timedelta(seconds=1)
JANUARY = Month(2026, 1)


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    """A session of January that has gone to the history, with usage that waits for the rater."""
    with connect(database_dsn, name="test") as connection:
        desk = make_desk(connection)
        nas_id = make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        create_ahead(connection, START)
        said = [Said(status="start", at=START), Said(status="stop", at=STOP, seconds=3600, octets_in=5, octets_out=7)]
        records = [record_of(one, nas_id=nas_id, offset=64 + 8 * number) for number, one in enumerate(said)]
        settle_accounting(connection, records, single_nas={nas_id: True})
        assert move_ended(connection, now=LATER) == 1
        create_ahead(connection, LATER)
        yield connection
        connection.rollback()


def drop_all(connection: Connection) -> tuple[list[Gone], list[Needed]]:
    gone: list[Gone] = []
    while isinstance(found := drop_next(connection, now=LATER, keep=KEEP), Gone):
        gone.append(found)
    return gone, found


def forget_queue(connection: Connection) -> None:
    connection.execute("delete from rating_queue")


def test_usage_that_waits_for_the_rater_is_never_dropped_nor_are_its_sessions(connection: Connection) -> None:
    gone, needed = drop_all(connection)
    assert Gone("usage_hour", JANUARY) in gone
    assert {one.month for one in gone if one.table in {"usage_delta", "session_history"}} == {Month(2025, 12)}
    assert needed == [
        Needed("usage_delta", JANUARY, "the rater has not rated all of it"),
        Needed("session_history", JANUARY, "usage of its sessions is kept"),
    ]
    assert connection.execute("select octets_in from usage_delta").fetchall() == [(5,)]
    assert JANUARY in list_months(connection, "session_history")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (
            """insert into suspense (session_id, seq, to_at, account_id, reason)
               select session_id, seq, to_at, account_id, 'no-tariff' from usage_delta""",
            "some of it is in suspense",
        ),
        (
            """insert into cycle (account_id, starts_at, ends_at)
               select account_id, '2026-01-01', '2026-02-01' from usage_delta""",
            "a billing cycle that it is of is open",
        ),
    ],
)
def test_usage_in_suspense_or_of_an_open_cycle_is_never_dropped(
    connection: Connection, statement: str, reason: str
) -> None:
    forget_queue(connection)
    connection.execute(statement)
    assert Needed("usage_delta", JANUARY, reason) in drop_all(connection)[1]


def test_what_nobody_needs_goes_with_an_audit_row_and_no_proof_misses_it(connection: Connection) -> None:
    forget_queue(connection)
    gone, needed = drop_all(connection)
    assert needed == []
    assert gone.index(Gone("usage_delta", JANUARY)) < gone.index(Gone("session_history", JANUARY))
    assert connection.execute("select count(*) from session_all").fetchone() == (0,)
    assert list_months(connection, "usage_day")[0] <= JANUARY
    assert list_months(connection, "session_history") == [Month(2026, month) for month in (5, 6, 7, 8)]
    changes = list_changes(connection, "partition", 202601)
    tables = {"usage_delta", "session_history", "port_block", "usage_hour"}
    assert {change.before["table"] for change in changes if change.before} == tables
    for law, violations in list_violations(connection):
        assert not violations, (law, violations)


def test_a_session_whose_first_usage_is_erased_breaks_no_law(connection: Connection) -> None:
    """Open since January: its usage of then is past retention, it is not."""
    nas = connection.execute("select id from nas").fetchone()
    assert nas is not None
    records = [
        Said(
            status="interim",
            at=at,
            session="long",
            seconds=int((at - START).total_seconds()),
            octets_in=octets,
            octets_out=0,
        )
        for at, octets in ((STOP, 10), (LATER, 30))
    ]
    settle_accounting(
        connection,
        [record_of(one, nas_id=nas[0], offset=1000 + number) for number, one in enumerate(records)],
        single_nas={nas[0]: True},
    )
    forget_queue(connection)
    drop_all(connection)
    assert connection.execute("select seq from usage_delta").fetchall() == [(2,)]
    connection.execute("delete from usage_delta where seq = 1")
    broken = [law for law, violations in list_violations(connection) if violations]
    assert broken == ["every delta of an account is queued, rated or in suspense"], "as the queue was forgotten here"


def test_port_blocks_stay_while_a_session_holds_some(connection: Connection) -> None:
    connection.execute(
        """insert into port_block (session_id, address, port_from, port_to, protocol, from_at, node, sequence,
                                   record_offset)
           select id, '203.0.113.9', 1024, 1535, 0, %s, 'node1', 1, 64 from session_all""",
        (START,),
    )
    history = connection.execute("select id, stopped_at from session_history").fetchall()
    bring_back(connection, [PastLife(id=history[0][0], state=State.LAPSED, started_at=START, updated_at=STOP,
                                     stopped_at=history[0][1])])  # fmt: skip
    gone, needed = drop_all(connection)
    assert Needed("port_block", JANUARY, "sessions that have not gone to the history hold some of them") in needed
    connection.execute("delete from session")
    gone, _ = drop_all(connection)
    assert Gone("port_block", JANUARY) in gone


def test_one_node_drops_at_a_time(connection: Connection, database_dsn: str) -> None:
    connection.commit()
    assert isinstance(drop_next(connection, now=LATER, keep=KEEP), Gone)
    with connect(database_dsn, name="second") as second:
        assert drop_next(second, now=LATER, keep=KEEP) == []
