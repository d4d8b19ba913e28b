"""`bucket` and `account`: transcripts."""

from __future__ import annotations

from sms_aaa.cli.exits import Exit


def test_a_bucket_is_given_held_given_back_and_ended(stocked):
    assert stocked.done("bucket", "list") == "no bucket\n"
    assert stocked.done("bucket", "grant", "alice", "5 GB", "--valid", "30d") == "bucket 1 granted to alice\n"
    held = stocked.type("bucket", "reserve", "alice", "--session", "s-1", "--quantity", "4 GB", "--json").json()
    assert (held["granted"], held["final"], held["buckets"]) == (4 * 10**9, False, f"1: {4 * 10**9}")
    assert stocked.type("bucket", "list", "alice").lines == [
        "id  subscriber  name  kind       priority  until                 granted  used  reserved     left",
        " 1  alice       gift  promotion       100  TIME  5.00 GB   0 B   4.00 GB  1.00 GB",
    ]
    shown = stocked.type("bucket", "show", "1", "--json").json()
    assert [(entry["kind"], entry["quantity"]) for entry in shown["entries"]] == [
        ("grant", 5 * 10**9),
        ("reserve", 4 * 10**9),
    ]
    assert [hold["session"] for hold in shown["reservations"]] == ["s-1"]
    assert stocked.type("bucket", "release", "alice", "--session", "s-1", "--csv").csv() == [
        {"session": "s-1", "released": "1"}
    ]
    assert stocked.type("bucket", "release", "alice", "--session", "s-1").code == Exit.NOT_FOUND
    refused = stocked.type("bucket", "expire", "1", typed="n\n")
    assert (refused.code, "5.00 GB left, which are lost" in refused.err) == (Exit.ABORTED, True)
    assert stocked.done("bucket", "expire", "1", "--yes") == "bucket 1 ended\n"
    assert stocked.type("bucket", "expire", "1", "--yes").code == Exit.CONFLICT
    assert [row["kind"] for row in stocked.type("bucket", "show", "1", "--csv").csv()] == [
        "grant",
        "reserve",
        "release",
    ]
    assert stocked.type("bucket", "show", "99").code == Exit.NOT_FOUND


def test_money_is_asked_about_and_posted(stocked):
    assert stocked.type("bucket", "top-up", "alice", "10.00", typed="n\n").code == Exit.ABORTED
    assert stocked.done("bucket", "top-up", "alice", "10.00", "--yes") == "bucket 1 granted to alice\n"
    assert stocked.done("bucket", "top-up", "alice", "2.50", "--credit", "--yes") == "2.50 EUR are credit of alice\n"
    assert stocked.done("bucket", "top-up", "alice", "1 GB", "--measure", "total") == "bucket 2 granted to alice\n"
    finer = stocked.type("bucket", "top-up", "alice", "0.001", "--yes")
    assert (finer.code, "AMOUNT" in finer.err) == (Exit.INVALID, True)
    balance = stocked.type("ledger", "balance", "--json").json()
    assert "deferred-revenue" in str(balance)
    assert stocked.type("account", "show", "alice", "--json").json()["owes_minor"] == -250


def test_what_cannot_be_is_said_with_its_place(stocked):
    for arguments in (
        ("grant", "alice", "5 parsecs"),
        ("grant", "alice", "5 GB", "--as", "A gift"),
        ("grant", "alice", "ten", "--money"),
        ("reserve", "alice", "--session", "s", "--quantity", "much"),
    ):
        answer = stocked.type("bucket", *arguments)
        assert (answer.code, answer.out) == (Exit.INVALID, ""), answer


def test_an_account_is_prepaid_limited_and_in_a_group(stocked):
    assert stocked.done("account", "set", "alice", "--prepaid", "--threshold", "50") == "account of alice changed\n"
    assert stocked.done("account", "set", "alice", "--credit-limit", "5.00") == "account of alice changed\n"
    assert stocked.done("account", "set", "alice", "--credit-limit", "5.00") == "account of alice was so already\n"
    shown = stocked.type("account", "show", "alice", "--json").json()
    assert (shown["charging_mode"], shown["credit_limit_minor"], shown["thresholds"]) == ("prepaid", 500, "50")
    assert stocked.type("account", "set", "alice", "--threshold", "90", "--threshold", "80").code == Exit.INVALID
    assert stocked.type("account", "set", "alice").code == Exit.INVALID
    assert stocked.type("account", "join", "cam", "--head", "alice", typed="n\n").code == Exit.ABORTED
    joined = "cam is in the charging group of alice\n"
    assert stocked.done("account", "join", "cam", "--head", "alice", "--yes") == joined
    assert stocked.type("account", "show", "alice", "--json").json()["members"] == "cam"
    assert stocked.type("account", "join", "alice", "--head", "cam", "--yes").code == Exit.CONFLICT
    assert stocked.done("account", "leave", "cam", "--yes") == "cam left the charging group of alice\n"
    assert stocked.type("account", "leave", "cam", "--yes").code == Exit.CONFLICT
