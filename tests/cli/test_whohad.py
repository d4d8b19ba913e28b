"""`whohad` as it is typed: by a lawyer's paper, with a zone, for a program."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from make import Said

NOW = datetime.now(UTC).replace(microsecond=0)
BEGAN = NOW - timedelta(hours=2)
pytestmark = pytest.mark.months(BEGAN)


def said(minutes: int, status: str, session: str = "s-1") -> Said:
    lasts = {} if status == "start" else {"seconds": minutes * 60}
    return Said(status=status, at=BEGAN + timedelta(minutes=minutes), session=session, **lasts)


def z(minutes: int) -> str:
    return f"{BEGAN + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def settled(node, stocked):
    node.account(said(0, "start"), said(10, "interim"), said(20, "stop"), rate=False)
    return stocked


def test_the_answer_names_the_subscriber_the_device_and_the_evidence(settled):
    answer = settled.type("whohad", "10.0.0.7", "--at", z(5))
    assert answer.code == 0
    shown = answer.lines
    assert shown[0].startswith("10.0.0.7 at TIME, which is ")
    assert shown[0].endswith("times are UTC")
    assert "1. alice" in shown
    assert "username    alice" in shown
    assert "device      02-00-00-00-00-07" in shown
    assert "had         10.0.0.7 (Framed-IP-Address)" in shown
    assert "certainty   sure" in shown
    assert any(line.startswith("evidence    node1, journal record ") for line in shown)


def test_nobody_is_exit_3_and_tells_the_nearest(settled):
    answer = settled.type("whohad", "10.0.0.7", "--at", z(60))
    assert answer.code == 3
    assert "nobody had it, as far as records tell" in answer.out
    assert "before: alice" in answer.out
    assert "after: nobody" in answer.out


def test_programs_get_exact_values(settled):
    (holder,) = settled.type("whohad", "10.0.0.7", "--at", z(5), "--json").json()["holders"]
    assert (holder["subscriber"], holder["sure"], holder["doubts"]) == ("alice", True, None)
    assert (holder["from"], holder["to"]) == (z(0), z(20))
    assert holder["evidence_node"] == "node1"
    (row,) = settled.type("whohad", "10.0.0.7", "--at", z(5), "--csv").csv()
    assert (row["subscriber"], row["sure"], row["kind"]) == ("alice", "true", "framed_ip")
    nobody = settled.type("whohad", "10.0.0.8", "--at", z(5), "--json")
    assert nobody.code == 3
    assert '"holders": []' in nobody.out


def test_a_time_without_offset_is_by_the_clock_of_the_settings(settled):
    local = f"{BEGAN.astimezone(UTC) + timedelta(hours=5, minutes=5):%Y-%m-%dT%H:%M:%S}"
    answer = settled.type("whohad", "10.0.0.7", "--at", local, SMS_AAA_RATING_ZONE="Asia/Karachi")
    assert answer.code == 0
    assert "+05:00" in answer.lines[0]


def test_the_evidence_leads_to_the_record_in_the_journal(settled):
    (holder,) = settled.type("whohad", "10.0.0.7", "--at", z(5), "--json").json()["holders"]
    place = f"{holder['evidence_sequence']}:{holder['evidence_offset']}"
    assert "Acct-Status-Type" in settled.done("journal", "show", place)


@pytest.mark.parametrize("address", ["10.0.0", "alice", "10.0.0.7:70000", "[10.0.0.7", "2001:db8::1::2", "10.0.0.7/33"])
def test_what_is_no_address_is_refused_with_the_way_to_write_it(settled, address):
    answer = settled.type("whohad", address, "--at", z(5))
    assert answer.code == 2
    assert "write it as 100.64.0.7" in " ".join(answer.err.replace("│", " ").split())
