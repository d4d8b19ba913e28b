"""`sms-aaa credential`: passwords in every form, what is refused with which words, and what is shown of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hashed import STORED, Stored

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.radius.hashes import Form

SSHA = "{SSHA}DkMTwBl+a/3DQTxCYEApdUtNXGgdUac3"


@pytest.mark.parametrize("one", STORED, ids=lambda one: one.name)
def test_a_hash_from_elsewhere_is_taken_by_its_header_and_never_shown(stocked, database_dsn, one: Stored):
    words = ("credential", "set", "alice", "--form", "auto", "--password-stdin")
    said = stocked.done(*words, typed=f"{one.text}\n")
    form = one.form.name.lower()
    serves = "pap mschap mschap2" if one.form is Form.NT else "pap"
    assert said == f"the password of alice is changed\nas {form} it serves {serves} alone\n"
    [shown] = stocked.type("credential", "show", "alice", "--json").json()
    assert (shown["username"], shown["form"], shown["serves"]) == ("alice", form, serves)
    listed = stocked.done("credential", "show", "alice") + stocked.done("subscriber", "show", "alice")
    with connect(database_dsn, name="test") as connection:
        trace = connection.execute("select string_agg(a::text, '') from audit a").fetchone()
        assert connection.execute("select form from credential").fetchone() == (int(one.form),)
    for text in (said, str(shown), listed, str(trace)):
        assert one.text[-12:] not in text


def test_a_credential_tells_its_form_and_what_it_serves(stocked):
    assert table(stocked) == [
        ["username", "form", "cost", "since", "serves", "does not serve", "verified"],
        ["alice", "cleartext", "-", "TIME", "pap chap mschap mschap2", "-", "at once"],
    ]
    argon2 = next(one for one in STORED if one.name == "argon2id")
    stocked.done("credential", "set", "alice", "--form", "argon2", "--password-stdin", typed=argon2.text)
    assert table(stocked)[1] == [
        "alice", "argon2", "argon2id, m=256, t=2, p=2", "TIME", "pap", "chap mschap mschap2", "beside the loop",
    ]  # fmt: skip
    assert stocked.type("credential", "show", "alice", "--csv").csv()[0]["does_not_serve"] == "chap mschap mschap2"


def table(stocked) -> list[list[str]]:
    return [re.split(r"  +", line) for line in stocked.type("credential", "show", "alice").lines]


def test_under_another_key_a_credential_says_that_it_does_not_open(stocked):
    (Path(stocked.environ["SMS_AAA_NODE_STATE_FOLDER"]) / "key").write_text("00" * 32 + "\n")
    [shown] = stocked.type("credential", "show", "alice", "--json").json()
    assert (shown["form"], shown["serves"]) == ("cleartext", "")
    assert shown["verified"] == "never: this node's key does not open it"


@pytest.mark.parametrize(
    ("words", "typed", "code", "said"),
    [
        (["--form", "md5"], "{MD5}X03MO1qnZdYdgyfe", Exit.INVALID, "credential: a hash of the form md5 has 16 octets"),
        (["--form", "sha256"], SSHA, Exit.INVALID, "credential: its header says ssha, not sha256"),
        (["--form", "auto"], "looking-glass", Exit.INVALID, "neither a {header} nor its beginning tells what it is"),
        (["--form", "auto"], "{LM}E52CAC67419A9A22", Exit.INVALID, "its header is none that is known"),
        (["--form", "crypt"], "$2b$31$" + "a" * 53, Exit.INVALID, "its cost is beyond what a login may take"),
        (["--form", "rot13"], "x", Exit.INVALID, "'rot13' is not one of"),
        ([], "x" * 129, Exit.INVALID, "password: it has 129 octets"),
    ],
)
def test_what_could_only_fail_at_a_login_is_refused_and_nothing_changes(stocked, words, typed, code, said):
    before = stocked.type("credential", "show", "alice", "--json").json()
    answer = stocked.type("credential", "set", "alice", "--password-stdin", *words, typed=typed)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert typed[-12:] not in answer.err or typed == "x"
    assert stocked.type("credential", "show", "alice", "--json").json() == before


def test_a_hash_that_is_not_named_is_a_password_like_any_other(stocked):
    assert stocked.done("credential", "set", "alice", "--password-stdin", typed=SSHA) == (
        "the password of alice is changed\n"
    )
    assert stocked.type("credential", "show", "alice", "--json").json()[0]["form"] == "cleartext"


def test_a_subscriber_comes_with_a_hash(stocked):
    stocked.done("subscriber", "add", "bob", "--plan", "home-100", "--form", "auto", "--password-stdin", typed=SSHA)
    assert stocked.type("credential", "show", "bob", "--json").json()[0]["form"] == "ssha"


def test_whoever_has_no_password_is_told_so(stocked):
    assert stocked.type("credential", "show", "cam").code == Exit.CONFLICT
    assert stocked.type("credential", "show", "nobody").code == Exit.NOT_FOUND
