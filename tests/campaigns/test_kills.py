"""The campaign of kills in small (the long one runs by name, see kills.py), and what its auditor must see."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from kills import PASSWORD, audit, run, victims
from load import Ledger
from make import make_desk, make_nas, make_plan, make_subscriber

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.records import AccountingRecord
from sms_aaa.rules.session import Place


def test_nothing_that_was_answered_is_lost_or_doubled_by_kills(tmp_path, database_dsn):
    chosen = ["accounting-1", "settler", "supervisor"]  # PostgreSQL's turn is in the long one, and in test_faults
    outcome = run(tmp_path, chosen, seed=1, records_per_second=800, dsn=database_dsn)
    assert outcome.verdict.complaints == []
    assert outcome.kills.total() == 3
    assert outcome.ledger.records_answered > 500


def test_a_seed_gives_the_same_victims_again_and_each_kind_has_its_turn():
    assert victims(7, 200) == victims(7, 200) != victims(8, 200)
    assert len(set(victims(7, 200))) == 11


@pytest.fixture
def books(database_dsn):
    """Three sessions of a ledger, answered and settled to their end."""
    ledger = Ledger(9, seed=1, records_per_second=0)
    with connect(database_dsn, name="test") as connection:
        desk = make_desk(connection)
        nas_id = make_nas(desk)
        make_plan(desk, sessions=0)
        for number in range(3):
            make_subscriber(desk, name=f"user{number}", password=PASSWORD)
        create_ahead(connection, datetime.now(UTC))
        received_ns = int(datetime.now(UTC).timestamp()) * 10**9
        for number in range(3):
            session = ledger.new_session()
            ledger.sessions.append(session)
            session.sent = session.answered = len(session.counters)
            records = [
                (Place("node1", 1, 1000 * number + step),
                 AccountingRecord(received_ns, nas_id, "127.0.0.1", 1, ledger.datagram(1, session, step, delay=0)))
                for step in range(session.sent)
            ]  # fmt: skip
            settle_accounting(connection, records, single_nas={nas_id: True})
        connection.execute("delete from rating_queue")
        yield connection, ledger
    ledger.close()


def kinds(books) -> set[str]:
    connection, ledger = books
    return {complaint.partition(":")[0] for complaint in audit(connection, ledger).complaints}


NOT_RATED = {"deltas not rated once", "the books do not add up",
             "every delta of an account is queued, rated or in suspense"}  # fmt: skip


def test_the_auditor_is_content_with_what_was_settled(books):
    assert kinds(books) == NOT_RATED  # nobody rates here


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        ("update session set octets_in = octets_in - 1 where id = 1", "loss"),
        ("update session set octets_in = octets_in + 1 where id = 1", "double"),
        ("update session set state = 1, stopped_at = null where id = 1", "loss"),
        ("update session set acct_session_id = 'another' where id = 1", "phantom"),
        (("insert into anomaly (session_id, nas_id, kind, event_at, octets_in, octets_out, node, sequence,"
         " record_offset) values (1, 1, 'counter-reset', now(), 0, 0, 'node1', 1, 1)"), "anomalies"),
        ("delete from usage_delta where session_id = 1 and seq = 1", "deltas that are not their session's octets"),
        (("insert into quarantine (node, stream, sequence, record_offset, reason, raw)"
         " values ('node1', 1, 1, 1, 'short', '')"), "quarantine"),
    ],
)  # fmt: skip
def test_the_auditor_sees(books, spoil, kind):
    books[0].execute(spoil)
    assert kind in kinds(books)


def test_the_auditor_sees_a_session_that_is_not_there_at_all(books):
    ledger = books[1]
    lost = ledger.new_session()
    lost.sent = lost.answered = 1
    ledger.sessions.append(lost)
    assert "loss" in kinds(books)
