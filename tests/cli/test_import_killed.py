"""kill -9 of an import, at any moment and again and again: what it ends with is what an import that lived ends with."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from make import make_desk, make_plan

from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.flows.vault import Vault
from sms_aaa.node.key import read_or_create_key

ROWS = 12_000
KILLS = 15
POSITIONS_MIN = 3

STORED = """
    select b.name, s.identity_kind, s.identity, s.state, host(s.static_ipv4), u.plan_version_id, a.currency, a.zone,
           a.anchor_day, c.form, r.line, c.sealed, s.id
    from subscriber b join service s on s.subscriber_id = b.id join subscription u on u.service_id = s.id
    join assignment g on g.service_id = s.id join account a on a.id = g.account_id
    join import_row r on r.subscriber_id = b.id left join credential c on c.service_id = s.id order by r.line
"""
COUNTS = "select added, updated, unchanged, rejected, line, octets = octets_total from import_run"


class Place:
    """A state folder and a database to import into."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.dsn = dsn
        self.environ = {**os.environ, "SMS_AAA_NODE_STATE_FOLDER": str(folder), "SMS_AAA_DATABASE_DSN": dsn}
        self.key = folder / "key"

    def start(self, file: Path, *words: str) -> subprocess.Popen[bytes]:
        command = [Path(sys.executable).with_name("sms-aaa"), "subscriber", "import", str(file), "--json", *words]
        return subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def stored(self) -> list[tuple[object, ...]]:
        key = read_or_create_key(self.key, fresh=bytes(32))
        assert isinstance(key, bytes)
        vault = Vault(key)
        with connect(self.dsn, name="test") as connection:
            rows = connection.execute(STORED).fetchall()
        return [(*row[:11], vault.open_password(row[11], row[12]) if row[11] is not None else None) for row in rows]

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with connect(self.dsn, name="test") as connection:
            return connection.execute(statement).fetchall()

    def empty(self) -> None:
        with connect(self.dsn, name="test") as connection:
            connection.execute("set session_replication_role = replica")  # what stays for good, too
            connection.execute("truncate subscriber, import_run, audit, event, feed cascade")


def write_file(path: Path) -> None:
    """Good rows, bad ones, and names, devices and addresses that are there twice, near and far."""
    chance = random.Random(11)
    with path.open("w") as file:
        file.write("name,mac,password,plan,static_ipv4\n")
        for number in range(ROWS):
            name = f"s{number if chance.random() > 0.02 else chance.randrange(number + 1)}"
            address = f"10.0.{number >> 8}.{number & 255}" if chance.random() < 0.3 else ""
            if chance.random() < 0.02:
                address = "10.0.0.7"
            plan = "home-100" if chance.random() > 0.02 else "none"
            mac, password = ("", f"password {number}") if chance.random() < 0.2 else (f"02{number:010x}", "")
            file.write(f"{name},{mac},{password},{plan},{address}\n")


def kill_again_and_again(place: Place, file: Path, patience: float) -> set[object]:
    """Where the import stood when it was killed, until it was killed often enough or ended before."""
    chance, positions = random.Random(), set()
    for _ in range(KILLS):
        process = place.start(file)
        time.sleep(chance.uniform(0.1, 0.3 + patience))
        process.kill()
        process.communicate()
        stood = place.query("select octets, finished_at is not null from import_run")
        if stood and stood[0][1]:
            return positions
        if not stood or stood[0][0] in positions:
            patience *= 1.3
        positions |= {octets for octets, _ in stood}
    return positions


def test_an_import_that_is_killed_again_and_again_ends_as_one_that_lived(tmp_path: Path, database_dsn: str) -> None:
    file = tmp_path / "customers.csv"
    write_file(file)
    rejects = Path(f"{file}.rejects.csv")
    place = Place(tmp_path / "state", database_dsn)
    with connect(database_dsn, name="test") as connection:
        make_plan(make_desk(connection))
    began = time.monotonic()
    lived = place.start(file)
    out, err = lived.communicate()
    took = time.monotonic() - began
    assert lived.returncode == Exit.DIFFERENT, err
    clean, clean_counts, clean_rejects = place.stored(), place.query(COUNTS), rejects.read_bytes()
    assert json.loads(out)["rejected"] > 400
    assert len(clean) + json.loads(out)["rejected"] == ROWS
    patience, positions = took / 4, set()
    while len(positions) < POSITIONS_MIN:  # a kill has to hit it amid, however quick or slow the machine has become
        place.empty()
        rejects.unlink(missing_ok=True)
        positions = kill_again_and_again(place, file, patience)
        patience /= 2
    last = place.start(file)
    out, err = last.communicate()
    assert last.returncode == Exit.DIFFERENT, err
    assert place.stored() == clean
    assert place.query(COUNTS) == clean_counts
    assert rejects.read_bytes() == clean_rejects
    batches = place.query("select after->'lines' from audit where action = 'batch-stored' order by id")
    edges = [edge for (lines,) in batches for edge in lines]
    assert edges[0] == 2
    assert edges[-1] == ROWS + 1
    assert all(end + 1 == begin for end, begin in zip(edges[1:-1:2], edges[2::2], strict=True)), "no batch twice"


def test_two_imports_of_one_file_at_once_store_it_once(tmp_path: Path, database_dsn: str) -> None:
    file = tmp_path / "customers.csv"
    write_file(file)
    place = Place(tmp_path / "state", database_dsn)
    with connect(database_dsn, name="test") as connection:
        make_plan(make_desk(connection))
    rejects = [["--rejects", str(tmp_path / "a.csv")], ["--rejects", str(tmp_path / "b.csv")], [], []]
    many = [place.start(file, *words) for words in rejects]
    said = [process.communicate()[1].decode() for process in many]
    codes = [process.returncode for process in many]
    assert Exit.DIFFERENT in codes, said
    for code, words in zip(codes, said, strict=True):
        assert code == Exit.DIFFERENT or (code == Exit.CONFLICT and "is at work in another process" in words), said
    [(added, _, _, rejected, line, whole)] = place.query(COUNTS)
    assert (added + rejected, line, whole) == (ROWS, ROWS + 1, True)  # type: ignore[operator] # counts
    assert len(place.stored()) == added
