"""`sms-aaa lockouts`: who is kept out, as the node's own file has it, with PostgreSQL and without."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sms_aaa.cli.exits import Exit
from sms_aaa.node.lockouts import Lockouts
from sms_aaa.rules.limits import Scope, Tally


def fill(folder: str) -> Lockouts:
    """alice and a guesser are locked, bob has failed, carol's lockout is over."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    table = Lockouts.open_or_create(Path(folder), fresh=os.urandom(16))
    assert isinstance(table, Lockouts)
    now = int(time.time())
    for scope, user, device, tally in (
        (Scope.USER_AND_DEVICE, b"alice", b"02-00-00-00-00-01", Tally(10, now - 60, now - 30, now + 270)),
        (Scope.DEVICE, b"", b"02-66-66-66-66-66", Tally(100, now - 60, now - 10, now + 290)),
        (Scope.USER_AND_DEVICE, b"b\xffb\x1b[2J", b"", Tally(3, now - 20)),
        (Scope.USER, b"carol", b"", Tally(100, now - 900, now - 800, now - 500)),
    ):
        table.store(scope, user, device, tally, now=now, matters_until=now + 300)
    return table


@pytest.fixture
def table(terminal):
    made = fill(terminal.environ["SMS_AAA_NODE_STATE_FOLDER"])
    yield made
    made.close()


def test_who_is_locked_out_is_listed_and_who_may_still_try_if_asked(terminal, table):
    assert terminal.type("lockouts").lines == [
        "user   device             scope           failures  since                 until",
        "-      02-66-66-66-66-66  device               100  TIME  TIME",
        "alice  02-00-00-00-00-01  user on device        10  TIME  TIME",
    ]
    every = terminal.type("lockouts", "list", "--all", "--json").json()
    assert [(one["user"], one["scope"], one["until"] is None) for one in every] == [
        (None, "device", False),
        ("alice", "user on device", False),
        ("b\\xffb\\x1b[2J", "user on device", True),
    ]
    assert [one["user"] for one in terminal.type("lockouts", "list", "--csv").csv()] == ["", "alice"]


def test_clearing_a_user_leaves_the_others_and_an_audit_row(terminal, table):
    said = terminal.done("lockouts", "clear", "alice", "--ticket", "INC-42")
    assert said == "alice may try again: 1 entry forgotten on this node\n"
    assert "alice" not in terminal.done("lockouts", "list")
    assert terminal.type("lockouts", "clear", "alice").code == Exit.NOT_FOUND
    from sms_aaa.db.engine import connect

    with connect(terminal.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        rows = connection.execute("select action, ticket, before from audit where object_kind = 'lockout'").fetchall()
    named = {"scope": "user on device", "user": "alice", "device": "02-00-00-00-00-01", "failures": 10}
    assert rows == [("clear", "INC-42", {"node": "node1", "count": 1, "entries": [named]})]


def test_clearing_a_device_or_everybody(terminal, table):
    assert terminal.done("lockouts", "clear", "02-66-66-66-66-66").startswith("02-66-66-66-66-66 may try again")
    assert terminal.type("lockouts", "clear", "--all", typed="n\n").code == Exit.ABORTED
    assert terminal.done("lockouts", "clear", "--all", "--yes") == (
        "everybody may try again: 3 entries forgotten on this node\n"
    )
    assert terminal.done("lockouts") == "nobody is locked out on this node\n"
    assert table.entries() == []
    assert terminal.type("lockouts", "clear").code == Exit.INVALID


def test_it_works_while_postgresql_is_away_and_says_what_is_missing(lonely):
    fill(lonely.environ["SMS_AAA_NODE_STATE_FOLDER"]).close()
    assert "alice" in lonely.done("lockouts", "list")
    answer = lonely.type("lockouts", "clear", "alice")
    assert answer.code == Exit.OK
    assert "it does not stand in the audit trail" in answer.err
    assert "alice" not in lonely.done("lockouts", "list")


def test_where_no_server_ever_ran_it_is_said(lonely):
    answer = lonely.type("lockouts", "list")
    assert answer.code == Exit.UNAVAILABLE
    assert "has `sms-aaa serve` run here?" in answer.err
