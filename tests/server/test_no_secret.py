"""No secret in any log, table, trace or error: marked ones are planted, everything is provoked, everywhere is looked.

One server lives through it all: the secrets of its NASes, passwords in every form and its DSN are marked; there are
logins of every method, right and wrong, accounting with a password in it, malformed packets, imports with rows that
cannot be, a database that refuses, a key that is not the one. Then every table, every file of the state folder with
PostgreSQL's own, the log of all processes, metrics, health and whatever a command ever said are searched for every form
of every mark.

Each place is also shown to be looked at: a leak that is planted there is found.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import logging
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote
from urllib.request import urlopen

import click
import pytest
from click.testing import CliRunner
from daemon import Daemon, FakeNas, wait_until
from hunt import Needles
from make import Said, packet_of

from sms_aaa.cli.main import main
from sms_aaa.db.engine import connect
from sms_aaa.flows.vault import Vault
from sms_aaa.radius import dictionary
from sms_aaa.radius.credentials import Chap, Pap, StoredPassword
from sms_aaa.radius.digest import SecretDigests, chap_response
from sms_aaa.radius.packet import Code, attribute
from sms_aaa.radius.request import accounting_request
from sms_aaa.rules.secret import Secret
from sms_aaa.server.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PLAN_FILE = str(ROOT / "policies" / "home-100.toml")
METHODS = ("pap", "chap", "mschap", "mschap2")

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


COPIED_SECRETS = (
    dictionary.TUNNEL_PASSWORD,
    dictionary.ARAP_PASSWORD,
    dictionary.MS_CHAP_RESPONSE,
    dictionary.MS_CHAP2_RESPONSE,
    dictionary.MS_CHAP2_CPW,
    dictionary.MS_MPPE_SEND_KEY,
    dictionary.MS_MPPE_RECV_KEY,
    dictionary.MIKROTIK_WIRELESS_PSK,
    529 << 8 | 214,  # Ascend-Send-Secret
    14823 << 8 | 44,  # Aruba-MPSK-Passphrase
)
"""What a NAS may copy from an Accept, or from its own Access-Request, into its accounting."""

CORE = secrets.token_hex(6)
"""In every mark, so that a large place need not be searched for each of them."""


def _mark(what: str) -> bytes:
    """Has letters that JSON, a URL and Latin-1 write otherwise, and enough chance not to be there by accident."""
    return f"m/{what}-{CORE} \u00fc%".encode()


def _written(path: Path) -> bytes:
    """What is in a file, without the blocks that are allotted to it ahead."""
    found = []
    with path.open("rb") as file:
        while block := file.read(65_536):
            if block.count(0) < len(block):
                found.append(block)
    return b"".join(found)


@dataclass
class World:
    """A server, and all that ever came out of it and of the commands."""

    daemon: Daemon
    folder: Path
    marks: dict[str, bytes] = field(default_factory=dict)
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    def mark(self, what: str) -> bytes:
        return self.marks.setdefault(what, _mark(what))

    def type(self, *words: str, typed: bytes = b"", codes: tuple[int, ...] = (0,), **environ: str) -> str:
        """A command; what it says is kept."""
        done = CliRunner(env={**self.daemon.environ, **environ}).invoke(main, words, input=typed, prog_name="sms-aaa")
        self.outputs.append((f"output of {' '.join(words)[:60]}", done.stdout_bytes + done.stderr_bytes))
        assert done.exit_code in codes, (words, done.stderr)
        return done.stdout

    def places(self) -> Iterator[tuple[str, bytes]]:
        """(what, its octets) of everything that anybody may come to read."""
        yield from self.outputs
        for log in self.logs:
            yield f"log {log.name}", log.read_bytes()
        for page in ("metrics", "healthz"):
            with urlopen_anyhow(f"http://127.0.0.1:{self.daemon.metrics_port}/{page}") as answer:
                yield page, answer.read()
        for process in self.daemon.running().processes:
            if process.pid:
                yield f"command line of {process.name}", Path(f"/proc/{process.pid}/cmdline").read_bytes()
        yield from self.tables()
        self.daemon.execute("checkpoint")
        for path in sorted(self.daemon.folder.rglob("*")):
            if path.is_file() and path.name != "key":
                yield f"file {path.relative_to(self.daemon.folder)}", _written(path)

    def tables(self) -> Iterator[tuple[str, bytes]]:
        with connect(self.daemon.dsn, name="test") as connection:
            names = connection.execute(
                "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
            ).fetchall()
            for (name,) in [*names, ("pg_stat_activity",)]:
                with connection.cursor().copy(f"copy (select * from {name}) to stdout") as copy:
                    yield f"table {name}", b"".join(map(bytes, copy))

    def keep_files(self, when: str) -> None:
        """Of the state folder as it is now, since some go: the journal's and the drop log's."""
        for path in self.daemon.folder.rglob("*"):
            name = str(path.relative_to(self.daemon.folder))
            if path.is_file() and path.name != "key" and not name.startswith("postgres"):
                self.outputs.append((f"file {name} {when}", _written(path)))

    def findings(self) -> list[str]:
        """Everything is searched for every mark and what is made of it, PostgreSQL's pages for what all marks have."""
        full = Needles(self.marks)
        without_core = {name: mark for name, mark in self.marks.items() if CORE.encode() not in mark}
        quick = Needles({"a mark": CORE.encode(), **without_core})
        return [
            f"{what}: {found}"
            for what, data in self.places()
            for found in (quick if what.startswith("file postgres/") else full).found_in(data)
        ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secrets")
    daemon = Daemon(folder / "state", dsn=None, SMS_AAA_LOG_LEVEL="debug").start()
    world = World(daemon, folder, logs=[daemon.log])
    try:
        _provision(world)
        _import_and_export(world)
        _log_in(world)
        _account(world)
        _send_garbage(world)
        _ask(world)
        world.keep_files("while it runs")
        _break(world)
        _refuse_connections(world)
        _start_without_a_database(world)
        _start_under_another_key(world)
        yield world
    finally:
        daemon.stop()


def _provision(world: World) -> None:
    world.type("nas", "add", "bng1", "127.0.0.1", "--secret-stdin", typed=world.mark("nas-secret"))
    world.type("nas", "add", "bng2", "127.0.0.2", "--secret-stdin", typed=world.mark("old-secret"))
    world.type("nas", "rotate-secret", "bng2", "--secret-stdin", typed=world.mark("given-up-secret"))
    world.type("nas", "rotate-secret", "bng2", "--cancel")
    generated = world.type("nas", "rotate-secret", "bng2", "--generate")
    world.outputs.pop()  # it is shown once, and this was it
    world.type("nas", "rotate-secret", "bng2", "--finish", "--force")
    world.type("nas", "add", "bng3", "127.0.0.3", "--secret-stdin", typed=world.mark("third")[:7], codes=(2,))
    world.type("nas", "rotate-secret", "bng1", "--secret-stdin", typed=world.mark("next-secret"))
    world.marks["generated"] = re.findall("secret: ([0-9a-f]{32})", generated)[0].encode()
    world.type("plan", "add", PLAN_FILE)
    for name in ("alice", "poison"):
        password = world.mark(f"{name}-password")
        world.type("subscriber", "add", name, "--plan", "home-100", "--password-stdin", typed=password)
    world.type("credential", "set", "alice", "--password-stdin", typed=world.mark("next-password"))
    world.type("credential", "set", "alice", "--password-stdin", typed=world.mark("too-long") * 10, codes=(2,))
    world.type("credential", "set", "nobody", "--password-stdin", typed=world.mark("nobodys"), codes=(3,))
    _provision_hashes(world)


def _provision_hashes(world: World) -> None:
    """The password behind a hash is marked, and what is stored of it: in a hash of crypt(3) the salt."""
    password = world.mark("hashed-password")
    salt = secrets.token_hex(6).encode()
    world.marks["digest"] = hashlib.sha256(password + salt).hexdigest().encode()
    world.marks["crypt-salt"] = secrets.token_hex(7).encode()
    texts = {
        "nt": StoredPassword.from_cleartext(password).nt_hash.hex().encode(),  # type: ignore[union-attr] # has one
        "ssha256": world.marks["digest"] + salt.hex().encode(),
        "crypt": b"$6$rounds=5000$" + world.marks["crypt-salt"] + b"$" + b"x" * 86,
    }
    for form, text in texts.items():
        add = ("subscriber", "add", f"by-{form}", "--plan", "home-100", "--password-stdin", "--form", form)
        world.type(*add, typed=text)
    world.type("credential", "set", "by-nt", "--form", "nt", "--password-stdin", typed=b"x" + texts["nt"], codes=(2,))
    world.type("credential", "set", "by-nt", "--form", "auto", "--password-stdin", typed=password, codes=(2,))


def _import_and_export(world: World) -> None:
    file, changes = world.folder / "customers.csv", world.folder / "changes.csv"
    rows = [
        ["imported", world.mark("imported"), "cleartext", "home-100", ""],
        ["no-plan", world.mark("of-no-plan"), "", "none", ""],
        ["too-long", world.mark("long-import").decode() * 10, "", "home-100", ""],
        ["odd-form", world.mark("odd-form"), "auto", "home-100", ""],
        ["not-a-hash", world.mark("not-a-hash"), "ssha512", "home-100", ""],
        ["alice", world.mark("of-a-double"), "", "home-100", ""],
        ["device", world.mark("of-a-device"), "", "home-100", "02:00:00:00:00:01"],
        ["more", world.mark("of-many-cells"), "", "home-100", "", "cell"],
        ["refused", world.mark("refused-by-the-database"), "", "home-100", ""],
    ]
    for path, lines in ((file, rows), (changes, [["imported", world.mark("updated"), "", "", ""]])):
        with path.open("w") as out:
            writer = csv.writer(out)
            writer.writerow(["name", "password", "password_form", "plan", "mac"])
            writer.writerows([cell.decode() if isinstance(cell, bytes) else cell for cell in row] for row in lines)
            if path == file:
                out.write(f'open,"{world.mark("open-quote").decode()},,home-100,\n')
    world.daemon.execute("alter table subscriber add constraint refused check (name <> 'refused')")
    world.type("subscriber", "import", str(file), "--dry-run", codes=(1,))
    world.type("subscriber", "import", str(file), codes=(1,))
    world.daemon.execute("alter table subscriber drop constraint refused")
    with Path(f"{file}.rejects.csv").open(newline="") as rejects:
        told = [row[f"reject_{what}"] for row in csv.DictReader(rejects) for what in ("field", "reason", "remedy")]
    assert len(told) == 3 * 9
    world.outputs.append(("what is said of rejects", "\n".join(told).encode()))
    world.type("subscriber", "import", str(changes), "--update")
    world.type("subscriber", "import", "-", typed=b"name," + world.mark("as-a-column") + b"\n", codes=(2,))
    world.outputs.pop()  # it names the column, since that is where nobody keeps a secret
    del world.marks["as-a-column"]
    world.type("subscriber", "export")
    world.type("subscriber", "export", str(world.folder / "all.csv"), "--with-passwords", "--yes")
    assert world.marks["updated"] in (world.folder / "all.csv").read_bytes()


def _log_in(world: World) -> None:
    marks = world.marks
    with FakeNas(world.daemon, secret=marks["nas-secret"]) as nas:

        def is_accepted(name: bytes, password: bytes) -> bool:
            reply = nas.login(name, password)
            return reply is not None and reply.code == Code.ACCESS_ACCEPT

        wait_until(lambda: is_accepted(b"imported", marks["updated"]), "the imported in the replica")
        for method in METHODS:
            station = attribute(dictionary.CALLING_STATION_ID, f"02-00-00-00-00-{METHODS.index(method):02X}".encode())
            for name, password in (
                (b"alice", marks["next-password"]),
                (b"alice", world.mark(f"wrong-{method}")),
                (b"nobody", world.mark(f"unknown-{method}")),
                (b"by-nt", marks["hashed-password"]),
                (b"by-ssha256", marks["hashed-password"]),
                (b"by-crypt", marks["hashed-password"]),
            ):
                nas.login(name, password, method, station)
    with FakeNas(world.daemon, secret=marks["next-secret"]) as nas:
        nas.login(b"alice", marks["next-password"])
    with FakeNas(world.daemon, secret=world.mark("not-the-secret"), patience=0.2) as stranger:
        stranger.login(b"alice", marks["next-password"])
    wait_until(
        lambda: world.daemon.query("select 1 from decision where username = 'by-crypt'"), "the decisions in PostgreSQL"
    )


def _account(world: World) -> None:
    """RFC 2866 section 5 forbids a password in an Accounting-Request; a NAS sends it hidden, and one even bare."""
    digests = SecretDigests(world.marks["nas-secret"])
    hidden = world.mark("hidden-in-accounting")
    world.daemon.execute("alter table session add constraint refused check (username <> 'poison')")
    began = datetime.now(UTC) - timedelta(minutes=20)
    with FakeNas(world.daemon, secret=world.marks["nas-secret"]) as nas:
        for name, proofs in (
            (b"alice", [attribute(dictionary.USER_PASSWORD, digests.hide_password(hidden, bytes(16)))]),
            (b"alice", [attribute(dictionary.USER_PASSWORD, world.mark("bare-in-accounting"))]),
            (b"alice", [attribute(dictionary.USER_PASSWORD, world.mark(f"twice-{n}")) for n in range(2)]),
            (b"alice", [attribute(dictionary.CHAP_PASSWORD, b"\1" + chap_response(1, hidden, bytes(16)))]),
            (b"alice", [attribute(key, world.mark(f"attribute-{key}")) for key in COPIED_SECRETS]),
            (b"alice", [attribute(dictionary.CISCO_AVPAIR, b"psk=" + world.mark("pair-in-accounting"))]),
            (b"poison", [attribute(dictionary.USER_PASSWORD, world.mark("bare-in-quarantine"))]),
        ):
            said = Said(status="stop", at=began, username=name, session=secrets.token_hex(4), seconds=60, octets_in=7,
                        octets_out=9, extra=b"".join(proofs))  # fmt: skip
            packet = accounting_request(nas.next_identifier(), packet_of(said)[20:], digests)
            assert nas.account(packet) is not None, "it is answered and counted all the same"
    wait_until(lambda: world.daemon.query("select 1 from quarantine"), "the quarantine")
    wait_until(lambda: world.daemon.query("select 1 from session having count(*) = 6"), "the sessions")
    world.daemon.execute("alter table session drop constraint refused")
    [(raw,)] = world.daemon.query("select raw from quarantine")
    assert attribute(dictionary.USER_NAME, b"poison") in bytes(raw)  # type: ignore[arg-type] # bytea


def _send_garbage(world: World) -> None:
    """Packets that are dropped, with a mark where octets can be."""
    mark = world.mark("garbage")
    digests = SecretDigests(world.marks["nas-secret"])
    with FakeNas(world.daemon, secret=world.marks["nas-secret"]) as nas:
        bare = attribute(dictionary.USER_NAME, b"alice") + attribute(dictionary.USER_PASSWORD, mark)
        for code in (1, 2, 4, 5, 11, 12, 40, 77, 255):
            for body in (bare, bare + b"\x02\xff" + mark, bare + b"\x02\x00", bare + b"\x50\x06" + mark[:4], mark):
                for length in (20 + len(body), 19, 21 + len(body), 4097):
                    header = bytes((code, nas.next_identifier())) + length.to_bytes(2, "big") + os.urandom(16)
                    for port in (world.daemon.access_port, world.daemon.accounting_port):
                        nas.send(header + body, port)
        two = attribute(dictionary.USER_PASSWORD, mark) * 2
        nas.ask(nas.login_request(b"alice", mark, extra=two), world.daemon.access_port)
        nas.ask(accounting_request(1, bare, digests), world.daemon.accounting_port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 0))
            stranger.sendto(mark, ("127.0.0.1", world.daemon.access_port))
    time.sleep(1.5)  # the drop log is kept once a second


def _ask(world: World) -> None:
    """Every command that lists or shows: those that need no name, and others of those that know a secret."""
    for words in (
        *((*path.split(), "--json") for path in _listings()),
        ("status",), ("nas", "show", "bng1", "--json"),
        ("nas", "show", "bng2"), ("plan", "show", "home-100", "--json"), ("subscriber", "list", "--json"),
        ("subscriber", "show", "alice", "--json"), ("subscriber", "show", "by-crypt"),
        ("credential", "show", "alice", "--json"), ("credential", "show", "by-crypt"), ("credential", "show", "by-nt"),
        ("sessions", "alice", "--all", "--json"), ("why", "alice", "--last", "50"),
        ("why", "alice", "--last", "50", "--json"), ("why", "nobody", "--last", "50", "--csv"),
        ("usage", "alice"), ("explain", "alice", "--packets"), ("explain", "alice", "--packets", "--json"),
        ("ledger", "list"), ("ledger", "balance"),
        ("reconcile",), ("db", "check"), ("db", "status"), ("config", "show"), ("config", "show", "--json"),
    ):  # fmt: skip
        world.type(*words, codes=(0, 1, 2, 6))  # 2: one that wants to be told more; 6: one that asks
    ports = ("--auth-port", str(world.daemon.access_port), "--acct-port", str(world.daemon.accounting_port))
    password = world.mark("of-the-load").decode().replace("%", "%%")
    load = (
        "load",
        *ports,
        "--count",
        "20",
        "--method",
        "mschap2",
        "--password",
        f"{password}%d",
        "--users",
        "load%03d",
    )
    world.type(*load, "--secret-stdin", typed=world.marks["nas-secret"], codes=(0, 1))
    world.type(*load, RADIUS_SECRET=world.mark("secret-in-the-environment").decode(), codes=(5,))
    said = dict(world.outputs)["output of explain alice --packets"]
    assert b"User-Password" in said, "the packets with the passwords are those that are shown"


def _listings() -> Iterator[str]:
    """The commands that take --json and can be typed without an argument."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        verbs = command.commands if isinstance(command, click.Group) else {"": command}
        for verb, inner in verbs.items():
            options = {option for parameter in inner.params for option in parameter.opts}
            if "--json" in options and name != "load" and not any(parameter.required for parameter in inner.params):
                yield f"{name} {verb}".strip()


def _break(world: World) -> None:
    """A statement that does not fit, a row that is refused: each is said in the log, with its trace."""
    world.daemon.execute("alter table decision rename to gone")
    with FakeNas(world.daemon, secret=world.marks["nas-secret"]) as nas:
        nas.login(b"alice", world.mark("while-broken"))
        wait_until(lambda: b"UndefinedTable" in world.daemon.log.read_bytes(), "what is said of it in the log")
        world.type("why", "alice", codes=(0, 5))
    world.daemon.execute("alter table gone rename to decision")
    broken = world.folder / "broken.toml"
    secret = world.mark("in-a-dsn").decode().replace(" ", "").replace("%", "").replace("/", "")
    world.marks["in-a-dsn"] = secret.encode()
    for line in (
        f'dsn = "postgresql://sms:{secret}@db.example:port/x"',
        f'dsn = "host=db.example password={secret} colour=blue"',
        f'dsn = "postgresql://sms:{secret}@127.0.0.1:1/x"',
        f'dsn = "postgresql://sms:{secret}@127.0.0.1:1/x',
        f'dsm = "postgresql://sms:{secret}@127.0.0.1:1/x"',
        f'dsn = ["{secret}"]',
    ):
        broken.write_text(f"[database]\n{line}\n")
        for words in (("config", "check"), ("subscriber", "list")):
            world.type("--config", str(broken), *words, codes=(0, 1, 2, 5))


def _refuse_connections(world: World) -> None:
    """PostgreSQL takes nobody any more, for a while."""
    name = world.daemon.query("select current_database()")[0][0]
    admin = world.daemon.dsn.replace("/sms?", "/postgres?")
    assert admin != world.daemon.dsn
    with connect(admin, name="test") as connection:
        connection.autocommit = True
        connection.execute(f"alter database {name} allow_connections false")
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        with FakeNas(world.daemon, secret=world.marks["nas-secret"]) as nas:
            nas.login(b"alice", world.mark("while-refused"))
        world.type("subscriber", "list", codes=(5,))
        add = ("subscriber", "add", "late", "--plan", "home-100", "--password-stdin")
        world.type(*add, typed=world.mark("late-password"), codes=(5,))
        time.sleep(1)
        connection.execute(f"alter database {name} allow_connections true")
    wait_until(world.daemon.is_healthy, "health")


def _start_without_a_database(world: World) -> None:
    """A server with a DSN that has a password, and nobody at its address."""
    secret = world.marks["in-a-dsn"].decode()
    other = Daemon(world.folder / "other", dsn=f"postgresql://sms:{secret}@127.0.0.1:1/sms", SMS_AAA_LOG_LEVEL="debug")
    other.start(healthy=False)
    world.logs.append(other.log)
    try:
        wait_until(lambda: b"127.0.0.1" in other.log.read_bytes(), "what it says of its database")
        time.sleep(1)
        for page in ("metrics", "healthz"):
            with urlopen_anyhow(f"http://127.0.0.1:{other.metrics_port}/{page}") as answer:
                world.outputs.append((f"{page} without a database", answer.read()))
        world.outputs += [
            (f"file {path.relative_to(world.folder)}", _written(path))
            for path in other.folder.rglob("*")
            if path.is_file() and path.name != "key"
        ]
    finally:
        other.stop()


def urlopen_anyhow(url: str):
    from urllib.error import HTTPError

    try:
        return urlopen(url)
    except HTTPError as unwell:
        return unwell


def _start_under_another_key(world: World) -> None:
    """What is stored does not open any more: that is said by name."""
    daemon = world.daemon
    daemon.stop()
    daemon.environ["SMS_AAA_DATABASE_KEY_FILE"] = str(world.folder / "other-key")
    daemon.start(healthy=False)
    wait_until(lambda: b"nas-secret-unreadable" in daemon.log.read_bytes(), "the complaint", 60)
    with FakeNas(daemon, secret=world.marks["nas-secret"], patience=0.3) as nas:
        nas.login(b"alice", world.mark("under-another-key"))
    world.type("credential", "show", "alice")
    world.type("nas", "show", "bng1")
    Path(world.folder / "other-key").write_text(world.mark("as-a-key").decode())
    world.type("credential", "show", "alice", codes=(2,))


def test_no_secret_is_anywhere(world: World) -> None:
    assert len(world.marks) > 40
    assert world.findings() == []


def test_every_place_is_there_to_be_searched(world: World) -> None:
    names = {what for what, _ in world.places()}
    for part in (
        "metrics", "healthz", "table credential", "table decision_", "table quarantine", "table event",
        "log state.log", "log other.log", "file journal/accounting/", "file journal/decisions/", "file replica",
        "file live", "file postgres/base/", "file postgres/pg_wal/", "file postgres/log", "file drops/",
        "command line of access-1", "output of explain", "output of why", "output of subscriber import",
    ):  # fmt: skip
        assert any(name.startswith(part) for name in names), f"{part} is not there"


def _into_the_log(world: World, leak: bytes) -> None:
    with world.daemon.log.open("ab") as log:
        log.write(leak)


def _into_a_table(world: World, leak: bytes) -> None:
    with connect(world.daemon.dsn, name="test") as connection:
        connection.execute(
            "insert into event (kind, object_kind, object_id, payload) values ('leak', 'leak', 0, %s::jsonb)",
            (json.dumps({"leak": leak.decode()}),),
        )


def _into_a_bytea(world: World, leak: bytes) -> None:
    with connect(world.daemon.dsn, name="test") as connection:
        connection.execute(
            """insert into quarantine (node, stream, sequence, record_offset, reason, raw)
               values ('leak', 1, 1, 1, 'leak', %s)""",
            (b"\0\1" + leak + b"\xff",),
        )


def _into_a_file(world: World, leak: bytes) -> None:
    (world.daemon.folder / "replica" / "leak").write_bytes(os.urandom(1000) + leak + os.urandom(1000))


def _into_an_answer(world: World, leak: bytes) -> None:
    """A command's own words, here the name that it does not find."""
    world.type("subscriber", "show", leak.decode(), codes=(3,))


@pytest.mark.parametrize(
    ("plant", "place"),
    [
        (_into_the_log, "log state.log"),
        (_into_a_table, "table event"),
        (_into_a_table, "file postgres/"),
        (_into_a_bytea, "table quarantine"),
        (_into_a_file, "file replica/leak"),
        (_into_an_answer, "output of subscriber show"),
    ],
)
def test_a_leak_is_found_wherever_it_is_planted(world: World, plant, place: str) -> None:
    leak = secrets.token_hex(8).encode()
    kept, outputs = world.marks, list(world.outputs)
    world.marks = {"planted": leak}
    try:
        assert world.findings() == []
        plant(world, leak)
        assert any(finding.startswith(place) for finding in world.findings())
    finally:
        world.marks, world.outputs = kept, outputs


TRANSFORMS = {
    "in the clear": lambda secret: secret,
    "in hex": lambda secret: secret.hex().upper().encode(),
    "in base64": lambda secret: base64.b64encode(b"x" + secret + b"yz"),
    "in UTF-16": lambda secret: secret.decode().encode("utf-16-le"),
    "percent-encoded": lambda secret: quote(secret, safe="").encode(),
    "in JSON": lambda secret: json.dumps({"a": secret.decode()}).encode(),
    "as Python shows it": lambda secret: repr(secret).encode(),
    "as NT hash in hex": lambda secret: StoredPassword.from_cleartext(secret).nt_hash.hex().encode(),
    "as NT hash": lambda secret: StoredPassword.from_cleartext(secret).nt_hash,
    "in the clear in a bytea": lambda secret: b"7\t\\x" + (b"\0" + secret + b"\0").hex().encode() + b"\t8",
    "in base64 in a bytea": lambda secret: b"\\x" + base64.b64encode(secret).hex().encode(),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_secret_is_found_in_every_form(transform) -> None:
    secret = _mark("form")
    found = Needles({"it": secret}).found_in(b"before " + transform(secret) + b" behind")
    assert found
    assert Needles({"it": secret}).found_in(b"before  behind" + os.urandom(100_000)) == []


def test_a_trace_shows_neither_arguments_nor_locals_nor_what_holds_a_secret(capsys) -> None:
    """What is raised in the midst of secrets is logged with its trace: of what, and where, and no value."""
    marks = {what: _mark(what) for what in ("secret", "pap", "stored", "sealed")}

    def deeper(secret: Secret, pap: Pap, stored: StoredPassword, vault: Vault, plain: bytes) -> None:
        chap = Chap(1, plain, plain)
        raise RuntimeError(secret, pap, stored, chap, vault)

    log = Log("test", "debug")
    try:
        deeper(
            Secret(marks["secret"]),
            Pap(marks["pap"]),
            StoredPassword.from_cleartext(marks["stored"]),
            Vault(bytes(32)),
            marks["sealed"],
        )
    except RuntimeError:
        log.bug("bug", secret=Secret(marks["secret"]), stored=StoredPassword.from_cleartext(marks["stored"]))
    finally:
        logging.getLogger("test").handlers = []
    said = capsys.readouterr().err
    assert "RuntimeError" in json.loads(said)["trace"]
    assert "deeper" in json.loads(said)["trace"]
    assert Needles(marks).found_in(said.encode()) == []
