"""Subscribers out of a file and into one: transcripts, and what is in the database afterwards."""

from __future__ import annotations

import csv
import io
import os
import pty
import random
import select
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from make import SECRET, make_desk

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.flows import importing
from sms_aaa.flows.provisioning.realms import add_realm
from sms_aaa.flows.provisioning.subscribers import add_subscriber
from sms_aaa.flows.roster import REJECT_COLUMNS, Column
from sms_aaa.flows.vault import Vault
from sms_aaa.node.key import read_or_create_key

ROOT = Path(__file__).parents[2]
PLAN_FILE = str(ROOT / "policies" / "home-100.toml")
MARK = "wonder-MARKED-land"

ROSTER = """
    select b.name, b.full_name, b.email, b.phone, s.identity_kind, s.identity, s.state, s.state_reason,
           host(s.static_ipv4), s.valid_from, s.valid_until, p.name, v.version, a.currency, a.zone, a.anchor_day,
           a.charging_mode, c.form, c.sealed, s.id,
           (select array_agg((kind, value)::text order by kind, value) from service_binding where service_id = s.id),
           (select array_agg((state, reason, upper_inf(during))::text order by during) from service_state
            where service_id = s.id),
           (select count(*) from cycle_due d join subscription u on u.id = d.subscription_id where u.service_id = s.id),
           (select count(*) from assignment where service_id = s.id),
           (select count(*) from feed where kind = 'service' and object_id = s.id) > 0
    from subscriber b join service s on s.subscriber_id = b.id
    join subscription u on u.service_id = s.id and u.during @> now()
    join plan_version v on v.id = u.plan_version_id join plan p on p.id = v.plan_id
    join assignment g on g.service_id = s.id and g.during @> now() join account a on a.id = g.account_id
    left join credential c on c.service_id = s.id
    where b.removed_at is null order by b.name
"""


def query(terminal, statement: str, *parameters: object) -> list[tuple]:
    with connect(terminal.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        return connection.execute(statement, parameters).fetchall()


def vault_of(terminal) -> Vault:
    key = read_or_create_key(Path(terminal.environ["SMS_AAA_NODE_STATE_FOLDER"]) / "key", fresh=bytes(32))
    assert isinstance(key, bytes)
    return Vault(key)


def roster(terminal) -> list[tuple]:
    """Every subscriber with all that belongs to it, its password opened; without ids."""
    vault, rows = vault_of(terminal), []
    for row in query(terminal, ROSTER):
        sealed, service_id = row[18], row[19]
        stored = vault.open_password(sealed, service_id) if sealed is not None else None
        assert (stored is None) == (sealed is None)
        rows.append((*row[:18], stored, *row[20:]))
    return rows


def counts(terminal) -> list[tuple]:
    tables = query(terminal, "select relname from pg_stat_user_tables where schemaname = 'public' order by relname")
    with connect(terminal.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        return [(name, connection.execute(f'select count(*) from "{name}"').fetchone()) for (name,) in tables]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def planned(terminal):
    terminal.done("plan", "add", PLAN_FILE)
    return terminal


@pytest.fixture
def write(tmp_path):
    def written(text: str | bytes, name: str = "customers.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return written


WHOLE = f"""\
Name,username,mac,password,plan,full_name,email,phone,state,state_reason,static_ipv4,zone,anchor_day,valid_from,\
valid_until,bind_mac,bind_nas,bind_port
alice,,,{MARK},home-100,"Liddell, Alice",a@example.org,+44 1,,,198.51.100.7,Europe/London,31,,,,,
bob,bob@isp,,{MARK}2,home-100,"Bob ""the"" Builder",,,suspended,unpaid,,,,2026-01-01,2027-01-01T00:00Z,\
"02:00:00:00:00:01
02-00-00-00-00-02",bng1,slot=1;port=2
cam,,00:11:22:33:44:55,,home-100,,,,,,,,,,,,,
"""


def test_a_file_makes_what_the_single_commands_make(planned, write):
    planned.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    reported = planned.type("subscriber", "import", write(WHOLE), "--json").json()
    assert {key: reported[key] for key in ("lines", "added", "updated", "unchanged", "rejected", "rejects_file")} == {
        "lines": 5, "added": 3, "updated": 0, "unchanged": 0, "rejected": 0, "rejects_file": None,
    }  # fmt: skip
    imported = roster(planned)
    for name in ("alice", "bob", "cam"):
        planned.done("subscriber", "remove", name, "--yes")
    options = ("--plan", "home-100", "--password-stdin")
    planned.done(
        "subscriber", "add", "alice", *options, "--full-name", "Liddell, Alice", "--email", "a@example.org",
        "--phone", "+44 1", "--static-ip", "198.51.100.7", "--zone", "Europe/London", "--anchor-day", "31", typed=MARK,
    )  # fmt: skip
    planned.done(
        "subscriber", "add", "bob", *options, "--username", "bob@isp", "--full-name", 'Bob "the" Builder',
        typed=f"{MARK}2",
    )  # fmt: skip
    planned.done("subscriber", "set", "bob", "--valid-from", "2026-01-01", "--valid-until", "2027-01-01T00:00Z")
    planned.done("subscriber", "bind", "bob", "--mac", "02:00:00:00:00:01", "--mac", "020000000002", "--nas", "bng1")
    planned.done("subscriber", "bind", "bob", "--port", "slot=1;port=2")
    planned.done("subscriber", "suspend", "bob", "--reason", "unpaid")
    planned.done("subscriber", "add", "cam", "--plan", "home-100", "--mac", "001122334455")
    added = roster(planned)
    states = 20  # bob's history has the state that he was added in, too
    assert [row[:states] + row[states + 1 :] for row in imported] == [row[:states] + row[states + 1 :] for row in added]
    assert imported[1][20] == ["(2,unpaid,t)"]


def test_an_import_is_on_record_a_batch_a_row_and_every_line_knows_its_subscriber(planned, write, monkeypatch):
    monkeypatch.setattr(importing, "BATCH_RECORDS", 2)
    text = "name,mac,plan\n" + "".join(f"s{n},02000000000{n},home-100\n" for n in range(5)) + "bad,x,home-100\n"
    planned.type("subscriber", "import", write(text), "--ticket", "MIG-1")
    audit = query(planned, "select action, after, ticket from audit where object_kind = 'import' order by id")
    assert [(action, ticket) for action, _, ticket in audit] == [
        ("started", "MIG-1"), *[("batch-stored", "MIG-1")] * 3, ("finished", "MIG-1"),
    ]  # fmt: skip
    assert [after["lines"] for _, after, _ in audit[1:4]] == [[2, 3], [4, 5], [6, 7]]
    assert audit[4][1] == {"lines": 7, "added": 5, "updated": 0, "unchanged": 0, "rejected": 1}
    events = query(planned, "select kind from event where object_kind = 'import' order by id")
    assert [kind for (kind,) in events] == [f"import.{action}" for action, _, _ in audit]
    lines = query(
        planned, "select line, name from import_row r join subscriber b on b.id = subscriber_id order by line"
    )
    assert lines == [(n + 2, f"s{n}") for n in range(5)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the first line: there is none"),
        ("name;plan;password\n", "the first line: not columns of a subscriber file: 'name;plan;password'"),
        ("name,plan,passwort\n", "'passwort'; separate them by commas; known are name, username, mac, password,"),
        ("name,plan,Name\n", "the first line: the column name is there twice"),
        ("plan,password\n", "the first line: the column name is missing"),
        (b"name,pl\xe4n\n", "the first line: the line is not UTF-8"),
        ("name,plan\n".encode("utf-16"), "the first line: "),
    ],
)
def test_a_file_without_its_first_line_is_refused_at_once(planned, write, text, said):
    before = counts(planned)
    answer = planned.type("subscriber", "import", write(text))
    assert (answer.code, answer.out) == (Exit.INVALID, "")
    assert said in answer.err
    assert counts(planned) == before


# What is wrong with a row, in which field it is said, and what is said of it.
BAD = {
    "alice,,pw,home-100,,,,,,,,": ("name", "a subscriber of this name exists"),
    "mac-taken,02:00:00:00:00:01,,home-100,,,,,,,,": ("mac", "a service of this device exists"),
    "address-taken,,pw,home-100,,,198.51.100.7,,,,,": ("static_ipv4", "another service has this address"),
    "dora,,pw,home-100,,,,,,,,": ("name", "line 3 of the file has it already"),
    "same-device,020000000009,,home-100,,,,,,,,": ("mac", "line 4 of the file has it already"),
    "same-address,,pw,home-100,,,198.51.100.9,,,,,": ("static_ipv4", "line 5 of the file has it already"),
    "no-plan,,pw,,,,,,,,,": ("plan", "none is given"),
    "unknown-plan,,pw,home-1000,,,,,,,,": ("plan", "there is no plan 'home-1000'"),
    "unknown-version,,pw,home-100,2,,,,,,,": ("plan", "there is no plan 'home-100' version 2"),
    "odd-version,,pw,home-100,newest,,,,,,,": ("plan_version", "'newest' is not a number"),
    "no-proof,,,home-100,,,,,,,,": ("password", "a service that logs in by user name needs one"),
    f"long-proof,,{MARK + 'x' * 128},home-100,,,,,,,,": ("password", f"it has {len(MARK) + 128} octets"),
    f"two-proofs,02:00:00:00:00:0a,{MARK},home-100,,,,,,,,": ("mac", "a device is its own credential"),
    f"form,,{MARK},home-100,,,,,,,,rot13": ("password_form", "'rot13' is no form"),
    f"hash,,{MARK},home-100,,,,,,,,ssha": ("password", "in hex or base64"),
    f"told,,{MARK},home-100,,,,,,,,auto": ("password", "neither a {header} nor its beginning"),
    "device,00:11:22:33:44,,home-100,,,,,,,,": ("mac", "is not a hardware address"),
    "address,,pw,home-100,,,2001:db8::1,,,,,": ("static_ipv4", "Expected 4 octets"),
    "zone,,pw,home-100,,,,Atlantis/Poseidonis,,,,": ("zone", "is not a zone of the tz database"),
    "day,,pw,home-100,,,,,32,,,": ("anchor_day", "an anchor day is 1..31"),
    "day-word,,pw,home-100,,,,,first,,,": ("anchor_day", "'first' is not a number"),
    "state,,pw,home-100,,cancelled,,,,,,": ("state", "'cancelled' is no state"),
    "date,,pw,home-100,,,,,,31.12.2026,,": ("valid_from", "'31.12.2026' is no date"),
    "dates,,pw,home-100,,,,,,2026-02-01,2026-02-01,": ("valid_until", "it is not after the beginning"),
    " padded,,pw,home-100,,,,,,,,": ("name", "is not a name"),
    ",,pw,home-100,,,,,,,,": ("name", "is not a name"),
    "few,,pw,home-100": ("row", "it has 4 cells, the first line has 12"),
    f"many,,{MARK},home-100,,,,,,,,,,,": ("row", "it has 15 cells, the first line has 12"),
    f'quote,,"{MARK},home-100,,,,,,,,': ("row", "it is not CSV"),
    "nul,,p\0w,home-100,,,,,,,,": ("row", "it has a NUL octet"),
}
HEAD = "name,mac,password,plan,plan_version,state,static_ipv4,zone,anchor_day,valid_from,valid_until,password_form\n"
GOOD = """\
carl,,pw,home-100,1,suspended,,Asia/Tokyo,15,2026-01-01,2026-12-31T12:00+01:00,cleartext
dora,,pw,home-100,,,,,,,,
eve,020000000009,,home-100,,,,,,,,
finn,,pw,home-100,,,198.51.100.9,,,,,
"""


@pytest.fixture
def nasty(planned, write) -> str:
    planned.done("subscriber", "add", "alice", "--plan", "home-100", "--static-ip", "198.51.100.7", "--password", "pw")
    planned.done("subscriber", "add", "camera", "--plan", "home-100", "--mac", "020000000001")
    return write(HEAD + GOOD + "\n".join(BAD) + "\nlast,,pw,home-100,,,,,,,,\n")


def test_each_bad_row_is_rejected_alone_with_its_field_and_reason(planned, nasty):
    answer = planned.type("subscriber", "import", nasty, "--csv")
    assert answer.code == Exit.DIFFERENT
    [reported] = answer.csv()
    assert (reported["added"], reported["rejected"]) == ("5", str(len(BAD)))
    assert {row[0] for row in roster(planned)} == {"alice", "camera", "carl", "dora", "eve", "finn", "last"}
    path = Path(f"{nasty}.rejects.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rejected = rows_of(path)
    assert len(rejected) == len(BAD)
    for line, (row, (field, reason)), reject in zip(range(6, 99), BAD.items(), rejected, strict=False):
        assert (reject["reject_line"], reject["reject_field"]) == (str(line), field), reject
        assert reason in reject["reject_reason"]
        assert reject["reject_remedy"]
        told = "".join(reject[column] for column in REJECT_COLUMNS[1:4])
        assert MARK not in told, "a password is in the row, and never in what is said of it"
        if field != "row" or "NUL" in reason:
            assert ",".join([reject[name] for name in HEAD.strip().split(",")]) == row
        else:
            assert reject["reject_text"] == row
    assert "rejected for row: 4\n" in answer.err
    assert MARK not in answer.out + answer.err


def test_a_dry_run_reports_and_rejects_the_same_and_stores_nothing(planned, nasty, monkeypatch):
    monkeypatch.setattr(importing, "BATCH_RECORDS", 3)
    before = counts(planned)
    dry = planned.type("subscriber", "import", nasty, "--dry-run", "--json")
    rejects = Path(f"{nasty}.rejects.csv").read_bytes()
    assert counts(planned) == before
    wet = planned.type("subscriber", "import", nasty, "--json")
    assert dry.code == wet.code == Exit.DIFFERENT
    assert dry.json() | {"import": 1, "dry_run": False, "seconds": 0} == wet.json() | {"seconds": 0}
    assert Path(f"{nasty}.rejects.csv").read_bytes() == rejects


def crowd(chance: random.Random) -> str:
    """Rows that want what others want: few names, devices and addresses for many."""
    lines = ["name,mac,password,plan,static_ipv4,email"]
    for number in range(60):
        name = f"n{chance.randrange(25)}"
        mac, password = (f"02000000000{chance.randrange(8)}", "") if chance.random() < 0.5 else ("", f"p{number}")
        address = f"10.0.0.{chance.randrange(1, 9)}" if chance.random() < 0.4 else ""
        plan = chance.choice(["home-100", "home-100", "home-100", "", "none"])
        lines.append(f"{name},{mac},{password},{plan},{address},{chance.choice(['', 'a@example.org'])}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(2))
def test_dry_or_not_and_in_batches_of_any_size_a_crowd_comes_to_the_same(planned, write, monkeypatch, seed):
    """An update may free what another row wants, and a batch knows only of those before it: there the sizes differ."""
    chance = random.Random(seed)
    first, second = write(crowd(chance)), write(crowd(chance), "second.csv")
    ends = []
    for size in (1, 7, 1000):
        monkeypatch.setattr(importing, "BATCH_RECORDS", size)
        with connect(planned.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
            connection.execute("set session_replication_role = replica")  # what stays for good, too
            connection.execute("truncate subscriber, feed, audit, import_run restart identity cascade")
        seen = []
        for words in ((first,), (second, "--update")):
            reports = []
            for dry in (["--dry-run"], []):
                reported = planned.type("subscriber", "import", *words, *dry, "--json").json()
                told = {key: reported[key] for key in ("lines", "added", "updated", "unchanged", "rejected")}
                reports.append((told, Path(f"{words[0]}.rejects.csv").read_bytes()))
            assert reports[0] == reports[1]
            seen.append((reports[0], roster(planned)))
        assert seen[0][0][0]["added"] > 5
        assert seen[1][0][0]["updated"] > 3
        ends.append(seen[0])
    assert ends[0] == ends[1] == ends[2]


def test_a_dry_run_of_an_update_knows_what_its_own_rows_freed_and_took(planned, write, monkeypatch):
    monkeypatch.setattr(importing, "BATCH_RECORDS", 1)
    planned.done("subscriber", "import", write("name,mac,plan\nold,020000000001,home-100\n"))
    text = "name,mac,plan\nold,020000000002,\nnew,020000000001,home-100\nlate,020000000002,home-100\nold,,\n"
    changes = write(text, "changes.csv")
    answers = [planned.type("subscriber", "import", changes, "--update", *dry) for dry in (["--dry-run"], [])]
    assert [answer.code for answer in answers] == [1, 1]
    told = [[line for line in answer.lines if not line.startswith(("import", "dry", "seconds"))] for answer in answers]
    assert told[0] == told[1]
    assert [(row[0], row[5]) for row in roster(planned)] == [("new", "020000000001"), ("old", "020000000002")]
    rejected = rows_of(Path(f"{changes}.rejects.csv"))
    assert [(row["reject_field"], row["reject_reason"]) for row in rejected] == [
        ("mac", "line 2 of the file has it already"),
        ("name", "line 2 of the file has it already"),
    ]


def test_a_mended_rejects_file_is_imported_itself(planned, nasty):
    planned.type("subscriber", "import", nasty)
    path = Path(f"{nasty}.rejects.csv")
    rows = [row for row in rows_of(path) if row["name"] in {"unknown-plan", "day"}]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"plan": "home-100", "anchor_day": "31"} for row in rows)
    assert planned.type("subscriber", "import", str(path), "--json").json()["added"] == 2
    assert not Path(f"{path}.rejects.csv").exists()


def test_a_file_is_imported_once_unless_it_is_wanted_again(planned, write):
    file = write("name,mac,plan\na,020000000001,home-100\nb,020000000002,none\n")
    first = planned.type("subscriber", "import", file, "--json").json()
    again = planned.type("subscriber", "import", file, "--json")
    assert again.code == Exit.DIFFERENT
    assert again.json() | {"seconds": 0} == first | {"seconds": 0}
    assert "--again repeats it" in again.err
    planned.done("subscriber", "remove", "a", "--yes")
    anew = planned.type("subscriber", "import", file, "--again", "--json").json()
    assert (anew["import"], anew["added"], anew["rejected"]) == (first["import"] + 1, 1, 1)


def test_an_update_changes_what_the_file_says_and_leaves_the_rest(planned, write):
    planned.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    planned.done("subscriber", "import", write(WHOLE))
    before = {row[0]: row for row in roster(planned)}
    fed = query(planned, "select max(id) from feed")[0][0]
    text = "name,email,password,state,bind_port\nalice,new@example.org,,,\nbob,,other,active,\ncam,,,,\nzoe,,,,\n"
    answer = planned.type("subscriber", "import", write(text, "update.csv"), "--update", "--json")
    reported = answer.json()
    assert {key: reported[key] for key in ("added", "updated", "unchanged", "rejected")} == {
        "added": 0, "updated": 2, "unchanged": 1, "rejected": 1,
    }  # fmt: skip
    after = {row[0]: row for row in roster(planned)}
    assert after["cam"] == before["cam"]
    assert after["alice"][2] == "new@example.org"
    assert after["alice"][3:] == before["alice"][3:]
    bob = after["bob"]
    assert (bob[6], bob[7], bob[18].cleartext) == (1, "", b"other")
    assert bob[19] == ["(1,020000000001)", "(1,020000000002)", f"(2,{query(planned, 'select id from nas')[0][0]})"]
    assert bob[20] == ["(2,unpaid,f)", '(1,"",t)']
    assert bob[8:17] == before["bob"][8:17]
    changed = query(
        planned, "select distinct s.identity from feed f join service s on s.id = object_id where f.id > %s", fed
    )
    assert changed == [("bob@isp",)], "who did not change is not sent to the nodes"
    [reject] = rows_of(Path(reported["rejects_file"]))
    assert (reject["name"], reject["reject_field"]) == ("zoe", "plan")


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("alice,,,America/Lima,", "zone", "its cycles begin on day 31 in Europe/London"),
        ("alice,,020000000001,,", "mac", "a device does not become a user name"),
        ("cam,cam,,,", "mac", "a device does not become a user name"),
        ("alice,bob@isp,,,", "username", "a service of this user name exists"),
        ("bob,,,,active", "state", "it is blocked (spam)"),
        ("alice,,,,frozen", "state", "is no state"),
    ],
)
def test_what_an_update_may_not_change_is_rejected(planned, write, row, field, reason):
    planned.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    planned.done("subscriber", "import", write(WHOLE))
    planned.done("subscriber", "restore", "bob")
    planned.done("subscriber", "block", "bob", "--reason", "spam")
    before = roster(planned)
    file = write(f"name,username,mac,zone,state\n{row}\n", "update.csv")
    assert planned.type("subscriber", "import", file, "--update").code == Exit.DIFFERENT
    [reject] = rows_of(Path(f"{file}.rejects.csv"))
    assert reject["reject_field"] == field
    assert reason in reject["reject_reason"]
    assert roster(planned) == before


def test_an_update_of_the_plan_is_dated_and_pins_the_newest_version(planned, write, tmp_path):
    planned.done("subscriber", "import", write("name,mac,plan\na,020000000001,home-100\nb,020000000002,home-100\n"))
    other = tmp_path / "other.toml"
    other.write_text(Path(PLAN_FILE).read_text().replace('name = "home-100"', 'name = "other"'))
    planned.done("plan", "add", str(other))
    planned.done("subscriber", "import", write("name,plan\na,other\nb,home-100\n", "update.csv"), "--update")
    dated = query(
        planned,
        """select s.identity, p.name, upper_inf(u.during) from subscription u join service s on s.id = u.service_id
           join plan_version v on v.id = u.plan_version_id join plan p on p.id = v.plan_id
           order by 1, lower(u.during)""",
    )
    assert dated == [
        ("020000000001", "home-100", False), ("020000000001", "other", True), ("020000000002", "home-100", True),
    ]  # fmt: skip
    # One whose plan is to change already is updated in all but its plan.
    planned.done("subscriber", "set-plan", "b", "other", "--at", f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%d}")
    file = write("name,full_name,plan\nb,Bea,home-100\na,Ann,other\n", "names.csv")
    planned.done("subscriber", "import", file, "--update")
    file = write("name,plan\nb,other\n", "plans.csv")
    assert planned.type("subscriber", "import", file, "--update").code == Exit.DIFFERENT
    [reject] = rows_of(Path(f"{file}.rejects.csv"))
    assert (reject["reject_field"], "it is to change at" in reject["reject_reason"]) == ("plan", True)
    assert "Bea" in planned.done("subscriber", "show", "b")


def test_names_in_a_realm_are_stored_as_a_login_looks_them_up_on_the_realms_plan(planned, write):
    with connect(planned.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        add_realm(make_desk(connection), "isp.example", is_stripped=True, plan="home-100", nases=[])
        connection.commit()
    text = "name,password,plan\nalice@ISP.example,pw,\nalice,pw,home-100\nbob@elsewhere,pw,home-100\n"
    file = write(text)
    assert planned.type("subscriber", "import", file).code == Exit.DIFFERENT
    assert [(row[0], row[5]) for row in roster(planned)] == [
        ("alice@ISP.example", "alice"), ("bob@elsewhere", "bob@elsewhere"),
    ]  # fmt: skip
    [reject] = rows_of(Path(f"{file}.rejects.csv"))
    assert (reject["reject_field"], reject["reject_line"]) == ("username", "3")


HASHES = {
    "nt": "8846f7eaee8fb117ad06bdd830b7586c",
    "ssha256": "{SSHA256}" + "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" + "73616c74",
    "crypt": "$6$rounds=5000$abcdefgh$" + "x" * 86,
    "argon2": "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
}


def test_an_export_with_passwords_imports_into_an_empty_database_as_the_same(planned, write, tmp_path):
    planned.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    planned.done("subscriber", "import", write(WHOLE))
    hashed = "".join(f'{form},{form},"{text}",home-100\n' for form, text in HASHES.items())
    odd = 'odd,cleartext,"comma, ""quote"" \u2603\nline",home-100\n'
    planned.done("subscriber", "import", write("name,password_form,password,plan\n" + hashed + odd, "hashed.csv"))
    planned.done("subscriber", "block", "alice", "--reason", "spam, case 1")
    planned.done("subscriber", "set", "cam", "--valid-until", "2030-06-01T12:00:01+02:00")
    newer = tmp_path / "newer.toml"
    newer.write_text(Path(PLAN_FILE).read_text().replace("100 Mbit/s at home", "another"))
    planned.done("plan", "add", str(newer))
    planned.done("subscriber", "add", "removed", "--plan", "home-100", "--mac", "02:00:00:00:00:77")
    planned.done("subscriber", "remove", "removed", "--yes")
    before = roster(planned)
    assert len({row[12] for row in before}) == 1, "they stay on the version that they were sold"
    file = tmp_path / "all.csv"
    planned.done("subscriber", "export", str(file), "--with-passwords", "--yes")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with connect(planned.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        connection.execute("set session_replication_role = replica")  # what stays for good, too
        connection.execute("truncate subscriber, feed, audit, import_run cascade")
    assert roster(planned) == []
    assert planned.type("subscriber", "import", str(file), "--json").json()["added"] == len(before)
    history = 20  # an import knows the state that is, not those that were
    assert [row[:history] + row[history + 1 :] for row in roster(planned)] == [
        row[:history] + row[history + 1 :] for row in before
    ]
    again = tmp_path / "again.csv"
    planned.done("subscriber", "export", str(again), "--with-passwords", "--yes")
    assert again.read_bytes() == file.read_bytes()


def test_an_export_without_passwords_has_no_column_for_them_and_changes_nothing_as_an_update(planned, write, tmp_path):
    planned.done("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=SECRET.decode())
    planned.done("subscriber", "import", write(WHOLE))
    before = roster(planned)
    shown = planned.type("subscriber", "export")
    assert shown.out.splitlines()[0] == ",".join(column for column in Column if "password" not in column)
    assert "3 subscribers exported\n" in shown.err
    file = write(shown.out, "exported.csv")
    reported = planned.type("subscriber", "import", file, "--update", "--json").json()
    assert (reported["unchanged"], reported["updated"], reported["rejected"]) == (3, 0, 0)
    assert roster(planned) == before


def test_an_export_of_passwords_asks_and_stays_on_record(planned, write, tmp_path):
    planned.done("subscriber", "import", write(WHOLE.replace(",bng1,", ",,")))
    file = tmp_path / "all.csv"
    refused = planned.type("subscriber", "export", str(file), "--with-passwords", typed="n\n")
    assert refused.code == Exit.ABORTED
    assert not file.exists()
    assert query(planned, "select 1 from audit where action = 'exported'") == []
    planned.done("subscriber", "export", str(file), "--with-passwords", "--ticket", "T-9", typed="y\n")
    assert MARK in file.read_text()
    assert query(planned, "select object_kind, after, ticket from audit where action = 'exported'") == [
        ("passwords", {"to": str(file)}, "T-9")
    ]


def test_a_credential_of_another_key_is_exported_empty_and_said(planned, write, tmp_path):
    planned.done("subscriber", "import", write(WHOLE.replace(",bng1,", ",,")))
    (Path(planned.environ["SMS_AAA_NODE_STATE_FOLDER"]) / "key").write_text(bytes(range(32)).hex())
    answer = planned.type("subscriber", "export", str(tmp_path / "all.csv"), "--with-passwords", "--yes")
    assert "2 of them without their password, which does not open" in answer.err
    assert MARK not in (tmp_path / "all.csv").read_text()


def test_no_password_is_exported_to_a_screen(planned, write):
    planned.done("subscriber", "import", write(WHOLE.replace(",bng1,", ",,")))
    code, screen = on_a_terminal(planned, "subscriber", "export", "--with-passwords", "--yes")
    assert code == Exit.INVALID
    assert "no password is shown on a screen" in screen
    assert MARK not in screen


def test_standard_input_is_a_file_too(planned, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "name,mac,plan\na,020000000001,home-100\nb,x,home-100\n"
    assert (
        planned.type(
            "subscriber",
            "import",
            "-",
            typed=text,
        ).code
        == Exit.DIFFERENT
    )
    assert rows_of(tmp_path / "stdin.rejects.csv")[0]["name"] == "b"
    assert "--again" in planned.type("subscriber", "import", "-", typed=text).err


def test_the_rejects_go_where_they_are_told_and_never_over_another_file(planned, write, tmp_path):
    file = write("name,mac,plan\nb,x,home-100\n")
    for rejects, said in (
        (file, "is the file that is imported"),
        (write("precious\n", "other"), "is no file of rejects"),
    ):
        answer = planned.type("subscriber", "import", file, "--rejects", rejects)
        assert answer.code == Exit.INVALID
        assert said in answer.err
    assert (tmp_path / "other").read_text() == "precious\n"
    before = Path("/dev/null").stat().st_mode
    for words in (("import", file, "--rejects", "/dev/null"), ("export", "/dev/null"), ("export", str(tmp_path))):
        answer = planned.type("subscriber", *words)
        assert answer.code == Exit.INVALID
        assert "is no file" in answer.err
    assert Path("/dev/null").stat().st_mode == before
    path = tmp_path / "elsewhere.csv"
    assert planned.type("subscriber", "import", file, "--rejects", str(path), "--json").json()["rejects_file"] == str(
        path
    )
    assert rows_of(path)[0]["reject_field"] == "mac"


def test_what_is_not_there_is_said(planned, tmp_path):
    answer = planned.type("subscriber", "import", str(tmp_path / "none.csv"))
    assert answer.code == Exit.UNAVAILABLE
    assert "No such file" in answer.err


def test_a_name_that_somebody_takes_meanwhile_costs_that_row_alone(planned, write):
    """The import finds the name free, and waits at the unique index for whoever is about to take it."""
    from sms_aaa.flows.provisioning.subscribers import NewSubscriber

    file = write("name,mac,plan\na,020000000001,home-100\nracer,020000000002,home-100\nz,020000000003,home-100\n")
    dsn = planned.environ["SMS_AAA_DATABASE_DSN"]
    with connect(dsn, name="test") as other:
        new = NewSubscriber(name="racer", plan="home-100", mac="02000000000f", zone="UTC", anchor_day=1)
        add_subscriber(make_desk(other, vault_of(planned)), new)
        answers = []
        thread = threading.Thread(target=lambda: answers.append(planned.type("subscriber", "import", file)))
        thread.start()
        waiting = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        until = time.monotonic() + 20
        with psycopg.connect(dsn, autocommit=True) as watch:
            while not watch.execute(waiting).fetchone():
                assert time.monotonic() < until
                time.sleep(0.01)
        other.commit()
        thread.join()
    assert answers[0].code == Exit.DIFFERENT
    assert {row[0] for row in roster(planned)} == {"a", "racer", "z"}
    assert rows_of(Path(f"{file}.rejects.csv"))[0]["reject_reason"] == "a subscriber of this name exists"


def test_a_row_that_the_database_alone_refuses_is_rejected_alone(planned, write):
    with connect(planned.environ["SMS_AAA_DATABASE_DSN"], name="test") as connection:
        connection.execute("alter table subscriber add constraint refused check (phone <> 'poison')")
    rows = "".join(f"s{n},0200000000{n:02x},home-100,{'poison' if n == 7 else n}\n" for n in range(20))
    file = write("name,mac,plan,phone\n" + rows)
    reported = planned.type("subscriber", "import", file, "--json").json()
    assert (reported["added"], reported["rejected"], reported["lines"]) == (19, 1, 21)
    assert [row[0] for row in roster(planned)] == sorted(f"s{n}" for n in range(20) if n != 7)
    [reject] = rows_of(Path(f"{file}.rejects.csv"))
    assert (reject["reject_line"], reject["reject_reason"]) == ("9", "the database refuses it (CheckViolation)")


def test_a_bar_is_drawn_on_a_terminal(planned, write):
    text = "name,mac,plan\n" + "".join(f"s{n},0200000000{n:02x},home-100\n" for n in range(20))
    code, screen = on_a_terminal(planned, "subscriber", "import", write(text))
    assert code == 0
    assert "21/21" in screen
    assert "━" in screen


def on_a_terminal(terminal, *words: str) -> tuple[int, str]:
    """Exit code, and what came to the screen of a real terminal."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, **terminal.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("sms-aaa"), *words], env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = io.BytesIO()
    try:
        while select.select([ours], [], [], 30)[0]:
            screen.write(os.read(ours, 65_536))
    except OSError:  # its side is closed
        pass
    os.close(ours)
    return process.wait(30), screen.getvalue().decode()
