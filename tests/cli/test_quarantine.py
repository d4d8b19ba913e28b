"""`quarantine list|show|retry|dismiss` as typed: every record that was put aside has a way out, once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from make import Said, packet_of, record_of

from sms_aaa.cli.exits import Exit
from sms_aaa.db import positions
from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.node.records import DecisionBatch, DecisionRecord, pack_accounting, pack_decisions
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute

BEGAN = datetime(2026, 11, 20, 18, tzinfo=UTC)
pytestmark = pytest.mark.months(BEGAN)
STOP = Said(status="stop", at=BEGAN, seconds=600, octets_in=1_000, octets_out=7_000)


def settle(node, *records, single: dict[int, bool] | None = None) -> None:
    with connect(node.dsn, name="test") as connection:
        create_ahead(connection, BEGAN)
        settle_accounting(connection, records, single_nas={node.nas_id: True} if single is None else single)


@pytest.fixture
def aside(node):
    """Two of a NAS that was not there, one without a session."""
    first, second = (record_of(STOP, nas_id=node.nas_id, offset=offset) for offset in (64, 128))
    settle(node, first, second, single={})
    settle(node, record_of(Said(status="start", at=BEGAN, session=""), nas_id=node.nas_id, offset=256))
    return node


def query(node, statement: str) -> list[tuple]:
    with connect(node.dsn, name="test") as connection:
        return connection.execute(statement).fetchall()


def test_what_waits_is_listed_with_its_reason_and_what_helps(stocked, aside):
    rows = stocked.type("quarantine", "list", "--json").json()
    assert [(row["reason"], row["place"], row["username"], row["session"]) for row in rows] == [
        ("no-acct-session-id", "1:256", "alice", None),
        ("unknown-nas", "1:128", "alice", "s-1"),
        ("unknown-nas", "1:64", "alice", "s-1"),
    ]
    out = stocked.done("quarantine", "list", "--reason", "unknown-nas")
    assert out.count("unknown-nas") == 3
    assert "no-acct-session-id: 1; the NAS sent no Acct-Session-Id: mend the NAS, then dismiss it" in out
    assert stocked.type("quarantine", "list", "--node", "node9", "--csv").csv() == []


def test_nothing_waits(stocked, node):
    assert stocked.done("quarantine", "list") == "nothing waits\n"
    assert stocked.done("quarantine", "retry", "--all") == "nothing waits\n"


def test_a_record_is_shown_whole_and_without_secrets(stocked, aside):
    secret = attribute(dictionary.MIKROTIK_WIRELESS_PSK, b"a-MARKED-psk")
    settle(aside, record_of(Said(status="start", at=BEGAN, session="", extra=secret), nas_id=1, offset=512))
    answer = stocked.type("quarantine", "show", "4", "--raw")
    assert "  Mikrotik-Wireless-PSK = ***" in answer.out
    assert "  Acct-Status-Type = Start" in answer.out
    assert "MARKED" not in answer.out
    assert b"a-MARKED-psk".hex() not in answer.out
    [one] = stocked.type("quarantine", "show", "1", "--raw", "--json").json()["records"]
    assert bytes.fromhex(one["octets"]) == packet_of(STOP)
    assert stocked.type("quarantine", "show", "99").code == Exit.NOT_FOUND


def test_a_retry_settles_once_and_says_who_did_it(stocked, aside):
    assert stocked.type("quarantine", "retry", "1", typed="n\n").code == Exit.ABORTED
    answer = stocked.type("quarantine", "retry", "--reason", "unknown-nas", "--yes", "--ticket", "INC-1", "--json")
    assert answer.code == 0
    assert [(one["id"], one["outcome"], one["deltas"]) for one in answer.json()] == [
        (1, "settled", 1),
        (2, "settled", 0),
    ]
    assert query(aside, "select count(*), sum(octets_in), sum(octets_out) from usage_delta") == [(1, 1_000, 7_000)]
    assert query(aside, "select after_sequence, after_offset from usage_delta") == [(1, 64)]
    assert query(aside, "select id, resolution, tries from quarantine where resolved_at is not null order by id") == [
        (1, "settled", 1), (2, "settled", 1)]  # fmt: skip
    assert query(aside, "select action, object_id, ticket from audit where object_kind = 'quarantine' order by id") == [
        ("settled", 1, "INC-1"), ("settled", 2, "INC-1")]  # fmt: skip
    again = stocked.type("quarantine", "retry", "1", "--yes", "--json").json()
    assert [one["outcome"] for one in again] == ["resolved"]
    assert query(aside, "select count(*) from usage_delta") == [(1,)]


def test_what_fails_again_stays_with_its_new_reason(stocked, aside):
    with connect(aside.dsn, name="test") as connection:
        connection.execute("alter table session add constraint refused check (username <> 'alice')")
    answer = stocked.type("quarantine", "retry", "--all", "--yes", "--json")
    assert answer.code == Exit.DIFFERENT
    assert [(one["outcome"], one["reason"]) for one in answer.json()] == [
        ("failed", "refused: CheckViolation"), ("failed", "refused: CheckViolation"), ("failed", "no-acct-session-id"),
    ]  # fmt: skip
    assert query(aside, "select reason, tries, resolved_at from quarantine order by id")[0] == (
        "refused: CheckViolation", 1, None)  # fmt: skip
    with connect(aside.dsn, name="test") as connection:
        connection.execute("alter table session drop constraint refused")
    assert stocked.type("quarantine", "retry", "--reason", "refused: CheckViolation", "--yes").code == 0
    assert query(aside, "select count(*), sum(octets_in) from usage_delta") == [(1, 1_000)]


def test_a_record_that_a_settler_meets_again_meanwhile_is_put_aside_once(stocked, aside):
    settle(aside, record_of(STOP, nas_id=aside.nas_id, offset=64), single={})
    assert query(aside, "select count(*) from quarantine") == [(3,)]
    stocked.done("quarantine", "dismiss", "1", "--because", "a test", "--yes")
    settle(aside, record_of(STOP, nas_id=aside.nas_id, offset=64), single={})
    assert query(aside, "select resolution, note from quarantine where id = 1") == [("dismissed", "a test")]


def test_a_dismissed_record_stays_on_record_with_who_and_why(stocked, aside):
    assert stocked.type("quarantine", "dismiss", "3", "--yes").code == Exit.INVALID
    out = stocked.done("quarantine", "dismiss", "3", "--because", "a test of the vendor", "--yes")
    assert "dismissed" in out
    assert [row["id"] for row in stocked.type("quarantine", "list", "--json").json()] == [2, 1]
    [row] = [row for row in stocked.type("quarantine", "list", "--all", "--json").json() if row["id"] == 3]
    assert (row["resolution"], row["note"]) == ("dismissed", "a test of the vendor")
    assert row["resolved_by"]
    assert query(aside, "select after ->> 'note' from audit where action = 'dismissed'") == [("a test of the vendor",)]


def test_octets_that_are_no_record_cannot_be_settled_but_what_was_restored_can(stocked, node):
    node.account(STOP, rate=False)
    [sequence] = [int(path.name[:20]) for path in (node.folder / "journal" / "accounting").iterdir()]
    with connect(node.dsn, name="test") as connection:
        connection.execute("truncate usage_delta, session cascade")
        positions.insert_quarantine(connection, "node1", 1, sequence, 64, reason="damaged: checksum", raw=b"\0\0")
        positions.insert_quarantine(connection, "node2", 1, sequence, 64, reason="damaged: checksum", raw=b"\0\0")
    answer = stocked.type("quarantine", "retry", "--all", "--yes", "--json")
    assert answer.code == Exit.DIFFERENT
    assert [one["outcome"] for one in answer.json()] == ["settled", "unreadable"]
    assert "restore its file" in answer.err
    assert query(node, "select sum(octets_in) from usage_delta") == [(1_000,)]


def test_decisions_have_the_same_way_out(stocked, node):
    batch = DecisionBatch(
        int(BEGAN.timestamp()) * 10**9, 9, [DecisionRecord(node.nas_id, 1, 1, 13, 1, b"alice", b"", b"", b"", 0, 1)]
    )
    [payload] = pack_decisions(batch)
    with connect(node.dsn, name="test") as connection:
        positions.insert_quarantine(connection, "node1", 2, 5, 64, reason="version", raw=payload)
    assert stocked.type("quarantine", "show", "1").out.count("bad-password") == 1
    stocked.done("quarantine", "retry", "1", "--yes")
    assert query(node, "select username, sequence, record_offset from decision") == [("alice", 5, 64)]


def test_which_records_has_to_be_said_in_one_way(stocked, aside):
    for words in ((), ("1", "--all"), ("1", "--reason", "unknown-nas")):
        assert stocked.type("quarantine", "retry", *words).code == Exit.INVALID
    assert stocked.type("quarantine", "retry", "99", "--yes").code == Exit.NOT_FOUND


def test_a_record_is_kept_whole_so_that_any_node_can_settle_it(aside):
    [(raw,)] = query(aside, "select raw from quarantine where id = 1")
    assert bytes(raw) == pack_accounting(record_of(STOP, nas_id=aside.nas_id, offset=64)[1])
