"""The rater as a process of its own, killed and doubled: what it leaves behind is what one undisturbed run leaves."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from daemon import wait_until
from make import make_desk, make_plan, make_subscriber, make_usage
from rater_process import Node

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.rating_queue import queue_length
from sms_aaa.db.usage import insert_deltas, insert_queue
from sms_aaa.flows.reconciling import reconcile
from sms_aaa.flows.shelf import PlanShelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.db.engine import Connection

ACCOUNTS = 16
DELTAS = 4_000
OCTETS = 7_000_000
POISON = 1234


class Books:
    """ACCOUNTS on a metered plan, each of whose deltas costs something, and DELTAS of theirs in the queue."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.autocommit = True
        now = datetime.now(UTC)
        with connection.transaction():
            desk = make_desk(connection)
            make_plan(desk, included="10 GB")
            services = [make_subscriber(desk, name=f"user{number}") for number in range(ACCOUNTS)]
            connection.execute("update subscription set during = tstzrange(now() - interval '1 year', null)")
            connection.execute("update cycle_due set due_at = now() - interval '1 year'")
            create_ahead(connection, now)
        accounts = dict(connection.execute("select service_id, account_id from assignment").fetchall())
        deltas = []
        for number in range(DELTAS):
            service = services[number % ACCOUNTS]
            at = now - timedelta(days=number % 40)
            deltas.append(make_usage(number, accounts[service], service, at=at, octets_out=OCTETS + number))
        with connection.transaction():
            insert_deltas(connection, deltas)
            insert_queue(connection, deltas)

    def slow_down(self) -> None:
        """Half of a batch is stored for a while, and the other half is not."""
        self.connection.execute(
            """create function dawdle() returns trigger language plpgsql as
                 'begin perform pg_sleep(0.05); return null; end';
               create trigger dawdle after insert on rated_usage for each statement execute function dawdle()"""
        )

    def waiting(self) -> int:
        return queue_length(self.connection)[0]

    def wait_until_rated(self) -> None:
        wait_until(lambda: not self.waiting(), "an empty queue")

    def assert_whole(self) -> None:
        """Every delta rated once or in suspense, every total priced and posted as its octets cost at once."""
        with self.connection.transaction():
            found = reconcile(self.connection, PlanShelf())
        # The settler did not make these deltas: they have no sessions and no rollups, for which rating does not ask.
        settlers = ("a session is live", "usage by day")
        broken = [law for law in found.laws if law.violations and not law.text.startswith(settlers)]
        assert not broken
        assert all(account.balances for account in found.accounts)
        assert found.ledger_differences == {}
        assert all(cycle.balances for cycle in found.cycles)
        rated = self.connection.execute("select count(*) from rated_usage where slice = 0").fetchone()
        suspended = self.connection.execute("select count(*) from suspense").fetchone()
        assert rated is not None
        assert suspended is not None
        assert rated[0] + suspended[0] == DELTAS


@pytest.fixture
def books(database_dsn: str) -> Iterator[Books]:
    with connect(database_dsn, name="test") as connection:
        yield Books(connection)


@pytest.fixture
def nodes(database_dsn: str, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    pair = (Node(tmp_path / "one", database_dsn), Node(tmp_path / "two", database_dsn))
    try:
        yield pair
    finally:
        for node in pair:
            node.kill()


def test_a_rater_that_is_killed_again_and_again_leaves_the_books_as_one_that_was_not(
    books: Books, nodes: tuple[Node, Node]
) -> None:
    books.slow_down()
    dice = random.Random(5)
    before = books.waiting()
    for _ in range(3):
        nodes[0].start()
        wait_until(lambda before=before: books.waiting() < before, "some rating")
        time.sleep(dice.uniform(0, 0.06))
        nodes[0].kill()
        before = books.waiting()
        assert before, "it was killed before it was done"
    nodes[0].start()
    books.wait_until_rated()
    books.assert_whole()


def test_two_raters_share_the_shards_and_neither_sees_half_of_the_other(books: Books, nodes: tuple[Node, Node]) -> None:
    books.slow_down()
    for node in nodes:
        node.start()
    books.wait_until_rated()
    books.assert_whole()
    assert books.connection.execute("select count(*) from suspense").fetchone() == (0,)


def test_of_thousands_of_deltas_the_one_that_cannot_be_rated_is_found(books: Books, nodes: tuple[Node, Node]) -> None:
    statement = f"alter table rated_usage add constraint refused check (quantity <> {OCTETS + POISON})"
    books.connection.execute(statement)
    nodes[0].start()
    books.wait_until_rated()
    books.assert_whole()
    suspended = books.connection.execute("select session_id, reason from suspense").fetchall()
    assert suspended == [(POISON + 1, "refused: CheckViolation")]
