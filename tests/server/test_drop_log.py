"""The drop log: bounded whatever comes, written in windows that a restart does not overwrite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.node import drops as node_drops
from sms_aaa.node.drops import WINDOW_SECONDS, Drop, delete_window, list_windows, read_window
from sms_aaa.radius.faults import PacketFault
from sms_aaa.server.drops import KNOWN_MAX, STRANGERS_MAX, DropLog

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NS = 1_000_000_000
START = 1_700_000_000 * NS
UNKNOWN, INVALID = PacketFault.UNKNOWN_NAS, PacketFault.MESSAGE_AUTHENTICATOR_INVALID


def log_of(root: Path) -> DropLog:
    return DropLog(root, name="access-1", database_id=b"\1" * 16)


def dropped(root: Path) -> list[Drop]:
    windows = [read_window(root, *key) for key in list_windows(root)]
    return [drop for window in windows if window is not None for drop in window.drops]


def test_a_flood_of_made_up_sources_takes_no_more_room_and_hides_no_nas(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for number in range(20_000):
        log.note((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1), UNKNOWN, 0, START + number)
    log.note(("192.0.2.1", 7), INVALID, 3, START + 20_000)
    log.keep(START + NS)
    found = dropped(tmp_path)
    assert len(found) == STRANGERS_MAX + 2
    assert sum(drop.packets for drop in found) == 20_001
    [others] = [drop for drop in found if not drop.address]
    assert (others.fault, others.packets, others.nas_id) == ("unknown-nas", 20_000 - STRANGERS_MAX, 0)
    assert any(drop.address == "192.0.2.1" and drop.nas_id == 3 for drop in found)


def test_a_prefix_of_forged_addresses_is_bounded_too(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for number in range(KNOWN_MAX + 500):
        log.note((f"10.0.{number >> 8}.{number & 255}", 1), INVALID, 3, START)
    log.note(("203.0.113.1", 1), UNKNOWN, 0, START)
    log.keep(START)
    assert len(dropped(tmp_path)) == KNOWN_MAX + 2


def test_a_window_grows_until_it_is_over_and_then_another_begins(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    for seconds in (0, 1, WINDOW_SECONDS - 1, WINDOW_SECONDS + 1, WINDOW_SECONDS + 2):
        log.note(("192.0.2.1", seconds), INVALID, 3, START + seconds * NS)
        log.keep(START + seconds * NS)
    starts = [began_at for began_at, _ in list_windows(tmp_path)]
    assert starts == [1_700_000_000, 1_700_000_000 + WINDOW_SECONDS + 2]
    first, second = dropped(tmp_path)
    assert (first.packets, first.first_ns, first.last_port) == (4, START, WINDOW_SECONDS + 1)
    assert second.packets == 1


def test_a_restart_within_a_window_keeps_what_was_written(tmp_path: Path) -> None:
    for seconds in (0, 5):
        log = log_of(tmp_path)
        log.note(("192.0.2.1", 1), INVALID, 3, START + seconds * NS)
        log.keep(START + seconds * NS)
    assert [drop.packets for drop in dropped(tmp_path)] == [1, 1]


def test_files_that_nobody_takes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_drops, "FILES_MAX", 3)
    log = log_of(tmp_path)
    for number in range(8):
        at_ns = START + number * (WINDOW_SECONDS + 1) * NS
        log.note(("192.0.2.1", 1), INVALID, 3, at_ns)
        log.keep(at_ns)
        log.keep(at_ns + WINDOW_SECONDS * NS)
    assert len(list_windows(tmp_path)) == 3


def test_a_folder_that_cannot_be_written_is_said_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "drops").write_text("in the way")
    log = log_of(tmp_path)
    log.note(("192.0.2.1", 1), INVALID, 3, START)
    log.keep(START)
    assert log.fault is not None
    (tmp_path / "drops").unlink()
    log.keep(START + NS)
    assert log.fault is None
    assert len(dropped(tmp_path)) == 1


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.note(("192.0.2.1", 1), INVALID, 3, START)
    log.keep(START)
    [key] = list_windows(tmp_path)
    path = next((tmp_path / "drops").iterdir())
    path.write_bytes(path.read_bytes()[:-3])
    assert read_window(tmp_path, *key) is None
    delete_window(tmp_path, *key)
    delete_window(tmp_path, *key)
    assert list_windows(tmp_path) == []
