"""`sessions`, `usage`, `explain`, `reconcile`: from packets in a real journal to amounts, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from make import Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.db.positions import insert_quarantine

GB = 10**9
NOW = datetime.now(UTC).replace(microsecond=0)
BEGAN = NOW - timedelta(minutes=10)
pytestmark = pytest.mark.months(BEGAN, NOW)


@pytest.fixture
def told(stocked, node):
    """Alice is online: 45 GB in five minutes, 21 GB and 123 octets in the next."""
    node.account(
        Said(status="start", at=BEGAN, seconds=0, octets_in=0, octets_out=0),
        Said(status="interim", at=BEGAN + timedelta(minutes=5), seconds=300, octets_in=5 * GB, octets_out=40 * GB),
        Said(status="interim", at=NOW, seconds=600, octets_in=6 * GB, octets_out=60 * GB + 123),
    )
    return stocked


def test_live_sessions_are_listed_and_ended_ones_on_request(told, node):
    [live] = told.type("sessions", "--json").json()
    assert (live["state"], live["subscriber"], live["nas"], live["octets_up"]) == ("open", "alice", "bng1", 6 * GB)
    assert told.type("sessions").lines[1].endswith("00:10:00    6.00 GB     60.00 GB  -")
    assert told.type("sessions", "alice", "--csv").csv()[0]["octets_down"] == str(60 * GB + 123)
    assert told.type("sessions", "--nas", "bng1", "--json").json() == [live]
    assert told.type("nas", "show", "bng1", "--json").json()["live_sessions"] == 1
    node.account(Said(status="stop", at=NOW, seconds=600, octets_in=6 * GB, octets_out=60 * GB + 123))
    assert told.done("sessions") == "no session\n"
    [ended] = told.type("sessions", "--all", "--json").json()
    assert (ended["state"], ended["terminate_cause"]) == ("closed", "User-Request")
    assert told.done("sessions", "cam") == "no session\n"
    assert told.type("sessions", "nobody").code == Exit.NOT_FOUND
    assert told.type("sessions", "--nas", "nosuch").code == Exit.NOT_FOUND


def test_the_sessions_of_a_user_name_that_nobody_has_are_found(stocked, node):
    node.account(Said(status="start", at=BEGAN, seconds=0, username=b"stranger"))
    node.account(Said(status="stop", at=NOW, seconds=600, username=b"stranger", octets_in=5, octets_out=6))
    assert stocked.done("sessions", "stranger") == "no session\n"
    [row] = stocked.type("sessions", "stranger", "--all", "--json").json()
    assert (row["subscriber"], row["note"]) == (None, "excluded: unknown-service")


def test_usage_is_exact_and_posted(told):
    lines = told.type("usage", "alice").lines
    assert lines[1] == "cycle TIME to TIME"
    assert lines[2:] == [
        "component    kind       plan      quantity  exact                posted",
        "monthly-fee  recurring  home-100  -         29.90 EUR         29.90 EUR",
        "data         usage      home-100  66.00 GB  8.0000000615 EUR   8.00 EUR",
        "total 37.90 EUR",
    ]
    [cycle] = told.type("usage", "alice", "--json").json()
    assert (cycle["currency"], cycle["total_minor"]) == ("EUR", 3790)
    assert cycle["components"][1]["quantity"] == 66 * GB + 123
    data = told.type("usage", "alice", "--csv").csv()[1]
    assert (data["exact"], data["posted_minor"]) == ("8.0000000615", "800")
    assert told.type("subscriber", "show", "alice", "--json").json()["usage"] == [cycle]
    assert "total 37.90 EUR" in told.done("subscriber", "show", "alice")


def test_a_cycle_is_named_by_a_date_or_counted_back(told, node):
    last_month = NOW - timedelta(days=32)
    node.account(
        Said(status="start", at=last_month, seconds=0, session="old"),
        Said(status="stop", at=last_month + timedelta(hours=1), seconds=3600, session="old", octets_in=1, octets_out=2),
    )
    [this] = told.type("usage", "alice", "--cycle", "0", "--json").json()
    [before] = told.type("usage", "alice", "--cycle", "-1", "--json").json()
    assert before["starts_at"] < this["starts_at"]
    assert told.type("usage", "alice", "--at", f"{last_month:%Y-%m-%dT%H:%M}Z", "--json").json() == [before]
    assert told.type("usage", "alice", "--at", f"{NOW:%Y-%m-%d}", "--json").json() == [this]
    assert told.type("usage", "alice", "--at", "1999-01-01").code == Exit.NOT_FOUND
    assert told.type("usage", "alice", "--cycle", "-9").code == Exit.NOT_FOUND
    assert told.type("usage", "alice", "--cycle", "-1", "--at", "1999-01-01").code == Exit.INVALID
    assert told.type("usage", "alice", "--at", "yesterday").code == Exit.INVALID
    assert told.type("usage", "nobody").code == Exit.NOT_FOUND


def test_an_amount_is_explained_down_to_its_tiers(told):
    lines = told.type("explain", "alice", "--component", "data").lines
    assert lines[1:] == [
        "cycle TIME to TIME: 37.90 EUR",
        "  data: 8.00 EUR posted, 8.0000000615 EUR exact, 66000000123 octets by home-100",
        "    TIME to TIME: 45000000000 octets after 0: 0.00 EUR",
        "      tier 0 B up to 50.00 GB: 45000000000 octets at 0.00 EUR per GB: 0.00 EUR",
        "      session 1 (s-1 on bng1) delta 1: up 0 -> 5000000000, down 0 -> 40000000000",
        "    TIME to TIME: 21000000123 octets after 45000000000: 8.0000000615 EUR",
        "      tier 0 B up to 50.00 GB: 5000000000 octets at 0.00 EUR per GB: 0.00 EUR",
        "      tier 50.00 GB and beyond: 16000000123 octets at 0.50 EUR per GB: 8.0000000615 EUR",
        "      session 1 (s-1 on bng1) delta 2: up 5000000000 -> 6000000000, down 40000000000 -> 60000000123",
    ]


def test_the_same_tree_adds_up_as_json(told):
    [cycle] = told.type("explain", "alice", "--json").json()
    assert (cycle["is_whole"], cycle["adds_up"], cycle["total_minor"]) == (True, True, 3790)
    fee, data = cycle["components"]
    assert (fee["posted_minor"], fee["slices"]) == (2990, [])
    assert sum(part["quantity"] for part in data["slices"]) == data["quantity"] == 66 * GB + 123
    assert sum(part["numerator"] for part in data["slices"]) == data["numerator"]
    for part in data["slices"]:
        assert sum(tier["numerator"] for tier in part["tiers"]) == part["numerator"]
    rows = told.type("explain", "alice", "--csv").csv()
    assert [(row["seq"], row["quantity"]) for row in rows] == [("1", str(45 * GB)), ("2", str(21 * GB + 123))]


def test_the_packets_behind_a_reading_are_shown_while_the_journal_has_them(told, node):
    shown = told.done("explain", "alice", "--packets")
    assert "          Acct-Output-Gigawords = 13" in shown
    assert "          Acct-Status-Type = Start" in shown
    place, packet = re.search(r"after: (\d+:\d+) of node1, from .*\n((?: {10}.*\n)+)", shown).groups()
    assert set(packet.split("\n")) <= {
        f"        {line}" for line in told.done("journal", "show", place).split("\n")
    } | {""}
    [cycle] = told.type("explain", "alice", "--packets", "--json").json()
    after = cycle["components"][1]["slices"][0]["delta"]["after"]
    assert {"name": "Acct-Session-Time", "value": "300"} in after["packet"]["attributes"]
    assert "that node's journal has it" in told.done("explain", "alice", "--packets", SMS_AAA_NODE_NAME="node2")
    for file in (node.folder / "journal" / "accounting").iterdir():
        file.unlink()
    assert "its journal file is gone, its retention is over" in told.done("explain", "alice", "--packets")


def test_an_explanation_can_be_narrowed_and_says_that_it_is(told):
    [cycle] = told.type("explain", "alice", "--limit", "1", "--json").json()
    assert (cycle["is_whole"], cycle["adds_up"], len(cycle["components"][1]["slices"])) == (False, None, 1)
    assert "there is more" in told.done("explain", "alice", "--session", "1")
    assert told.type("explain", "alice", "--session", "77", "--json").json()[0]["components"][1]["slices"] == []
    answer = told.type("explain", "alice", "--component", "voice")
    assert answer.code == Exit.NOT_FOUND
    assert "known are data, monthly-fee" in answer.err
    assert told.type("explain", "nobody").code == Exit.NOT_FOUND


def test_a_delta_that_crosses_the_edge_of_a_cycle_says_where_it_is_cut(stocked, node):
    [shown] = stocked.type("subscriber", "show", "cam", "--json").json()["services"]
    assert shown["zone"] == "UTC"
    edge = NOW.replace(day=1, hour=0, minute=0, second=0)
    device = Said(status="start", at=edge - timedelta(minutes=15), seconds=0, username=b"001122334455")
    node.account(
        device,
        Said(
            status="stop", at=edge + timedelta(minutes=5), seconds=1200, username=b"001122334455", octets_in=0,
            octets_out=1000,
        ),
    )  # fmt: skip
    day = f"{edge:%Y-%m-%d}"
    [cycle] = stocked.type("explain", "cam", "--at", day, "--json").json()
    [part] = cycle["components"][1]["slices"]
    assert (part["is_cut"], part["quantity"], part["from_at"]) == (True, 250, cycle["cycle"]["starts_at"])
    assert "      cut at the edge of the cycle out of " in stocked.done("explain", "cam", "--at", day)


def test_usage_that_waits_is_named(stocked, node):
    node.account(
        Said(status="start", at=BEGAN, seconds=0),
        Said(status="interim", at=NOW, seconds=600, octets_in=7, octets_out=8),
        rate=False,
    )
    assert stocked.type("usage", "alice").code == Exit.NOT_FOUND
    found = stocked.type("reconcile", "--json").json()
    assert found["totals"]["up"] == {"counted": 7, "rated": 0, "waiting": 7, "suspense": 0}
    assert found["holds"]


def test_counted_is_rated_is_posted(told, node):
    node.account(
        Said(status="start", at=BEGAN, seconds=0, username=b"stranger", session="x"),
        Said(status="stop", at=NOW, seconds=600, username=b"stranger", session="x", octets_in=5, octets_out=6),
    )
    lines = told.type("reconcile").lines
    assert "down: counted 60000000123 = rated 60000000123 + waiting 0 + suspense 0 octets" in lines
    assert "unknown-service        5 B          6 B" in lines
    assert lines[-1] == "everything adds up"
    found = told.type("reconcile", "--json").json()
    assert found["excluded"] == [{"reason": "unknown-service", "octets_up": 5, "octets_down": 6}]
    assert all(law["holds"] for law in found["laws"])
    assert sum(balance["balance_minor"] for balance in found["ledger"]) == 0
    assert [row["subscriber"] for row in told.type("reconcile", "--csv").csv()] == ["alice", "alice"]
    assert "and 1 more accounts (--limit)" in told.done("reconcile", "--limit", "0")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("update session set octets_in = octets_in + 1", "a session's totals are the sum of its deltas: session 1"),
        (
            "update rated_usage set quantity = quantity + 1 where seq = 2",
            "count all octets, once: session 1 delta 2",
        ),
        ("update usage_total set numerator = numerator + 1", "a total is the sum of its rated usage"),
        ("update usage_total set posted_minor = posted_minor + 1", "the ledger has what the totals and charges say"),
        ("delete from rated_usage where seq = 2", "counted 60000000123 is not rated 40000000000"),
        ("delete from usage_total", "a total is the sum of its rated usage"),
        ("delete from charge", "the ledger has what the totals and charges say"),
    ],
)
def test_whatever_does_not_add_up_is_found(told, database_dsn, damage, said):
    with connect(database_dsn, name="test") as connection:
        connection.execute("set local session_replication_role = replica")  # charges are final
        connection.execute(damage)
    answer = told.type("reconcile")
    assert answer.code == Exit.DIFFERENT
    assert said in answer.out
    assert answer.out.endswith("something is off: see above\n")
    assert not told.type("reconcile", "--json").json()["holds"]


def test_records_in_quarantine_are_shown_beside_the_proof(told, database_dsn):
    with connect(database_dsn, name="test") as connection:
        insert_quarantine(connection, "node1", 1, 9, 8, reason="no-acct-session-id", raw=b"")
    lines = told.done("reconcile").splitlines()
    assert "no-acct-session-id        1" in lines
    assert lines[-1] == "everything adds up; 1 record is in quarantine, not settled"
    with connect(database_dsn, name="test") as connection:
        insert_quarantine(connection, "node1", 1, 9, 16, reason="no-acct-session-id", raw=b"")
        connection.execute("set local session_replication_role = replica")
        connection.execute("delete from charge")
    answer = told.type("reconcile")
    assert answer.code == Exit.DIFFERENT
    assert answer.out.endswith("something is off: see above; 2 records are in quarantine, not settled\n")
    found = told.type("reconcile", "--json").json()
    assert found["quarantine"] == [{"reason": "no-acct-session-id", "records": 2}]


def test_nothing_at_all_adds_up_too(terminal):
    assert "no account has usage yet" in terminal.done("reconcile")
