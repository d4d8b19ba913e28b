"""`journal status|show|verify` as typed, over files that real writers wrote, closed, and died in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from make import Said, packet_of

from sms_aaa.cli.exits import Exit
from sms_aaa.db import positions
from sms_aaa.db.engine import connect
from sms_aaa.node.journal import Stream, Writer, make_folder
from sms_aaa.node.records import AccountingRecord, DecisionBatch, DecisionRecord, pack_accounting, pack_decisions
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute

AWAY = {"SMS_AAA_DATABASE_DSN": "postgresql:///nowhere?host=/nonexistent"}
BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
VENDOR = attribute(dictionary.MIKROTIK_RATE_LIMIT, b"20M/100M") + attribute(9 << 8 | 77, b"\1\2")
PSK = attribute(dictionary.MIKROTIK_WIRELESS_PSK, b"a-MARKED-psk")
MARKED = (b"a-MARKED-psk".hex(), "MARKED")


def said(status: str, minutes: int, **more) -> Said:
    seconds = None if status in {"start", "on", "off"} else minutes * 60
    return Said(status=status, at=BEGAN + timedelta(minutes=minutes), seconds=seconds, **more)


def payload(node, one: Said) -> bytes:
    received_ns = int(one.at.timestamp()) * 10**9
    return pack_accounting(AccountingRecord(received_ns, node.nas_id, "127.0.0.1", 40_000, packet_of(one)))


DAY = (
    said("start", 0),
    said("interim", 5, octets_in=7, octets_out=9, extra=VENDOR + PSK),
    said("start", 6, session="s-2", username=b"bob"),
    said("stop", 10, octets_in=70, octets_out=90),
)


def writer_of(node, stream: Stream = Stream.ACCOUNTING) -> Writer:
    folder = make_folder(node.folder / "journal", stream)
    assert isinstance(folder, Path)
    synced = stream is Stream.ACCOUNTING
    return Writer(folder, stream, node.database_id, node.board.slot(0), synced=synced, file_octets_max=65_536)


def written(node, *records: Said, now_ns: int = 1_000) -> int:
    """A closed file with these records; its sequence."""
    writer = writer_of(node)
    appended = writer.append([payload(node, one) for one in records], now_ns)
    writer.close()
    return appended.sequence


def path_of(node, sequence: int) -> Path:
    return node.folder / "journal" / "accounting" / f"{sequence:020d}.journal"


def mark(node, sequence: int, position: int, *, finished: bool = False) -> None:
    """As the settler leaves it."""
    with connect(node.dsn, name="test") as connection:
        positions.insert_position(connection, "node1", 1, sequence, 0)
        assert positions.move_position(connection, "node1", 1, sequence, old=0, new=position, finished=finished)


def files_of(answer) -> list[dict[str, object]]:
    return json.loads(answer.out)["files"]


# status


def test_the_status_tells_writers_positions_and_what_waits(stocked, node):
    closed = written(node, *DAY)
    octets = path_of(node, closed).stat().st_size
    mark(node, closed, octets, finished=True)
    orphan = written(node, *DAY[:2], now_ns=2_000)
    with path_of(node, orphan).open("r+b") as file:
        file.truncate(65_536)  # as its writer leaves it who dies: preallocated
    alive = writer_of(node)
    alive.append([payload(node, DAY[0])], 3_000)
    [first, second, third] = files_of(stocked.type("journal", "status", "--json"))
    assert (first["writer"], first["position"], first["finished"]) == ("closed", octets, True)
    assert (first["backlog_records"], first["backlog_octets"]) == (0, 0)
    assert first["deletable_at"] > datetime.now(UTC).isoformat()
    assert (second["writer"], second["position"], second["backlog_records"]) == ("orphan", 0, 2)
    assert second["oldest_at"] == "2026-01-31T12:00:00Z"
    assert (third["writer"], third["backlog_records"], third["finished"]) == ("alive", 1, False)
    alive.close()
    totals = stocked.type("journal", "status", "--json", "--unsettled").json()
    assert (totals["accounting_files"], totals["accounting_backlog_records"]) == (3, 3)
    assert totals["accounting_backlog_octets"] == second["backlog_octets"] + third["backlog_octets"]
    assert totals["disk_free_octets"] > 0
    assert [file["file"] for file in totals["files"]] == [f"{orphan:020d}", f"{3_000:020d}"]
    assert len(stocked.type("journal", "status", "--csv").csv()) == 3


def test_of_a_live_file_only_what_is_on_disk_is_backlog(stocked, node):
    alive = writer_of(node)
    appended = alive.append([payload(node, one) for one in DAY], 1_000)
    node.board.slot(0).publish(Stream.ACCOUNTING, appended.sequence, appended.first_offset)
    [file] = files_of(stocked.type("journal", "status", "--json"))
    assert (file["end"], file["backlog_records"]) == (appended.first_offset, 0)
    alive.close()


def test_the_status_while_postgresql_is_away_knows_the_files_and_says_that_positions_are_unknown(stocked, node):
    written(node, *DAY)
    answer = stocked.type("journal", "status", **AWAY)
    assert answer.code == 0
    assert "positions are not known" in answer.err
    assert "accounting backlog records  not known" in answer.out
    [file] = files_of(stocked.type("journal", "status", "--json", **AWAY))
    assert (file["writer"], file["position"], file["backlog_records"]) == ("closed", None, None)


def test_a_file_that_is_gone_before_it_was_settled_is_in_the_status_and_the_exit_code(stocked, node):
    mark(node, 77, 64)
    answer = stocked.type("journal", "status")
    assert answer.code == Exit.DIFFERENT
    assert "the file is gone before it was settled" in answer.err
    [file] = files_of(stocked.type("journal", "status", "--json"))
    assert (file["writer"], file["file"]) == ("missing", f"{77:020d}")


def test_a_node_without_a_journal_has_a_status(stocked):
    answer = stocked.type("journal", "status")
    assert answer.code == 0
    assert "accounting files            0" in answer.out


# show


def test_a_record_is_shown_with_every_attribute_by_its_name_a_vendors_too_and_no_secret(stocked, node):
    sequence = written(node, *DAY)
    answer = stocked.type("journal", "show", "--status", "interim", "--raw")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[1] == "2026-01-31 12:05:00.000000Z  Interim-Update  alice on bng1"
    assert lines[2].startswith(f"  accounting {sequence}:")
    for told in ("User-Name = alice", "Acct-Input-Octets = 7", "Mikrotik-Rate-Limit = 20M/100M",
                 "Vendor-9-Attr-77 = 0x0102", "Mikrotik-Wireless-PSK = ***"):  # fmt: skip
        assert f"  {told}" in lines
    assert "*" * 24 in lines[-1]
    assert not any(mark in answer.out for mark in MARKED)


def test_raw_octets_are_those_of_the_packet(stocked, node):
    sequence = written(node, DAY[0])
    [one] = stocked.type("journal", "show", f"{sequence}:64", "--raw", "--json").json()
    assert bytes.fromhex(one["octets"]) == packet_of(DAY[0])
    assert "octets" not in stocked.type("journal", "show", f"{sequence}:64", "--json").json()[0]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ((), ["Start", "Interim-Update", "Start", "Stop"]),
        (("--user", "bob"), ["Start"]),
        (("--user", "alice", "--status", "stop"), ["Stop"]),
        (("--session", "s-2"), ["Start"]),
        (("--from", "2026-01-31T12:05Z", "--to", "2026-01-31T12:10Z"), ["Interim-Update", "Start"]),
        (("--nas", "bng1", "--limit", "2"), ["Start", "Stop"]),
        (("--user", "nobody"), []),
    ],
)
def test_records_are_found_by(stocked, node, filters, found):
    written(node, *DAY)
    rows = stocked.type("journal", "show", *filters, "--csv").csv()
    assert [row["status"] for row in rows] == found


def test_the_last_records_come_from_the_newest_files_in_their_order(stocked, node):
    written(node, *DAY[:2])
    written(node, *DAY[2:], now_ns=2_000)
    lines = stocked.done("journal", "show", "--limit", "3", "--lines").splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["Interim-Update", "Start", "Stop"]


def test_a_place_is_shown_whatever_way_its_file_is_named(stocked, node):
    sequence = written(node, *DAY)
    for name in (str(sequence), f"{sequence:020d}", f"{sequence:020d}.journal", str(path_of(node, sequence))):
        [one] = stocked.type("journal", "show", f"{name}:64", "--json").json()
        assert one["status"] == "Start"
        assert len(stocked.type("journal", "show", name, "--json").json()) == 4


def test_places_and_nases_that_are_not_there_are_not_found(stocked, node):
    assert stocked.type("journal", "show", "12345").code == Exit.NOT_FOUND
    assert stocked.type("journal", "show", "no-file").code == Exit.NOT_FOUND
    assert stocked.type("journal", "show", "--nas", "bng9").code == Exit.NOT_FOUND


def test_records_are_shown_while_postgresql_is_away(stocked, node):
    written(node, *DAY)
    answer = stocked.type("journal", "show", "--user", "bob", **AWAY)
    assert answer.code == 0
    assert "Start  bob on NAS 1" in answer.out


def test_decisions_are_shown_too(stocked, node):
    one = DecisionRecord(node.nas_id, 1, 1, 13, 1, b"alice", b"02-00", b"7", b"", 0, 1, b"it differs")
    batch = DecisionBatch(int(BEGAN.timestamp()) * 10**9, 120, [one])
    writer = writer_of(node, Stream.DECISIONS)
    writer.append(pack_decisions(batch), 1_000)
    writer.close()
    [told] = stocked.type("journal", "show", "--stream", "decisions", "--status", "bad-password", "--json").json()
    assert (told["username"], told["stream"]) == ("alice", "decisions")
    assert {"name": "saw", "value": "it differs"} in told["attributes"]


def test_what_no_decoder_reads_is_shown_with_its_fault_and_its_octets(stocked, node):
    writer = writer_of(node)
    writer.append([pack_accounting(AccountingRecord(10**9, node.nas_id, "127.0.0.1", 1, b"\4\1\0\x15xxxx"))], 1_000)
    writer.close()
    [one] = stocked.type("journal", "show", "--json", "--raw").json()
    assert (one["fault"], one["octets"]) == ("too-short", b"\4\1\0\x15xxxx".hex())


# verify


def verified(stocked, *words: str, **environ: str) -> list[tuple[str, bool]]:
    answer = stocked.type("journal", "verify", *words, "--json", **environ)
    found = answer.json()
    assert answer.code == (Exit.DIFFERENT if found["damages"] else 0)
    return [(one["finding"], one["damage"]) for one in found["findings"]]


def spoil(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


def test_a_sound_journal_has_no_finding(stocked, node):
    sequence = written(node, *DAY)
    mark(node, sequence, path_of(node, sequence).stat().st_size, finished=True)
    answer = stocked.type("journal", "verify")
    assert answer.code == 0
    assert answer.out == "nothing is damaged\n"
    assert answer.err.startswith("1 files, 4 records, ")


def test_a_flipped_bit_is_a_damage_with_its_place_and_remedy(stocked, node):
    sequence = written(node, *DAY)
    spoil(path_of(node, sequence), 100, b"\xff")
    answer = stocked.type("journal", "verify", "--json")
    assert answer.code == Exit.DIFFERENT
    [one] = answer.json()["findings"]
    assert (one["finding"], one["place"]) == ("checksum", f"{sequence:020d}:64")
    assert "journal replay" in one["remedy"]
    assert answer.json()["records"] == 3


def test_of_a_damage_it_is_said_whether_its_octets_are_counted(stocked, node):
    sequence = written(node, *DAY)
    spoil(path_of(node, sequence), 100, b"\xff")
    mark(node, sequence, path_of(node, sequence).stat().st_size, finished=True)
    [one] = stocked.type("journal", "verify", "--json").json()["findings"]
    assert one["detail"].endswith("what stood there was settled before")
    with connect(node.dsn, name="test") as connection:
        positions.insert_quarantine(connection, "node1", 1, sequence, 64, reason="damaged: checksum", raw=b"")
    [one] = stocked.type("journal", "verify", "--json").json()["findings"]
    assert one["detail"].endswith("it is in quarantine")
    assert "quarantine retry" in one["remedy"]


def test_a_torn_tail_is_told_and_is_no_damage(stocked, node):
    sequence = written(node, *DAY)
    path = path_of(node, sequence)
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(65_536)
    spoil(path, end, b"\x40\0\0\0\1half a record")
    assert verified(stocked) == [("torn-tail", False)]


@pytest.mark.parametrize(
    ("offset", "octets", "kind"), [(0, b"nonsense", "header"), (20, b"\x09", "header"), (64, bytes(64), "zeros")]
)
def test_headers_and_gaps_are_checked(stocked, node, offset, octets, kind):
    sequence = written(node, *DAY)
    spoil(path_of(node, sequence), offset, octets)
    assert verified(stocked) == [(kind, True)]


def test_a_renamed_file_is_named(stocked, node):
    path = path_of(node, written(node, *DAY))
    path.rename(path.with_name(f"{9:020d}.journal"))
    assert verified(stocked) == [("header", True)]


def test_a_file_of_another_database_is_named(stocked, node):
    node.database_id = bytes(16)
    written(node, *DAY)
    assert verified(stocked) == [("foreign-database", True)]
    assert verified(stocked, **AWAY) == []


def test_positions_are_compared_with_the_files(stocked, node):
    sequence = written(node, *DAY)
    mark(node, sequence, 1 << 20)
    mark(node, 77, 64)
    assert verified(stocked) == [("position-beyond-end", True), ("missing", True)]
    assert verified(stocked, **AWAY) == []


def test_an_orphan_whose_last_record_ends_in_zeros_is_sound(stocked, node):
    sequence = written(node, *DAY[:1], said("interim", 5, extra=attribute(dictionary.NAS_PORT, bytes(4)) * 4))
    path = path_of(node, sequence)
    octets = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(65_536)
    mark(node, sequence, octets, finished=True)
    assert verified(stocked) == []
    [file] = files_of(stocked.type("journal", "status", "--json"))
    assert file["end"] < file["position"]
    assert file["backlog_octets"] == 0


def test_one_file_is_checked_alone_wherever_it_is(stocked, node, tmp_path):
    sound, spoiled = written(node, *DAY), written(node, *DAY, now_ns=2_000)
    spoil(path_of(node, spoiled), 100, b"\xff")
    copy = tmp_path / path_of(node, spoiled).name
    path_of(node, spoiled).rename(copy)
    assert verified(stocked, str(sound)) == []
    assert verified(stocked, str(copy)) == [("checksum", True)]
    assert stocked.type("journal", "verify", "4711").code == Exit.NOT_FOUND
