"""NASes, plans, subscribers, credentials: transcripts."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from make import SECRET

from sms_aaa.cli.exits import Exit
from sms_aaa.db.audit import list_changes
from sms_aaa.db.engine import connect
from sms_aaa.db.nas import list_node_nas
from sms_aaa.db.subscribers import find_by_name, list_entitlements
from sms_aaa.flows.vault import Vault
from sms_aaa.node.key import read_or_create_key

PLAN_FILE = str(Path(__file__).parents[2] / "policies" / "home-100.toml")


def vault_of(terminal) -> Vault:
    key = read_or_create_key(Path(terminal.environ["SMS_AAA_NODE_STATE_FOLDER"]) / "key", fresh=bytes(32))
    assert isinstance(key, bytes)
    return Vault(key)


def nas_secret(terminal, name: str) -> bytes | None:
    with connect(terminal.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        [nas] = [nas for nas in list_node_nas(connection, None) if nas.name == name]
    opened = vault_of(terminal).open_nas_secret(nas.secrets[0], nas.nas_id)
    return None if opened is None else opened.reveal()


def password_of(terminal, name: str) -> bytes | None:
    with connect(terminal.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        [row] = find_by_name(connection, name)
        assert row.service_id is not None
        [(_, _, entitlement)] = list_entitlements(connection, [row.service_id])
    opened = vault_of(terminal).open_password(entitlement.credential, row.service_id)
    return None if opened is None else opened.cleartext


def test_a_nas_comes_is_shown_changes_and_goes(terminal):
    assert terminal.done("nas", "list") == "no NAS yet: sms-aaa nas add NAME ADDRESS\n"
    added = terminal.done(
        "nas", "add", "bng1", "192.0.2.1", "--dialect", "mikrotik", "--secret-stdin", typed="a shared secret\n"
    )
    assert added == "NAS bng1 added\n"
    assert nas_secret(terminal, "bng1") == b"a shared secret"
    assert terminal.type("nas", "list").lines == [
        "name  address       dialect   message authenticator  secret strength  coa port  created at",
        "bng1  192.0.2.1/32  mikrotik  auto                   short                3799  TIME",
    ]
    assert terminal.done("nas", "set", "bng1", "--message-authenticator", "yes") == "NAS bng1 changed\n"
    shown = terminal.type("nas", "show", "bng1", "--json").json()
    assert (shown["message_authenticator"], shown["dialect"], shown["live_sessions"]) == ("yes", "mikrotik", 0)
    assert terminal.type("nas", "show", "bng1", "--csv").csv()[0]["address"] == "192.0.2.1/32"
    assert terminal.done("nas", "remove", "bng1", "--yes") == "NAS bng1 removed; it had 0 live sessions\n"
    assert terminal.type("nas", "list", "--json").json() == []
    assert terminal.type("nas", "show", "bng1").code == Exit.NOT_FOUND


def test_a_generated_secret_is_shown_once_and_never_again(terminal):
    added = terminal.done("nas", "add", "bng1", "192.0.2.1", "--generate")
    found = re.fullmatch(r"NAS bng1 added\nsecret: ([0-9a-f]{32})\n", added)
    assert found
    assert nas_secret(terminal, "bng1") == found[1].encode()
    later = [
        terminal.done("nas", *words) for words in (["show", "bng1"], ["list", "--json"], ["show", "bng1", "--csv"])
    ]
    assert found[1] not in "".join(later)
    changed = terminal.done("nas", "set", "bng1", "--generate")
    assert changed.startswith("NAS bng1 changed\nsecret: ")
    assert found[1] not in changed


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "bng1", "192.0.2.9", "--generate"], Exit.CONFLICT, "a NAS bng1 or a NAS at 192.0.2.9/32 exists"),
        (["add", "bng2", "127.0.0.1", "--generate"], Exit.CONFLICT, "exists"),
        (["add", "bng2", "192.0.2.300", "--generate"], Exit.INVALID, "address: "),
        (["add", "bng2", "192.0.2.1", "--secret", "short"], Exit.INVALID, "secret: it has fewer than 8 octets"),
        (["add", "bng2", "192.0.2.1"], Exit.INVALID, "give --secret-stdin or --generate"),
        (["add", "bng2", "192.0.2.1", "--generate", "--secret-stdin"], Exit.INVALID, "--generate"),
        (["add", "bng2", "192.0.2.1", "--secret", "12345678", "--secret-stdin"], Exit.INVALID, "exclude each other"),
        (["set", "bng1"], Exit.INVALID, "Nothing to change"),
        (["set", "nosuch", "--coa-port", "1700"], Exit.NOT_FOUND, "there is no NAS nosuch"),
        (["remove", "nosuch", "--yes"], Exit.NOT_FOUND, "there is no NAS nosuch"),
        (["list", "--json", "--csv"], Exit.INVALID, "exclude each other"),
    ],
)
def test_what_cannot_be_done_to_a_nas_says_why(stocked, words, code, said):
    answer = stocked.type("nas", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


def test_removing_asks_and_no_leaves_everything(stocked):
    answer = stocked.type("nas", "remove", "bng1", typed="n\n")
    assert answer.code == Exit.ABORTED
    assert "NAS bng1 (127.0.0.1/32) has 0 live sessions" in answer.err
    assert stocked.type("nas", "show", "bng1").code == 0
    assert stocked.type("subscriber", "remove", "alice", typed="").code == Exit.ABORTED  # nobody there to be asked
    assert stocked.type("subscriber", "show", "alice").code == 0
    assert stocked.done("subscriber", "remove", "alice", typed="y\n") == "subscriber alice removed\n"
    assert stocked.type("subscriber", "show", "alice").code == Exit.NOT_FOUND


def test_a_plan_comes_once_and_its_changes_are_versions(terminal, tmp_path):
    assert terminal.done("plan", "add", PLAN_FILE) == "plan home-100 version 1 added\n"
    assert terminal.done("plan", "add", PLAN_FILE) == "plan home-100 is version 1 already\n"
    changed = tmp_path / "changed.toml"
    changed.write_text(Path(PLAN_FILE).read_text().replace("100 Mbit/s at home", "100 Mbit/s"))
    assert terminal.done("plan", "add", str(changed)) == "plan home-100 version 2 added\n"
    [row] = terminal.type("plan", "list", "--csv").csv()
    assert (row["name"], row["version"], row["down_kbps"], row["sessions_max"]) == ("home-100", "2", "100000", "1")
    assert terminal.type("plan", "list").lines[0].startswith("name      version  services")
    assert terminal.type("plan", "show", "home-100").lines[-4:] == [
        "component    kind        from      up to     price",
        "monthly-fee  each month  -         -         29.90 EUR",
        "data         total       0 B       50.00 GB  0.00 EUR per GB",
        "data         total       50.00 GB  -         0.50 EUR per GB",
    ]
    shown = terminal.type("plan", "show", "home-100", "--json").json()
    assert shown["document"]["tariff"]["currency"] == "EUR"
    assert terminal.type("plan", "show", "home-100", "--csv").csv()[0]["version"] == "2"


def test_a_version_of_a_plan_has_its_day(stocked, tmp_path):
    changed = tmp_path / "changed.toml"
    changed.write_text(Path(PLAN_FILE).read_text().replace('"29.90"', '"31.90"', 1).split("\n[[example]]")[0])
    berlin = {"SMS_AAA_RATING_ZONE": "Europe/Berlin"}
    added = stocked.done("plan", "add", str(changed), "--effective", "2999-01-01", **berlin)
    assert added == "plan home-100 version 2 added, in force from 2998-12-31 23:00:00Z on\n"
    again = stocked.done("plan", "add", str(changed), "--effective", "2999-02-01", **berlin)
    assert again == "plan home-100 is version 2 already\n"
    assert stocked.done("plan", "add", PLAN_FILE) == "plan home-100 is version 1 already\n"
    rows = stocked.type("plan", "list", "--csv").csv()
    assert [(row["version"], row["state"], row["services"]) for row in rows] == [
        ("1", "in force", "2"),
        ("2", "to come", "0"),
    ]
    stocked.done("subscriber", "add", "dora", "--plan", "home-100", "--mac", "00:11:22:33:44:66")
    assert [row["services"] for row in stocked.type("plan", "list", "--csv").csv()] == ["3", "0"]
    assert stocked.type("plan", "show", "home-100", "--json").json()["version"] == 1
    assert stocked.type("plan", "show", "home-100", "--version", "2").lines[-3].endswith("31.90 EUR")
    assert stocked.type("plan", "show", "home-100", "--version", "3").code == Exit.NOT_FOUND
    past = stocked.type("plan", "add", str(changed), "--effective", "2020-01-01")
    assert (past.code, "'2020-01-01' is past; leave it out" in past.err) == (Exit.INVALID, True)


def test_a_plan_is_shown_with_all_that_its_tariff_says(terminal):
    terminal.done("plan", "add", str(Path(PLAN_FILE).parent / "family.toml"))
    shown = terminal.type("plan", "show", "family").lines
    for line in (
        "roaming-data  total       0 B   -      0.01 EUR per MB",
        "family-cap    bound       -     -      over family-fee, home-data, roaming-data",
        "roaming-data  keys             roaming",
        "family-cap    maximum          60.00",
        "family-data   overage         absorb",
        "roaming-pass  connect_fee     10 MB",
        "credit        amount          5.00",
        "key   tv       service_class iptv, realm tv.example",
        "switch  end",
    ):
        assert line in shown


def test_a_plan_to_come_is_not_sold_yet(stocked, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text('name = "later"\n[policy]\n[tariff]\n')
    stocked.done("plan", "add", str(plan), "--effective", "2999-01-01T00:00Z")
    answer = stocked.type("subscriber", "add", "dora", "--plan", "later", "--mac", "00:11:22:33:44:66")
    assert (answer.code, "not yet in force is plan later" in answer.err) == (Exit.NOT_FOUND, True)
    assert stocked.type("plan", "show", "later", "--json").json()["state"] == "to come"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "a"\nbad = = 1\n', "is not TOML: Invalid value (at line 2, column 7); correct that line"),
        ('name = "a"\nzzz = 1\n', "zzz: is not a key of this table; known are"),
        ("\xff", "is not TOML"),
    ],
)
def test_a_plan_file_that_cannot_be_is_refused_with_its_place(terminal, tmp_path, text, said):
    file = tmp_path / "plan.toml"
    file.write_bytes(text.encode("latin-1"))
    answer = terminal.type("plan", "add", str(file))
    assert answer.code == Exit.INVALID
    assert f"sms-aaa: {file}: " in answer.err
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_a_file_that_is_not_there_is_a_usage_error(terminal, tmp_path):
    assert terminal.type("plan", "add", str(tmp_path / "none.toml")).code == Exit.INVALID
    assert terminal.type("plan", "show", "none").code == Exit.NOT_FOUND


def test_a_subscriber_is_listed_and_shown(stocked):
    assert stocked.type("subscriber", "list").lines == [
        "name   full name  identity      kind      state   plan      created at",
        "alice             alice         username  active  home-100  TIME",
        "cam               001122334455  mac       active  home-100  TIME",
    ]
    assert [row["has_credential"] for row in stocked.type("subscriber", "list", "--csv").csv()] == ["true", "false"]
    assert len(stocked.type("subscriber", "list", "--json", "--limit", "1").json()) == 1
    shown = stocked.type("subscriber", "show", "alice", "--json").json()
    assert shown["services"][0]["zone"] == "Europe/Berlin"
    assert (shown["sessions"], shown["usage"], shown["last_decision"]) == ([], [], None)
    assert stocked.type("subscriber", "show", "cam", "--csv").csv()[0]["identity"] == "001122334455"
    assert "none is known" in stocked.done("subscriber", "show", "alice")


def test_a_subscriber_is_suspended_and_restored_with_an_audit_row(stocked):
    suspend = ("subscriber", "suspend", "alice", "--reason", "unpaid", "--ticket", "CHG-7")
    assert stocked.done(*suspend, SUDO_USER="carol") == "alice is suspended\n"
    assert stocked.done(*suspend) == "alice was suspended already\n"
    shown = stocked.type("subscriber", "show", "alice", "--json").json()["services"][0]
    assert (shown["state"], shown["state_reason"]) == ("suspended", "unpaid")
    assert stocked.done("subscriber", "restore", "alice") == "alice is active\n"
    with connect(stocked.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        [row] = find_by_name(connection, "alice")
        assert row.service_id is not None
        changes = list_changes(connection, "service", row.service_id)
    assert [change.action for change in changes] == ["suspended", "restored"]
    assert (changes[0].actor, changes[0].door, changes[0].ticket) == ("carol", "cli", "CHG-7")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "alice", "--plan", "home-100", "--password", "x"], Exit.CONFLICT, "a subscriber alice exists"),
        (["add", "bob", "--plan", "nosuch", "--password", "x"], Exit.NOT_FOUND, "there is no plan nosuch"),
        (["add", "bob", "--plan", "home-100"], Exit.INVALID, "password: "),
        (["add", "bob", "--plan", "home-100", "--password-stdin"], Exit.INVALID, "password: it has 0 octets"),
        (["add", "bob", "--plan", "home-100", "--mac", "00:11"], Exit.INVALID, "is not a hardware address"),
        (["add", "bob", "--plan", "home-100", "--mac", "a", "--password", "x"], Exit.INVALID, "--mac excludes"),
        (["add", "bob", "--plan", "home-100", "--password", "x", "--zone", "Mars/X"], Exit.INVALID, "--zone: 'Mars/X'"),
        (["add", "bob", "--plan", "home-100", "--password", "x", "--static-ip", "1.2"], Exit.INVALID, "static address"),
        (["add", "bob", "--plan", "home-100", "--password", "x", "--anchor-day", "32"], Exit.INVALID, "32"),
        (["add", "bob", "--password", "x"], Exit.INVALID, "plan: none is given"),
        (["show", "bob"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["suspend", "bob", "--reason", "x"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["restore", "bob"], Exit.NOT_FOUND, "there is no subscriber bob"),
        (["remove", "bob", "--yes"], Exit.NOT_FOUND, "there is no subscriber bob"),
    ],
)
def test_what_cannot_be_done_to_a_subscriber_says_why(stocked, words, code, said):
    answer = stocked.type("subscriber", *words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


def test_a_credential_is_replaced_from_standard_input(stocked):
    assert stocked.done("credential", "set", "alice", "--password-stdin", typed="looking-glass\n") == (
        "the password of alice is changed\n"
    )
    assert password_of(stocked, "alice") == b"looking-glass"
    assert stocked.type("credential", "set", "cam", "--password", "x").code == Exit.CONFLICT
    assert stocked.type("credential", "set", "nobody", "--password", "x").code == Exit.NOT_FOUND
    answer = stocked.type("credential", "set", "alice")
    assert answer.code == Exit.INVALID
    assert "give --password-stdin, or run it on a terminal" in answer.err


def test_on_a_terminal_a_password_is_asked_for_twice_without_echo(stocked):
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("sms-aaa")
    environ = {**os.environ, **stocked.environ}
    process = subprocess.Popen(
        [program, "credential", "set", "alice"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = _answer(ours, [b"Password: ", b"confirmation: "], b"typed-MARKED\n")
    assert process.wait(20) == 0, seen
    os.close(ours)
    assert b"the password of alice is changed" in seen
    assert b"MARKED" not in seen
    assert password_of(stocked, "alice") == b"typed-MARKED"


def test_no_key_is_made_up_where_the_database_has_secrets_under_another(stocked, tmp_path):
    answer = stocked.type(
        "nas", "add", "bng2", "192.0.2.1", "--generate", SMS_AAA_NODE_STATE_FOLDER=str(tmp_path / "elsewhere")
    )
    assert answer.code == Exit.INVALID
    assert "the key is missing" in answer.err
    assert nas_secret(stocked, "bng1") == SECRET


def _answer(terminal: int, questions: list[bytes], text: bytes) -> bytes:
    """Types the text after each question, then reads to the end."""
    seen, until = b"", time.monotonic() + 20
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            read = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            return seen
        if not read:
            return seen
        seen += read
        if questions and questions[0] in seen:
            questions.pop(0)
            os.write(terminal, text)
    return seen
