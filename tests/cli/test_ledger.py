"""`ledger list`, `ledger balance`: what was posted for alice, entry by entry, and what it comes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from make import Said

from sms_aaa.cli.exits import Exit

GB = 10**9
NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def posted(stocked, node):
    """Alice pays 29.90 for the month, and 0.50 for the one GB beyond 50."""
    node.account(
        Said(status="start", at=NOW - timedelta(minutes=5), seconds=0, octets_in=0, octets_out=0),
        Said(status="stop", at=NOW, seconds=300, octets_in=1 * GB, octets_out=50 * GB),
    )
    return stocked


def test_entries_are_listed_the_newest_first_and_paged_in_their_order(posted):
    fee, data = posted.type("ledger", "list", "--subscriber", "alice", "--json", "--after", "0").json()
    assert (fee["debit"], fee["credit"], fee["amount_minor"]) == ("unbilled-receivable", "revenue:monthly-fee", 2990)
    assert (data["component"], data["amount_minor"], data["currency"], data["run"]) == ("data", 50, "EUR", "live")
    newest = posted.type("ledger", "list", "--limit", "1", "--subscriber", "alice", "--csv")
    assert [row["id"] for row in newest.csv()] == [str(data["id"])]
    assert "there may be more" in newest.err
    assert posted.type("ledger", "list", "--after", str(fee["id"]), "--component", "data", "--json").json() == [data]
    lines = posted.type("ledger", "list", "--ledger-account", "revenue:data").lines
    assert lines[1].split() == [str(data["id"]), "TIME", "alice", "data", "unbilled-receivable", "revenue:data", "0.50",
                                "EUR", "-"]  # fmt: skip
    assert posted.done("ledger", "list", "--ledger-account", "cash") == "no entry\n"
    assert posted.done("ledger", "list", "--until", "2020-01-01") == "no entry\n"
    assert posted.done("ledger", "list", "--since", "1h", "--account", "4711") == "no entry\n"


def test_the_trial_balance_of_all_of_one_and_as_of_a_date(posted):
    found = posted.type("ledger", "balance", "--subscriber", "alice", "--json").json()
    assert found["holds"]
    assert {row["ledger_account"]: row["balance_minor"] for row in found["accounts"]} == {
        "unbilled-receivable": 3040, "revenue:monthly-fee": -2990, "revenue:data": -50,
    }  # fmt: skip
    assert found["sums"] == [{"currency": "EUR", "debit_minor": 3040, "credit_minor": 3040}]
    assert posted.done("ledger", "balance", "--subscriber", "alice").endswith("debits 30.40 EUR = credits 30.40 EUR\n")
    assert posted.done("ledger", "balance", "--at", "2020-01-01") == "no entry yet\n"
    assert {row["currency"] for row in posted.type("ledger", "balance", "--csv").csv()} == {"EUR"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("list", "--ledger-account", "cahs"), Exit.INVALID, "'cahs' is not one of receivable,"),
        (("list", "--subscriber", "alice", "--account", "1"), Exit.INVALID, "give one"),
        (("balance", "--at", "soon"), Exit.INVALID, "is not a date"),
        (("balance", "--subscriber", "nobody"), Exit.NOT_FOUND, "nobody"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_its_remedy(stocked, words, code, said):
    answer = stocked.type("ledger", *words)
    assert answer.code == code
    assert said in answer.err
