"""Stories of books that somebody spoiled: each must be named, by the law it breaks, and sound books by none."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, rate_all, record_of, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.positions import insert_quarantine
from sms_aaa.flows.reconciling import FEE_LAW, LAW_ROWS_MAX, PRICE_LAW, SIDES_LAW, Reconciliation, reconcile
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.flows.shelf import PlanShelf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

GB = 10**9
NOON = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(NOON)
RATED_LAW = "a total is the sum of its rated usage"
COUNTED_LAW = "of each rated delta the components count all octets, once"
LEDGER_LAW = "the ledger has what the totals and charges say"


class Books:
    """Alice's 3 GB, 1 GB of them included and 0.50 EUR for each beyond, and 29.90 EUR a month, rated and posted."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        desk = make_desk(connection)
        self.nas_id = make_nas(desk)
        make_plan(desk, included="1 GB")
        make_subscriber(desk)
        # The story plays in the autumn of 2026, whenever it is told.
        connection.execute("update subscription set during = tstzrange('2026-09-01', null)")
        connection.execute("update assignment set during = tstzrange('2026-09-01', null)")
        create_ahead(connection, NOON)
        self.use(Said(status="interim", at=NOON, seconds=600, octets_in=GB, octets_out=2 * GB))

    def use(self, *said: Said) -> None:
        """Settled and rated."""
        records = [record_of(one, nas_id=self.nas_id, offset=64) for one in said]
        settle_accounting(self.connection, records, single_nas={self.nas_id: True})
        rate_all(self.connection, PlanShelf(), now=NOON)

    def spoil(self, *statements: str) -> None:
        # What is final can be changed only by somebody who may switch triggers off.
        self.connection.execute("set local session_replication_role = replica")
        for statement in statements:
            self.connection.execute(statement)

    def reconcile(self) -> Reconciliation:
        return reconcile(self.connection, PlanShelf())

    def broken(self) -> dict[str, list[str]]:
        """What was found, by the law that it breaks; the proof as a whole must say the same."""
        found = self.reconcile()
        broken = {law.text: [row.found for row in law.violations] for law in found.laws if law.violations}
        assert found.holds == (not broken)
        return broken


@pytest.fixture
def books(database_dsn: str) -> Iterator[Books]:
    with connect(database_dsn, name="test") as connection:
        yield Books(connection)
        connection.rollback()


ELSEWHERE = "insert into cycle (account_id, starts_at, ends_at) select id, '2030-01-01', '2030-02-01' from account"


def entry(*, cycle: str = "cycle_id", debit: str = "unbilled-receivable", credit: str = "revenue:data") -> str:
    """A statement that posts 10.00 EUR to the place of the one total there is, or to another cycle."""
    columns = "account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor, currency"
    values = f"account_id, {cycle}, subscription_id, component_id, '{debit}', '{credit}', 1000, 'EUR'"
    return f"insert into entry ({columns}) select {values} from usage_total"


def test_sound_books_break_no_law(books: Books) -> None:
    assert books.broken() == {}


def test_an_entry_where_nothing_was_used_or_charged_is_found(books: Books) -> None:
    books.spoil(ELSEWHERE, entry(cycle="(select max(id) from cycle)"))
    assert books.broken() == {LEDGER_LAW: ["sub-ledger nothing, ledger 1000"]}


def test_entries_where_nothing_was_used_are_found_though_they_cancel_out(books: Books) -> None:
    last = "(select max(id) from cycle)"
    back = entry(cycle=last, debit="revenue:data", credit="unbilled-receivable")
    books.spoil(ELSEWHERE, entry(cycle=last), back)
    assert books.broken() == {LEDGER_LAW: ["sub-ledger nothing, ledger 0"]}


def test_a_wrong_price_is_found_though_the_total_agrees_with_the_rated_usage(books: Books) -> None:
    books.spoil(
        "update rated_usage set numerator = 2 * numerator",
        "update usage_total set numerator = 2 * numerator",
    )
    [found] = books.broken()[PRICE_LAW]
    assert books.broken().keys() == {PRICE_LAW}
    # 1.00 EUR, in picounits and per GB.
    assert found == f"exact {2 * 10**21}, posted 100; by the tariff {10**21}, 100"


def test_a_wrong_amount_is_found_though_the_ledger_has_it_too(books: Books) -> None:
    books.spoil("update usage_total set posted_minor = posted_minor + 1000", entry())
    assert books.broken() == {PRICE_LAW: [f"exact {10**21}, posted 1100; by the tariff {10**21}, 100"]}


def test_a_total_by_a_component_of_another_plan_is_found(books: Books) -> None:
    make_plan(make_desk(books.connection), name="other", included="1 GB")
    other = "select max(id) from component where name = 'data'"
    books.spoil(*(f"update {table} set component_id = ({other})" for table in ("usage_total", "rated_usage")))
    books.spoil(f"update entry set component_id = ({other}) where credit = 'revenue:data'")
    assert books.broken() == {PRICE_LAW: ["its subscription's plan has no such usage component"]}


def test_usage_rated_by_a_fee_is_named_not_stumbled_over(books: Books) -> None:
    fee = "select id from component where kind = 'recurring'"
    books.spoil(*(f"update {table} set component_id = ({fee})" for table in ("usage_total", "rated_usage")))
    found = books.reconcile()
    laws = {law.text: [row.found for row in law.violations] for law in found.laws}
    assert laws[COUNTED_LAW] == [f"0 octets rated, the delta has {GB} up and {2 * GB} down"]
    [cycle] = found.cycles
    assert (cycle.counted, cycle.priced, cycle.balances) == (3 * GB, 0, False)
    assert not found.holds


@pytest.mark.parametrize("quantity", [GB, 0])
def test_rated_usage_without_a_total_is_found(books: Books, quantity: int) -> None:
    books.spoil(f"update rated_usage set quantity = {quantity}, numerator = 0", "delete from usage_total")
    found = {law.text: [row.found for row in law.violations] for law in books.reconcile().laws}
    assert found[RATED_LAW] == [f"total nothing, rated {quantity} and 0 covered (0)"]
    assert found[FEE_LAW] == ["charged 2990, owed nothing"]


def test_a_charge_that_is_gone_is_found_with_its_entries_left(books: Books) -> None:
    books.spoil("delete from charge")
    assert books.broken() == {
        LEDGER_LAW: ["sub-ledger nothing, ledger 2990"],
        FEE_LAW: ["charged nothing, owed 2990"],
    }


def test_a_charge_that_is_gone_is_found_with_its_entries_gone_as_well(books: Books) -> None:
    books.spoil("delete from charge", "delete from entry where credit = 'revenue:monthly-fee'")
    assert books.broken() == {FEE_LAW: ["charged nothing, owed 2990"]}


def test_a_charge_of_another_amount_is_found_though_the_ledger_has_it_too(books: Books) -> None:
    books.spoil(
        "update charge set amount_minor = 1",
        "update entry set amount_minor = 1 where credit = 'revenue:monthly-fee'",
    )
    assert books.broken() == {FEE_LAW: ["charged 1, owed 2990"]}


def test_no_fee_is_missed_in_a_cycle_that_the_subscription_does_not_touch(books: Books) -> None:
    make_subscriber(make_desk(books.connection), name="bob")
    books.spoil("update subscription set during = tstzrange('2026-09-01', '2026-10-20') where id = 2")
    books.use(Said(status="interim", at=NOON, username=b"bob", session="b", seconds=60, octets_in=0, octets_out=GB))
    assert books.connection.execute("select count(*) from usage_total").fetchone() == (2,)
    assert books.broken() == {}


def test_a_law_shows_no_more_rows_than_its_bound(books: Books) -> None:
    months = [utc(f"{2027 + number // 12}-{number % 12 + 1:02}-15 12:00:00") for number in range(LAW_ROWS_MAX + 5)]
    books.use(*(Said(status="stop", at=at, session=f"{at}", seconds=60, octets_in=0, octets_out=GB) for at in months))
    assert books.connection.execute("select count(*) from charge").fetchone() == (len(months) + 1,)
    assert books.broken() == {}
    books.spoil("delete from charge", "update usage_total set posted_minor = 7")
    found = {text: len(rows) for text, rows in books.broken().items()}
    assert found == {LEDGER_LAW: LAW_ROWS_MAX, PRICE_LAW: LAW_ROWS_MAX, FEE_LAW: LAW_ROWS_MAX}


ROUTE_LAW = "every delta of an account is queued, rated or in suspense"
LIVE_LAW = "a session is live or in the history, and every delta has one"
HOURS_LAW = "usage by day is the sum of its hours"
DAYS_LAW = "usage by day is the sum of the deltas"
DEFERRED_LAW = "what is deferred is what fees beyond their cycle have not earned yet"
PLACE_LAW = "what an account pays stands in a cycle of that account, for a subscription that exists"
SUSPENDED = """insert into suspense (session_id, seq, to_at, account_id, reason)
               select session_id, seq, to_at, account_id, 'x' from usage_delta"""


@pytest.mark.parametrize(
    ("spoil", "broken"),
    [
        ("update session set stopped_at = updated_at; insert into session_history select * from session",
         {LIVE_LAW, "a session's totals are the sum of its deltas"}),
        ("update usage_hour set octets_out = octets_out + 1", {HOURS_LAW}),
        ("delete from usage_hour", {HOURS_LAW}),
        ("delete from usage_day", {HOURS_LAW, DAYS_LAW}),
        ("update session set nas_id = 77", {"every session's NAS, service and account are there"}),
        ("update session set service_id = 77", {"every session's NAS, service and account are there"}),
        ("update usage_delta set seq = 3 where seq = 2", {"a session's deltas are numbered without a gap", ROUTE_LAW}),
        (SUSPENDED, {"no delta is both rated and waiting"}),
        ("""insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor,
              currency)
            select account_id, cycle_id, subscription_id, component_id, 'deferred-revenue', 'revenue:monthly-fee', 7,
              'EUR' from charge""", {DEFERRED_LAW}),
        (f"""{ELSEWHERE}; insert into adjustment (account_id, cycle_id, subscription_id, component_id, charge_id,
               amount_minor, reason)
             select h.account_id, c.id, h.subscription_id, h.component_id, h.id, 7, 'x'
             from charge h, (select max(id) as id from cycle) c""",
         {"a charge that an adjustment corrects stands in the same cycle", LEDGER_LAW}),
        ("update entry set debit = 'cash' where credit = 'revenue:monthly-fee'", {SIDES_LAW, LEDGER_LAW}),
        ("update entry set credit = 'revenue:nobody' where credit = 'revenue:data'", {SIDES_LAW}),
        ("delete from cycle", {PLACE_LAW, LEDGER_LAW, FEE_LAW}),
    ],
)  # fmt: skip
def test_what_was_spoiled_is_named_by_its_laws(books: Books, spoil: str, broken: set[str]) -> None:
    books.use(Said(status="interim", at=NOON + timedelta(hours=1), seconds=4200, octets_in=2 * GB, octets_out=4 * GB))
    assert books.broken() == {}
    books.spoil(spoil)
    assert set(books.broken()) == broken


def test_records_in_quarantine_are_counted_by_reason_and_break_no_law(books: Books) -> None:
    for offset, reason in ((8, "no-acct-session-id"), (16, "no-acct-session-id"), (24, "too-short"), (32, "mended")):
        insert_quarantine(books.connection, "node1", 1, 1, offset, reason=reason, raw=b"")
    books.spoil("update quarantine set resolved_at = now(), resolution = 'settled' where reason = 'mended'")
    found = books.reconcile()
    assert [(row.reason, row.records) for row in found.quarantined] == [("no-acct-session-id", 2), ("too-short", 1)]
    assert found.holds
