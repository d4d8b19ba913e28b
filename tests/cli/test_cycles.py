"""`cycle` and `subscriber set-plan` as they are typed: transcripts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from make import Said

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect

GB = 10**9
NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=70)


def cells(answer):
    """A table by its lines."""
    return [re.split(r"\s{2,}", line.strip()) for line in answer.lines]


@pytest.fixture
def told(stocked, node):
    """Alice used 51 GB in a cycle that is long over, before her subscription began, and nothing in this one."""
    node.account(
        Said(status="start", at=LONG_AGO, seconds=0, octets_in=0, octets_out=0),
        Said(status="stop", at=LONG_AGO + timedelta(minutes=5), seconds=300, octets_in=GB, octets_out=50 * GB),
    )
    node.rate(datetime.now(UTC) + timedelta(minutes=1))
    return stocked


def test_cycles_are_listed_and_closed_when_they_are_over(told):
    assert cells(told.type("cycle", "list", "alice")) == [
        ["cycle", "account", "starts at", "ends at", "state", "fees", "usage", "other", "adjusted", "total"],
        ["2", "1", "TIME", "TIME", "open", "29.90 EUR", "0.00 EUR", "0.00 EUR", "0.00 EUR", "29.90 EUR"],
        ["1", "1", "TIME", "TIME", "open", "0.00 EUR", "0.50 EUR", "0.00 EUR", "0.00 EUR", "0.50 EUR"],
    ]
    assert cells(told.type("cycle", "close", "--dry-run")) == [
        ["cycle", "account", "ends at", "subscription", "component", "kind", "amount"],
        ["1", "1", "TIME", "1", "data", "usage", "0.50 EUR"],
        ["1 cycle to be closed"],
    ]
    assert told.type("cycle", "close", typed="n\n").code == Exit.ABORTED
    assert [row["state"] for row in told.type("cycle", "list", "alice", "--json").json()] == ["open", "open"]
    [closed] = told.type("cycle", "close", "--yes", "--json").json()
    assert (closed["cycle_id"], closed["kind"], closed["amount_minor"]) == (1, "usage", 50)
    assert told.done("cycle", "close", "--yes") == "nothing is to be closed\n"
    [this, before] = told.type("cycle", "list", "alice", "--csv").csv()
    assert (this["state"], before["state"], before["total_minor"]) == ("open", "closed", "50")
    assert told.type("cycle", "list", "nobody").code == Exit.NOT_FOUND


def test_a_subscriber_goes_from_one_plan_to_another(told, node):
    told.done("plan", "add", "policies/metered.toml")
    assert told.done("subscriber", "set-plan", "alice", "metered") == "alice is on plan metered\n"
    assert told.done("subscriber", "set-plan", "alice", "metered") == "alice was on plan metered already\n"
    assert told.type("subscriber", "show", "alice", "--json").json()["services"][0]["plan"] == "metered"
    later = f"{NOW + timedelta(days=400):%Y-%m-%d}"
    said = told.done("subscriber", "set-plan", "alice", "home-100", "--at", f"{later}T12:00Z")
    assert said == f"alice is on plan home-100 from {later} 12:00:00Z on\n"
    again = told.type("subscriber", "set-plan", "alice", "metered")
    assert (again.code, "is to change at" in again.err) == (Exit.CONFLICT, True)
    node.rate(datetime.now(UTC) + timedelta(minutes=2))
    assert "0.50 EUR" in told.done("cycle", "list", "alice")


def spans(node):
    with connect(node.dsn, name="test") as connection:
        return connection.execute(
            """select p.name, upper(u.during) from subscription u join plan_version v on v.id = u.plan_version_id
               join plan p on p.id = v.plan_id join service s on s.id = u.service_id
               join subscriber b on b.id = s.subscriber_id and b.name = 'alice' order by lower(u.during)"""
        ).fetchall()


def test_a_change_that_is_to_come_is_taken_back_and_one_that_has_come_is_not(told, node):
    told.done("plan", "add", "policies/metered.toml")
    begun = spans(node)
    nothing = told.type("subscriber", "keep-plan", "alice")
    assert (nothing.code, "no change of alice is still to come" in nothing.err) == (Exit.CONFLICT, True)
    later = NOW + timedelta(days=40)
    planned = ("subscriber", "set-plan", "alice", "metered", "--at", f"{later:%Y-%m-%d}T12:00Z")
    told.done(*planned)
    node.rate(datetime.now(UTC) + timedelta(minutes=2))
    assert "stays on its plan" in told.done("subscriber", "keep-plan", "alice", "--ticket", "CHG-1")
    assert spans(node) == begun
    # It has come, and was charged: by a rater whose clock is ahead, and then for everybody.
    told.done(*planned)
    before = spans(node)
    node.rate(later + timedelta(days=1))
    refused = told.type("subscriber", "keep-plan", "alice")
    assert (refused.code, "was charged already" in refused.err) == (Exit.CONFLICT, True)
    assert told.type("subscriber", "remove", "alice", "--yes").code == Exit.CONFLICT
    assert spans(node) == before
    assert told.type("subscriber", "show", "alice", "--json").json()["services"][0]["state"] == "active"


def test_a_change_that_has_come_is_followed_by_another(told, node):
    told.done("plan", "add", "policies/metered.toml")
    told.done("subscriber", "set-plan", "alice", "metered")
    node.rate(datetime.now(UTC) + timedelta(minutes=2))
    refused = told.type("subscriber", "keep-plan", "alice")
    assert (refused.code, "`sms-aaa subscriber set-plan`" in refused.err) == (Exit.CONFLICT, True)
    told.done("subscriber", "set-plan", "alice", "home-100")
    assert [plan for plan, _ in spans(node)] == ["home-100", "metered", "home-100"]


def test_who_is_removed_goes_now_whatever_was_to_come(told, node):
    told.done("plan", "add", "policies/metered.toml")
    told.done("subscriber", "set-plan", "alice", "metered", "--at", f"{NOW + timedelta(days=40):%Y-%m-%d}")
    assert told.done("subscriber", "remove", "alice", "--yes") == "subscriber alice removed\n"
    [(plan, ended_at)] = spans(node)
    assert (plan, ended_at <= datetime.now(UTC)) == ("home-100", True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["alice", "gold"], Exit.NOT_FOUND, "there is no plan gold"),
        (["bob", "home-100"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["alice", "home-100", "--at", "2001-01-01"], Exit.INVALID, "at: it lies in the past"),
        (["alice", "home-100", "--at", "soon"], Exit.INVALID, "'--at': 'soon' is not a date"),
    ],
)
def test_what_cannot_be_changed_is_said(stocked, words, code, said):
    answer = stocked.type("subscriber", "set-plan", *words)
    assert (answer.code, said in answer.err) == (code, True), answer
