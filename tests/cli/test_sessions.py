"""`sessions` as a NOC asks it: narrowed down, sorted, counted, watched; and with the database away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from make import SECRET, Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute

MB = 10**6
pytestmark = pytest.mark.months(datetime.now(UTC))


FOUND = {
    "": ["s-3", "s-2", "s-1"],
    "--sort octets": ["s-1", "s-3", "s-2"],
    "--sort seconds --limit 1": ["s-1"],
    "--sort rate --limit 1": ["s-1"],
    "--sort heard --limit 2": ["s-1", "s-3"],
    "--all": ["s-3", "s-2", "s-1", "s-0"],
    "--state closed": ["s-0"],
    "--state closed --state lapsed": ["s-0"],
    "--since 1h": ["s-3", "s-2", "s-1"],
    "--since 4d --until 2d": ["s-0"],
    "--until 2m": ["s-2", "s-1", "s-0"],
    "--plan home-100": ["s-2", "s-1"],
    "--realm ELSEWHERE.net": ["s-3"],
    "--excluded": ["s-3"],
    "--nas bng1 --longer-than 10m": ["s-1"],
    "--more-than 1GB": ["s-1"],
    "--more-than 1695000001": [],
    "--mac 0200.0000.0007 --all": ["s-3", "s-2", "s-1", "s-0"],
    "--station 02-00-00-00-00-08": [],
    "--ip 10.0.0.7": ["s-3", "s-2", "s-1"],
    "--prefix 10.0.0.0/30": [],
    "--prefix 10.0.0.0/24 --all --limit 1": ["s-3"],
    "--ip 2001:db8:7::1": ["s-2"],
    "--ip 2001:db8::/32": ["s-2"],
    "--ip 2001:db8:0:0:8000::": [],
    "--port-id ge-0/0/1:101": ["s-1"],
    "alice --all": ["s-1", "s-0"],
}


@pytest.fixture
def busy(stocked, node, database_dsn):
    """Alice fast and long, cam slow and short, a stranger in a realm that nobody has; one of alice's ended long ago."""
    with connect(database_dsn, name="test") as connection:
        connection.execute("update subscription set during = tstzrange(now() - interval '30 days', null)")
    now = datetime.now(UTC).replace(microsecond=0)
    line = attribute(dictionary.NAS_PORT_ID, b"ge-0/0/1:101")
    prefix = attribute(dictionary.DELEGATED_IPV6_PREFIX, bytes((0, 48)) + bytes.fromhex("20010db80007"))
    node.account(
        Said(status="start", at=now - timedelta(minutes=20), seconds=0, extra=line),
        Said(status="interim", at=now - timedelta(seconds=60), seconds=1140, octets_in=30 * MB, octets_out=900 * MB),
        Said(status="interim", at=now, seconds=1200, octets_in=45 * MB, octets_out=1650 * MB),
        Said(
            status="start",
            at=now - timedelta(minutes=5),
            seconds=0,
            session="s-2",
            username=b"001122334455",
            extra=prefix,
        ),
        Said(status="start", at=now - timedelta(minutes=1), seconds=0, session="s-3", username=b"eve@Elsewhere.net"),
        rate=False,
    )
    old = now - timedelta(days=3)
    node.account(
        Said(status="start", at=old, seconds=0, session="s-0"),
        Said(status="stop", at=old + timedelta(hours=1), seconds=3600, session="s-0", octets_in=1, octets_out=2),
        rate=False,
    )
    return stocked


def ids(terminal, *options):
    return [row["acct_session_id"] for row in terminal.type("sessions", *options, "--json").json()]


def test_sessions_are_narrowed_down_and_sorted(busy):
    for options, found in FOUND.items():
        assert ids(busy, *options.split()) == found, options


def test_people_are_told_the_totals_and_what_was_left_out(busy):
    assert busy.done("sessions").splitlines()[-1] == "3 sessions: 45.00 MB up, 1.65 GB down"
    assert busy.done("sessions", "--limit", "1").splitlines()[-1] == "1 session, and more (--limit): 0 B up, 0 B down"
    answer = busy.type("sessions", "--state", "closed")
    assert answer.err.startswith("sms-aaa: since ")
    assert answer.err.endswith(": --since looks further back\n")
    assert busy.type("sessions", "--all").err == ""


def test_rates_are_those_of_the_last_interim(busy):
    [alice] = busy.type("sessions", "alice", "--json").json()
    assert (alice["rate_up_kbps"], alice["rate_down_kbps"]) == (2000, 100_000)


def test_sessions_are_counted(busy):
    assert busy.type("sessions", "--count", "--json").json()[0]["sessions"] == 3
    assert busy.done("sessions", "--by", "plan").splitlines() == [
        "plan      sessions  octets up  octets down",
        "home-100         2   45.00 MB      1.65 GB",
        "-                1        0 B          0 B",
    ]
    assert [(row["realm"], row["sessions"]) for row in busy.type("sessions", "--by", "realm", "--csv").csv()] == [
        ("", "2"),
        ("elsewhere.net", "1"),
    ]
    assert busy.type("sessions", "--by", "state", "--all", "--json").json()[1]["state"] == "closed"
    assert busy.type("sessions", "--by", "nas", "--json").json()[0]["nas"] == "bng1"


def test_watching_tells_who_is_online_look_by_look(busy):
    lines = busy.type("sessions", "alice", "--watch", "--every", "0.2", "--looks", "2").lines
    assert lines[0] == "TIME  1 sessions"
    head = "id username nas framed ip online octets up octets down rate up rate down heard"
    assert lines[1].split() == head.split()
    assert "  2.0 Mbit/s  100.0 Mbit/s  00:0" in lines[2]
    assert lines[4:6] == lines[:2]


def test_what_cannot_be_asked_is_said_with_its_remedy(stocked):
    for options, remedy in {
        "--ip 10.0.0": "write it as 100.64.0.7 or 2001:db8::/56",
        "--longer-than long": "write it as 90s, 30m, 12h or 7d",
        "--more-than parsecs": "is not a volume",
        "--since yesterday": "is not a date",
        "--all --state open": "exclude each other",
        "--watch --json": "--watch is for people",
    }.items():
        answer = stocked.type("sessions", *options.split())
        assert answer.code == Exit.INVALID
        assert remedy in answer.err


def test_the_newest_that_ended_are_found_by_an_index_in_every_partition(busy, database_dsn):
    """Whatever the statistics say: the plan that stops at its limit has to be there."""
    with connect(database_dsn, name="test") as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_sort = off")
        plan = connection.execute(
            "explain select * from session_all s where s.state = any('{1,2,3}') "
            "order by s.started_at desc, s.id desc limit 10"
        ).fetchall()
    told = "\n".join(row[0] for row in plan)
    assert "Merge Append" in told
    assert "session_started" in told
    assert "Sort  (" not in told


def test_with_the_database_away_it_says_what_to_do(lonely):
    answer = lonely.type("sessions", SMS_AAA_DATABASE_DSN="postgresql://127.0.0.1:1/none")
    assert answer.code == Exit.UNAVAILABLE
    assert "see that it runs" in answer.err
    assert SECRET.decode() not in answer.err
