"""The accounting journal at the end of its room: a really full disk, and the bound that is set. Real daemons.

Not answered means that the NAS keeps the record and sends it again: what counts is that it is answered then, by itself,
and that nothing of it is there twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, wait_until
from make import SECRET, Said, make_nas, make_plan, make_subscriber, packet_of

from sms_aaa.node.journal import JournalFaultKind, Stream, stream_folder
from sms_aaa.node.journal_reader import list_files
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute
from sms_aaa.radius.request import accounting_request

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_OCTETS = 8_388_608
BOUND_OCTETS = 134_217_728
FLOOD_AT_ONCE = 64
UNWRITABLE = 'sms_aaa_journal_unwritable{process="accounting-1"}'
SMALL_FILES = {
    "SMS_AAA_JOURNAL_FILE_OCTETS_MAX": str(FILE_OCTETS),
    "SMS_AAA_JOURNAL_DECISIONS_OCTETS_MAX": str(2 * FILE_OCTETS),
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that a test can fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this user cannot mount a file system to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def provision(daemon: Daemon, nas: FakeNas) -> None:
    with daemon.desk() as desk:
        make_nas(desk)
        make_plan(desk, sessions=0)
        make_subscriber(desk)
    wait_until(lambda: nas.login(b"alice", b"wonderland"), "the replica with the provisioned rows")


def reading(number: int, status: str = "interim") -> bytes:
    """The session's `number`-th record: it has used 1,000 octets more each time."""
    used, seconds = (None, None) if status == "start" else (1_000 * number, number)
    said = Said(
        status=status, at=datetime.now(UTC), seconds=seconds, octets_in=used, octets_out=used, identifier=number
    )
    return packet_of(said)


def flood(nas: FakeNas) -> int:
    """Large records that mean nothing, as many as are answered until the journal cannot be written; how many."""
    filler = b"".join(attribute(dictionary.REPLY_MESSAGE, bytes(253)) for _ in range(15))
    answered, rounds = 0, 0
    while not nas.daemon.metrics()[UNWRITABLE]:
        rounds += 1
        for number in range(FLOOD_AT_ONCE):
            status = attribute(dictionary.ACCT_STATUS_TYPE, (9_000 + rounds).to_bytes(4, "big"))
            nas.send(accounting_request(number, status + filler, SecretDigests(SECRET)), nas.daemon.accounting_port)
        while answered < rounds * FLOOD_AT_ONCE and nas.receive(1.0) is not None:
            answered += 1
    return answered


def heard(nas: FakeNas, record: bytes) -> None:
    """As a NAS does: the same again until it is answered."""
    wait_until(lambda: nas.account(record), "an answer")


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filling, contextlib.suppress(OSError):
        while True:
            filling.write(bytes(4096))


def says(daemon: Daemon, kind: JournalFaultKind) -> bool:
    """/healthz, the metrics and `status` at one."""
    told = f"accounting is not answered: {kind.text}; {kind.remedy}"
    code, status, problems = daemon.health()
    if (code, status) != (503, "down") or told not in problems or daemon.metrics()[UNWRITABLE] != 1:
        return False
    return bool(journal_status(daemon) == told)


def journal_status(daemon: Daemon) -> str:
    program = Path(sys.executable).with_name("sms-aaa")
    done = subprocess.run([program, "status", "--json"], env=daemon.environ, capture_output=True, check=True)
    return str(json.loads(done.stdout)["journal"])


def is_well(daemon: Daemon) -> bool:
    return daemon.is_healthy() and daemon.metrics()[UNWRITABLE] == 0


def test_j6_on_a_full_disk_accounting_is_silent_logins_go_on_and_with_space_all_is_answered_once(
    database_dsn: str, small_disk: Path
) -> None:
    daemon = Daemon(small_disk / "state", dsn=database_dsn, SMS_AAA_ACCESS_WORKERS="1", **SMALL_FILES)
    daemon.log = small_disk.parent / "full.log"  # on another disk, to be read
    daemon.start()
    try:
        with FakeNas(daemon, patience=0.3) as nas:
            provision(daemon, nas)
            heard(nas, reading(0, "start"))
            fill(small_disk / "filling")
            # The file was allocated whole: it is answered from to its end.
            heard(nas, reading(1))
            flooded = flood(nas)
            assert flooded * 3_800 > FILE_OCTETS - 1_000_000
            unheard = reading(2)
            for _ in range(2):  # nor from the cache of duplicates
                assert nas.account(unheard) is None
            wait_until(lambda: says(daemon, JournalFaultKind.NO_SPACE), "the full disk, said everywhere")
            wait_until(lambda: nas.login(b"alice", b"wonderland"), "a login while the disk is full")
            # A worker that is started meanwhile finds no space either. Who it is is not told: nor for that.
            fill(small_disk / "rest")
            daemon.kill("accounting-1")
            wait_until(lambda: "running-not-written" in daemon.log.read_text(), "the fault in the log")
            wait_until(lambda: nas.account(unheard) is None and daemon.metrics()[UNWRITABLE], "its fault")

            (small_disk / "filling").unlink()
            (small_disk / "rest").unlink()
            wait_until(lambda: is_well(daemon), "recovery without a packet")
            assert journal_status(daemon) == "writable"
            heard(nas, unheard)
            heard(nas, unheard)  # its retransmission, from the cache
            heard(nas, reading(3, "stop"))
            assert daemon.metrics()["sms_aaa_journal_records_total"] == flooded + 4
            wait_until(
                lambda: daemon.query("select 1 from session where stopped_at is not null"), "the settled session"
            )
            assert daemon.query("select count(*) from session") == [(1,)]
            assert daemon.query("select sum(octets_in), sum(octets_out) from usage_delta") == [(3_000, 3_000)]
        assert daemon.log.read_text().count("running-not-written") == 1
    finally:
        assert daemon.stop() == 0


def test_j9_at_its_bound_old_settled_files_make_room_and_then_accounting_is_silent(
    database_dsn: str, tmp_path: Path
) -> None:
    """What was settled within retention_hours_min stays, even when accounting has to go unanswered for it."""
    daemon = Daemon(
        tmp_path / "state",
        dsn=database_dsn,
        SMS_AAA_JOURNAL_ACCOUNTING_OCTETS_MAX=str(BOUND_OCTETS),
        SMS_AAA_JOURNAL_RETENTION_HOURS_MIN="1",
        **SMALL_FILES,
    ).start()
    folder = stream_folder(tmp_path / "state" / "journal", Stream.ACCOUNTING)
    try:
        with FakeNas(daemon, patience=0.3) as nas:
            provision(daemon, nas)
            heard(nas, reading(0, "start"))
            old = _finish_file(daemon, folder)
            daemon.execute("update journal_position set updated_at = now() - interval '2 hours' where finished")
            daemon.kill("settler")
            heard(nas, reading(1))  # by the worker that was started again
            young = _finish_file(daemon, folder)

            (folder / "ballast").write_bytes(b"")
            with (folder / "ballast").open("r+b") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, BOUND_OCTETS - FILE_OCTETS)
            wait_until(lambda: old not in _sequences(folder), "the old file, gone to make room")
            unheard = reading(2)
            assert nas.account(unheard) is None
            wait_until(lambda: says(daemon, JournalFaultKind.BOUND), "the bound, said everywhere")
            time.sleep(1.2)  # another look at the room
            assert young in _sequences(folder)
            metrics = daemon.metrics()
            assert metrics["sms_aaa_journal_files_deleted_early_total"] == 1
            assert metrics["sms_aaa_journal_octets"] + metrics["sms_aaa_journal_room_octets"] == BOUND_OCTETS
            wait_until(lambda: nas.login(b"alice", b"wonderland"), "a login at the bound")

            (folder / "ballast").unlink()
            wait_until(lambda: is_well(daemon), "recovery without a packet")
            heard(nas, unheard)
            wait_until(lambda: _octets(daemon) == 2_000, "all of the session settled, once")
    finally:
        assert daemon.stop() == 0


def _finish_file(daemon: Daemon, folder: Path) -> int:
    """The worker dies, and what it wrote is settled to its end; the file's sequence."""
    (sequence,) = _sequences(folder) - _finished(daemon)
    daemon.kill("accounting-1")
    wait_until(lambda: sequence in _finished(daemon), "a file settled to its end")
    return sequence


def _finished(daemon: Daemon) -> set[int]:
    rows = daemon.query("select sequence from journal_position where finished and stream = 1")
    return {int(str(row[0])) for row in rows}


def _sequences(folder: Path) -> set[int]:
    files = list_files(folder)
    assert isinstance(files, list)
    return {file.sequence for file in files}


def _octets(daemon: Daemon) -> int:
    return int(str(daemon.query("select coalesce(sum(octets_in), 0) from usage_delta")[0][0]))
