"""What is final in the money's tables is refused by the database itself, whoever asks: corrections are new rows."""

from __future__ import annotations

import psycopg
import pytest

from sms_aaa.db.engine import connect

CHANGES = {"update": "update {table} set {column} = {column}", "delete": "delete from {table}"}

BOOKS = """
set local session_replication_role = replica;
insert into cycle (id, account_id, starts_at, ends_at, state, closed_at) overriding system value
  values (1, 1, '2026-10-01', '2026-11-01', 2, now()), (2, 1, '2026-11-01', '2026-12-01', 1, null);
insert into rated_usage (account_id, session_id, seq, component_id, slice, generation, to_at, cycle_id, subscription_id,
                         run_id, quantity, total_before, numerator)
  select 1, 1, id, 1, 0, 1, starts_at, id, 1, 1, 1, 0, 0 from cycle;
insert into usage_total (account_id, cycle_id, subscription_id, component_id, quantity, numerator, posted_minor)
  select 1, id, 1, 1, 1, 0, 0 from cycle;
insert into charge (account_id, cycle_id, subscription_id, component_id, amount_minor, from_at, until_at)
  values (1, 1, 1, 1, 1, '2026-10-01', '2026-11-01');
insert into adjustment (account_id, cycle_id, subscription_id, component_id, amount_minor, reason)
  values (1, 1, 1, 1, 1, 'late usage');
insert into bucket_entry (bucket_id, kind, quantity) values (1, 'grant', 1);
insert into entry (account_id, cycle_id, subscription_id, component_id, debit, credit, amount_minor, currency)
  values (1, 1, 1, 1, 'cash', 'tax', 1, 'EUR');
set local session_replication_role = origin;
"""


@pytest.fixture
def books(database_dsn):
    with connect(database_dsn, name="test") as connection:
        connection.execute(BOOKS)
        yield connection
        connection.rollback()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("table", "column"),
    [("charge", "amount_minor"), ("adjustment", "reason"), ("bucket_entry", "kind"), ("entry", "debit"),
     ("rated_usage", "quantity")],
)  # fmt: skip
def test_what_is_final_is_not_changed(books, table, column, change):
    with pytest.raises(psycopg.errors.RestrictViolation, match="a correction is a new row"):
        books.execute(CHANGES[change].format(table=table, column=column))


def test_rated_usage_of_an_open_cycle_may_still_be_thrown_away(books):
    assert books.execute("delete from rated_usage where cycle_id = 2").rowcount == 1


def test_the_total_of_a_closed_cycle_moves_by_late_usage_but_is_never_gone(books):
    assert books.execute("update usage_total set quantity = 2 where cycle_id = 1").rowcount == 1
    assert books.execute("delete from usage_total where cycle_id = 2").rowcount == 1
    with pytest.raises(psycopg.errors.RestrictViolation):
        books.execute("delete from usage_total where cycle_id = 1")
