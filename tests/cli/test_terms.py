"""A service's terms and realms at the terminal: transcripts."""

from __future__ import annotations

import pytest

from sms_aaa.cli.exits import Exit


def test_a_block_is_lifted_by_unblock_alone(stocked):
    stocked.done("subscriber", "suspend", "alice", "--reason", "unpaid")
    assert stocked.done("subscriber", "block", "alice", "--reason", "spam") == "alice is blocked\n"
    assert stocked.done("subscriber", "block", "alice", "--reason", "spam") == "alice was blocked already\n"
    answer = stocked.type("subscriber", "restore", "alice")
    assert answer.code == Exit.CONFLICT
    assert answer.err.startswith("sms-aaa: alice is blocked (spam); `sms-aaa subscriber unblock` puts it back")
    assert stocked.done("subscriber", "unblock", "alice", "--ticket", "T") == "alice is suspended\n"
    assert stocked.done("subscriber", "unblock", "alice") == "alice was not blocked\n"
    assert stocked.done("subscriber", "restore", "alice") == "alice is active\n"


def test_dates_are_by_the_clock_of_the_account_and_shown_in_utc(stocked):
    said = stocked.done(
        "subscriber", "set", "alice", "--valid-from", "2026-06-01", "--valid-until", "2027-01-01T12:00Z"
    )
    assert said == "alice is valid from 2026-05-31 22:00:00Z until 2027-01-01 12:00:00Z\n"
    said = stocked.done("subscriber", "set", "alice", "--valid-until", "none")
    assert said == "alice is valid from 2026-05-31 22:00:00Z until further notice\n"
    shown = stocked.type("subscriber", "show", "alice", "--json").json()["services"][0]
    assert (shown["valid_from"], shown["valid_until"]) == ("2026-05-31T22:00:00Z", None)
    said = stocked.done("subscriber", "set", "alice", "--valid-until", "none")
    assert said == "alice was valid from 2026-05-31 22:00:00Z until further notice already\n"


def test_what_is_bound_is_shown_and_unbound(stocked):
    bound = ("--mac", "00-11-22-33-44-55", "--nas", "bng1", "--port", "ge-0/0/1", "--port", "0x0004AB")
    assert stocked.done("subscriber", "bind", "alice", *bound) == "alice: 4 bound\n"
    assert stocked.done("subscriber", "bind", "alice", "--nas", "bng1") == "alice was bound so already\n"
    lines = stocked.type("subscriber", "show", "alice").lines
    at = lines.index("bound to")
    assert lines[at + 1 : at + 6] == [
        "kind  value         since",
        "mac   001122334455  TIME",
        "nas   bng1          TIME",
        "port  0x0004ab      TIME",
        "port  ge-0/0/1      TIME",
    ]
    shown = stocked.type("subscriber", "show", "alice", "--json").json()["bound_to"]
    assert [(bond["kind"], bond["value"]) for bond in shown][:2] == [("mac", "001122334455"), ("nas", "bng1")]
    assert stocked.done("subscriber", "unbind", "alice", "--all-macs") == "alice: 1 unbound\n"
    assert stocked.done("subscriber", "unbind", "alice", "--port", "ge-0/0/1") == "alice: 1 unbound\n"
    assert stocked.done("subscriber", "unbind", "alice", "--all") == "alice: 2 unbound\n"
    assert stocked.done("subscriber", "unbind", "alice", "--all") == "alice was not bound so\n"
    assert "bound to" not in stocked.done("subscriber", "show", "alice")


def test_a_device_is_learned_from_the_first_login_while_none_is_bound(stocked):
    said = stocked.done("subscriber", "bind", "alice", "--learn-mac")
    assert said == "alice will be bound to the device of its first login from now on\n"
    assert stocked.done("subscriber", "bind", "alice", "--learn-mac") == "alice was bound so already\n"
    assert stocked.type("subscriber", "show", "alice", "--json").json()["services"][0]["learns_mac_since"] is not None
    assert stocked.done("subscriber", "unbind", "alice", "--learn-mac") == "alice: 1 unbound\n"
    assert stocked.type("subscriber", "show", "alice", "--json").json()["services"][0]["learns_mac_since"] is None


def test_a_realm_comes_is_shown_changes_and_goes(stocked):
    assert stocked.done("realm", "list") == "no realm: names are looked up as they were sent\n"
    added = stocked.done("realm", "add", "ISP-A.example", "--plan", "home-100", "--nas", "bng1")
    assert added == "realm isp-a.example added\n"
    assert stocked.type("realm", "list").lines == [
        "name           names  plan      nases  created at",
        "isp-a.example  kept   home-100  bng1   TIME",
    ]
    said = stocked.done("subscriber", "add", "bob@isp-a.example", "--password", "x")
    assert said == "subscriber bob@isp-a.example added on plan home-100\n"
    changed = stocked.done("realm", "set", "isp-a.example", "--strip", "--no-plan", "--any-nas")
    assert changed == "realm isp-a.example changed\n"
    shown = stocked.type("realm", "show", "isp-a.example", "--json").json()
    assert (shown["names"], shown["plan"], shown["nases"]) == ("stripped", None, None)
    answer = stocked.type("realm", "remove", "isp-a.example", typed="n\n")
    assert answer.code == Exit.ABORTED
    assert "are looked up as the bare user now, and as sent afterwards" in answer.err
    assert stocked.done("realm", "remove", "isp-a.example", "--yes") == "realm isp-a.example removed\n"
    assert stocked.type("realm", "list", "--csv").csv() == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["subscriber", "block", "bob", "--reason", "x"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["subscriber", "unblock", "bob"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["subscriber", "set", "alice"], Exit.INVALID, "Nothing to change"),
        (
            ["subscriber", "set", "alice", "--valid-until", "soon"],
            Exit.INVALID,
            "'--valid-until': 'soon' is not a date",
        ),
        (
            ["subscriber", "set", "alice", "--valid-from", "2027-01-01", "--valid-until", "2026-01-01"],
            Exit.INVALID,
            "valid until: it is not after the beginning",
        ),
        (["subscriber", "set", "bob", "--valid-until", "2027-01-01"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["subscriber", "bind", "alice"], Exit.INVALID, "Nothing is named"),
        (["subscriber", "bind", "alice", "--mac", "00:11"], Exit.INVALID, "mac: '00:11' is not a hardware address"),
        (["subscriber", "bind", "alice", "--nas", "bng9"], Exit.NOT_FOUND, "there is no NAS bng9"),
        (["subscriber", "unbind", "alice", "--all", "--nas", "bng1"], Exit.INVALID, "are given alone"),
        (["realm", "add", "not a realm"], Exit.INVALID, "realm: 'not a realm' is not a realm"),
        (["realm", "add", "isp-a", "--plan", "gold"], Exit.NOT_FOUND, "there is no plan gold"),
        (["realm", "show", "isp-a"], Exit.NOT_FOUND, "there is no realm isp-a"),
        (["realm", "set", "isp-a"], Exit.INVALID, "Nothing to change"),
        (["realm", "set", "isp-a", "--plan", "a", "--no-plan"], Exit.INVALID, "--no-plan excludes --plan"),
        (["realm", "remove", "isp-a", "--yes"], Exit.NOT_FOUND, "there is no realm isp-a"),
    ],
)
def test_what_cannot_be_done_says_why(stocked, words, code, said):
    answer = stocked.type(*words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
