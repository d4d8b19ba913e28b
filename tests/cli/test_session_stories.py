"""`session show`, `anomalies`, `stale`: one session down to its records, what was odd, and who is silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from make import Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.rules.anomalies import MEANINGS, meaning_of
from sms_aaa.rules.session import AnomalyKind

GB = 10**9
NOW = datetime.now(UTC).replace(microsecond=0)
BEGAN = NOW - timedelta(minutes=30)
pytestmark = pytest.mark.months(BEGAN)


@pytest.fixture
def odd(stocked, node):
    """Alice's counters began anew at 20 minutes; her id was used before; a stranger came and went."""
    line = (
        attribute(dictionary.NAS_PORT_ID, b"ge-0/0/1:101")
        + attribute(dictionary.CONNECT_INFO, b"CONNECT 100M")
        + attribute(dictionary.NAS_PORT_TYPE, integer(15))
    )
    before = BEGAN - timedelta(hours=2)
    node.account(
        Said(status="start", at=before, seconds=0),
        Said(status="stop", at=before + timedelta(minutes=10), seconds=600, octets_in=1, octets_out=2),
        Said(status="start", at=BEGAN, seconds=0, extra=line),
        Said(status="interim", at=BEGAN + timedelta(minutes=10), seconds=600, octets_in=GB, octets_out=5 * GB),
        Said(status="interim", at=BEGAN + timedelta(minutes=20), seconds=1200, octets_in=7, octets_out=1000),
        Said(status="stop", at=NOW, seconds=1800, octets_in=7, octets_out=2000),
        Said(status="start", at=BEGAN, seconds=0, session="x-1", username=b"stranger"),
    )
    return stocked


def test_a_session_is_told_with_its_records(odd):
    told = odd.type("session", "show", "s-1", "--json").json()
    assert (told["life"], told["state"], told["subscriber"]) == (2, "closed", "alice")
    assert (told["terminate_cause"], told["end_is_estimated"]) == ("User-Request", False)
    assert told["octets_down"] == 5 * GB + 2000
    assert told["counter_runs"] == 2
    assert told["facts"]["nas_port_id"] == "ge-0/0/1:101"
    assert (told["facts"]["connect_info"], told["facts"]["nas_port_type"]) == ("CONNECT 100M", "Ethernet")
    assert [delta["octets_down"] for delta in told["deltas"]] == [5 * GB, 1000, 1000]
    assert [(row["life"], row["octets_up"]) for row in told["other_lives"]] == [(1, 1)]
    assert [row["kind"] for row in told["anomalies"]] == ["counter-reset"]
    place = told["deltas"][-1]["after"]
    assert place in odd.done("journal", "show", place)
    assert odd.type("session", "show", str(told["id"]), "--json").json() == told
    assert odd.type("session", "show", "s-1", "--deltas", "1", "--csv").csv()[0]["seq"] == "3"


def test_people_read_it_in_words(odd):
    lines = odd.type("session", "show", "s-1", "--nas", "bng1").lines
    assert "end               its Stop came, User-Request" in lines
    assert "cost              0.00 EUR for data" in lines
    assert "connect info        CONNECT 100M" in lines
    assert "usage by records" in lines
    assert any(line.startswith("counter-reset: the NAS began to count anew") for line in lines)
    assert "other lives under this id" in lines
    assert (
        lines[-1]
        == f"next: sms-aaa explain alice --session {odd.type('session', 'show', 's-1', '--json').json()['id']}"
    )


def test_addresses_that_it_had_before_are_told(stocked, node):
    first, second = (
        attribute(dictionary.DELEGATED_IPV6_PREFIX, bytes((0, 48)) + bytes.fromhex(prefix))
        for prefix in ("20010db80007", "20010db80008")
    )
    node.account(
        Said(status="start", at=BEGAN, seconds=0, extra=first),
        Said(status="interim", at=BEGAN + timedelta(minutes=5), seconds=300, extra=second),
    )
    told = stocked.type("session", "show", "s-1", "--json").json()
    assert told["facts"]["delegated_ipv6_prefix"] == "2001:db8:8::/48"
    assert {(row["kind"], row["address"]) for row in told["former_addresses"]} == {
        ("delegated_ipv6_prefix", "2001:db8:7::/48"),
        ("framed_ip", "10.0.0.7"),  # all that it had until then, changed or not
    }
    assert [row["kind"] for row in told["anomalies"]] == ["re-addressed"]
    assert "addresses that it had before" in stocked.done("session", "show", "s-1")


def test_sessions_of_one_login_are_told_with_each_other(stocked, node, database_dsn):
    with connect(database_dsn, name="test") as connection:
        [[service_id]] = connection.execute("select id from service where identity = 'alice'").fetchall()
    node.account(
        Said(status="start", at=BEGAN, seconds=0, session="v4", service_id=service_id),
        Said(status="start", at=BEGAN, seconds=0, session="v6", service_id=service_id),
        Said(status="start", at=BEGAN, seconds=0, session="other", service_id=service_id, token=b"another1"),
    )
    told = stocked.type("session", "show", "v4", "--json").json()
    assert [row["acct_session_id"] for row in told["siblings"]] == ["v6"]
    assert (told["end"], told["login"]) == ("it is online", None)
    assert "of the same login" in stocked.done("session", "show", "v4")


def test_a_session_that_cannot_be_told_is_said(odd, database_dsn):
    assert odd.type("session", "show", "nosuch").code == Exit.NOT_FOUND
    assert odd.type("session", "show", "77", "--nas", "bng1").code == Exit.NOT_FOUND
    assert odd.type("session", "show", "s-1", "--nas", "nosuch").code == Exit.NOT_FOUND
    assert "none: it belongs to no account" in odd.done("session", "show", "x-1")
    odd.done("nas", "add", "bng2", "127.0.0.2", "--secret-stdin", typed="another secret of the tests")
    with connect(database_dsn, name="test") as connection:
        connection.execute("update session set nas_id = (select max(id) from nas) where life = 1 and octets_in = 1")
    answer = odd.type("session", "show", "s-1")
    assert answer.code == Exit.CONFLICT
    assert "bng1, bng2 have a session s-1 each; name the one with --nas" in answer.err
    assert odd.type("session", "show", "s-1", "--nas", "bng2", "--json").json()["octets_up"] == 1


def test_anomalies_are_listed_counted_and_explained(odd):
    rows = odd.type("anomalies", "--json").json()
    assert [row["kind"] for row in rows] == ["unknown-service", "counter-reset"]
    assert odd.type("anomalies", "--kind", "counter-reset", "--csv").csv()[0]["subscriber"] == "alice"
    assert odd.type("anomalies", "--subscriber", "alice", "--json").json() == [rows[1]]
    assert odd.type("anomalies", "--nas", "bng1", "--since", "1h", "--limit", "1", "--json").json() == [rows[0]]
    counted = odd.type("anomalies", "--by", "kind", "--json").json()
    assert [(row["kind"], row["anomalies"], row["sessions"]) for row in counted] == [
        ("counter-reset", 1, 1),
        ("unknown-service", 1, 1),
    ]
    assert odd.type("anomalies", "--by", "nas", "--subscriber", "stranger", "--csv").csv()[0]["anomalies"] == "1"
    assert odd.type("anomalies", "--by", "day", "--json").json()[0]["anomalies"] == 2
    out = odd.done("anomalies")
    assert "unknown-service: accounting came for a user name that is no service's" in out
    assert out.endswith("next: sms-aaa anomalies show ID\n")


def test_an_anomaly_is_shown_with_what_to_do(odd):
    [row] = odd.type("anomalies", "--kind", "counter-reset", "--json").json()
    out = odd.done("anomalies", "show", str(row["id"]))
    assert "remedy           look for a restart of a line card" in out
    assert f"next: sms-aaa session show {row['session_id']}\n" in out
    assert f"next: sms-aaa journal show {row['sequence']}:{row['record_offset']}   (on node1)\n" in out
    assert odd.type("anomalies", "show", "99").code == Exit.NOT_FOUND


def test_nothing_odd_is_said_so(stocked):
    assert stocked.done("anomalies") == "nothing odd was seen\n"
    assert stocked.done("anomalies", "--by", "nas") == "nothing odd was seen\n"
    assert stocked.done("stale") == "nobody is silent, and no session lapsed\n"


def test_every_kind_is_explained():
    assert {kind.value for kind in AnomalyKind} <= set(MEANINGS)
    assert meaning_of("of tomorrow").happened


def test_the_silent_are_listed_and_a_dead_nas_is_seen(stocked, node):
    """cam's plan has an interim of 5 minutes."""
    now = datetime.now(UTC).replace(microsecond=0)
    quiet = now - timedelta(minutes=9)
    node.account(
        Said(status="start", at=quiet, seconds=0, session="q-1"),
        Said(status="start", at=quiet + timedelta(minutes=1), seconds=0, session="q-2", username=b"001122334455"),
    )
    found = stocked.type("stale", "--json").json()
    assert [(row["acct_session_id"], row["state"]) for row in found["sessions"]] == [
        ("q-2", "silent"),
        ("q-1", "silent"),
    ]
    assert found["sessions"][0]["interim_seconds"] == 300
    [nas] = found["nas"]
    assert (nas["nas"], nas["open"], nas["silent"], nas["note"]) == ("bng1", 2, 2, "all are silent: is it dead?")
    assert stocked.type("stale", "--older-than", "520s", "--csv").csv()[0]["acct_session_id"] == "q-1"
    node.account(Said(status="start", at=now, seconds=0, session="q-3"))
    assert stocked.type("stale", "--nas", "bng1", "--json").json()["nas"][0]["note"] is None
    assert "bng1     3       2       0" in stocked.done("stale")


def test_those_that_lapsed_are_listed_beside_the_silent(stocked, node, database_dsn):
    now = datetime.now(UTC).replace(microsecond=0)
    node.account(Said(status="start", at=BEGAN, seconds=0), Said(status="start", at=now, seconds=0, session="s-2"))
    with connect(database_dsn, name="test") as connection:
        from sms_aaa.db.sessions import close_stale

        assert len(close_stale(connection, now=now, multiple=3, limit=10)) == 1
    found = stocked.type("stale", "--json").json()
    assert [(row["state"], row["lapses_at"]) for row in found["sessions"]] == [("lapsed", None)]
    assert found["nas"][0]["lapsed"] == 1
    told = stocked.type("session", "show", "s-1", "--json").json()
    assert told["end"].startswith("no Stop came: it was ended at its last record")
    assert told["end_is_estimated"]
    assert stocked.type("stale", "--lapsed", "10m", "--json").json()["sessions"] == []
