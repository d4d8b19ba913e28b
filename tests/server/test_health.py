"""What /healthz says, and the thread that keeps the database up: with real faults, made by real means."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import psycopg
import pytest
from daemon import wait_until

from sms_aaa.config import Settings, load_settings
from sms_aaa.db.schema import upgrade
from sms_aaa.metrics import Collector, Names
from sms_aaa.node.board import Board
from sms_aaa.rules.secret import Secret
from sms_aaa.server.database import Database, work_with_database
from sms_aaa.server.http import Health, Watchman
from sms_aaa.server.log import Log
from sms_aaa.server.postgres import EmbeddedPostgres
from sms_aaa.server.supervisor import Post, find_silent
from sms_aaa.server.worker import Child, Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.db.engine import Connection

    Lines = pytest.CaptureFixture[str]


class Watched:
    """A watchman with the health that a test gives it."""

    def __init__(self, folder: Path, listen: str) -> None:
        self.health = Health((), ())
        board = Board.create(folder / "board", slots=1, now_ns=1)
        assert isinstance(board, Board)
        collector = Collector(board, list, lambda: Names({}, {}), time.time_ns)
        self.watchman = Watchman(listen, collector, lambda: self.health)
        self.watchman.start()

    def ask(self) -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://{self.watchman.address}/healthz", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as unwell:
            with unwell:
                return unwell.code, json.load(unwell)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    if request.param.startswith("[") and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    made = Watched(tmp_path, request.param)
    yield made
    made.watchman.stop()


def test_the_watchman_answers_at_the_address_that_it_names_in_both_families(watched: Watched) -> None:
    assert watched.ask() == (200, {"status": "ok", "problems": []})


def test_a_load_balancer_is_sent_away_only_when_something_is_not_answered(watched: Watched) -> None:
    watched.health = Health((), ("no database",))
    assert watched.ask() == (200, {"status": "degraded", "problems": ["no database"]})
    watched.health = Health(("access-1 is not running",), ("no database",))
    assert watched.ask() == (503, {"status": "down", "problems": ["access-1 is not running", "no database"]})


@pytest.fixture
def empty_dsn(postgres: EmbeddedPostgres) -> Iterator[str]:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("create database health_tests")
    yield postgres.dsn_for("health_tests")
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("drop database health_tests with (force)")
        connection.execute("drop role if exists rightless")


@pytest.fixture
def log(capsys: Lines) -> Log:
    """Into what `capsys` reads."""
    capsys.readouterr()
    return Log("test", "info")


def _configured(folder: Path, dsn: str) -> Settings:
    return load_settings(None, {"SMS_AAA_NODE_STATE_FOLDER": str(folder), "SMS_AAA_DATABASE_DSN": dsn})


def test_a_dsn_that_libpq_refuses_is_told_without_a_piece_of_it(tmp_path: Path, log: Log, capsys: Lines) -> None:
    database = Database(_configured(tmp_path, "host=/nonexistent hunter2=x"), log)
    database.start()
    try:
        wait_until(lambda: "ProgrammingError" in database.problem, "the problem in words")
        assert "database.dsn" in database.problem
    finally:
        database.stop()
    said = capsys.readouterr().err
    assert "database-not-ready" in said
    assert "hunter2" not in said + database.problem


def test_a_role_without_rights_is_told_and_used_as_soon_as_it_has_them(
    empty_dsn: str, tmp_path: Path, log: Log
) -> None:
    upgrade(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as administrator:
        administrator.execute("create role rightless login")
        database = Database(_configured(tmp_path, empty_dsn.replace("//sms@", "//rightless@")), log)
        database.start()
        try:
            wait_until(lambda: "permission denied for table alembic_version" in database.problem, "the problem")
            administrator.execute("grant select on alembic_version to rightless")
            wait_until(lambda: database.dsn, "the database in use")
            administrator.execute("drop owned by rightless")
        finally:
            database.stop()


def test_an_upgrade_that_fails_leaves_the_embedded_server_up_and_is_tried_again(tmp_path: Path, log: Log) -> None:
    server = EmbeddedPostgres.start(tmp_path / "postgres")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create table account (stranger integer)")
    server.stop()
    database = Database(load_settings(None, {"SMS_AAA_NODE_STATE_FOLDER": str(tmp_path)}), log)
    database.start()
    try:
        wait_until(lambda: 'relation "account" already exists' in database.problem, "the problem in words", 60)
        with psycopg.connect(database.embedded_dsn, autocommit=True) as connection:
            connection.execute("drop table account")
        wait_until(lambda: database.dsn, "the database in use", 30)
        wait_until(lambda: not database.problem, "no problem left")
    finally:
        database.stop()


def test_a_statement_that_takes_too_long_is_not_told_as_a_database_that_went_away(
    postgres: EmbeddedPostgres, tmp_path: Path, capsys: Lines
) -> None:
    settings = load_settings(
        None, {"SMS_AAA_NODE_STATE_FOLDER": str(tmp_path), "SMS_AAA_DATABASE_STATEMENT_TIMEOUT_SECONDS": "1"}
    )
    assert isinstance(Board.create(tmp_path / "board", slots=1, now_ns=1), Board)
    dsn = Secret(postgres.dsn.encode())
    child = Child(Order(name="t", slot=0, sockets=[], settings=settings, dsn=dsn, supervisor_pid=os.getpid()))

    def work(connection: Connection) -> None:
        child.stopping = True
        connection.execute("select pg_sleep(30)")

    work_with_database(child, work, repeatable=False)
    said = capsys.readouterr().err
    assert "statement-timeout" in said
    assert "database-away" not in said


def test_a_child_that_runs_and_says_nothing_is_named(tmp_path):
    board = Board.create(tmp_path / "board", slots=2, now_ns=1)
    assert isinstance(board, Board)
    with subprocess.Popen(["sleep", "60"]) as process:
        posts = [
            Post("settler", "settler", 0, needs_database=True, process=process, started=100.0),
            Post("rater", "rater", 1, needs_database=True, process=process, started=100.0),
        ]
        board.slot(1).beat(int(119e9))
        assert find_silent(posts, board, 105.0) == []
        [words] = find_silent(posts, board, 120.0)
        assert words.startswith("settler has said nothing for 20 s")
        process.kill()
    assert find_silent(posts, board, 120.0) == []
