"""What a stretch of journal says of who is online, in whatever order its records come."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

from make import Said, record_of, utc

from sms_aaa.flows.places import JournalSessions
from sms_aaa.node.live_change import OnlineSession, Release, session_key
from sms_aaa.node.records import AccountingRecord

T0 = utc("2026-11-10 12:00:00")
SILENCE = 900
_offsets = itertools.count(64, 8)


def record(seconds: int, status: str, session: str = "s-1", *, nas_id: int = 1, **more: object) -> AccountingRecord:
    said = Said(
        status=status,
        at=T0 + timedelta(seconds=seconds),
        seconds=seconds,
        session=session,
        **{"service_id": 42, "token": b"token-01"} | more,
    )
    return record_of(said, nas_id=nas_id, offset=next(_offsets))[1]


def read(*records: AccountingRecord) -> tuple[list[OnlineSession], list[Release]]:
    """The same from the records in any order."""
    told = []
    for order in (records, records[::-1], random.sample(records, len(records))):
        sessions = JournalSessions()
        for one in order:
            sessions.note(one)
        told.append((sorted(sessions.online(silence_seconds=SILENCE), key=lambda s: s.session), list(sessions.ended())))
    assert told[0] == told[1] == told[2]
    return told[0]


def test_a_session_without_a_stop_is_online_from_its_latest_record_on() -> None:
    [online], ended = read(record(0, "start"), record(300, "interim"))
    assert (online.service_id, online.token, online.nas_id) == (42, b"token-01", 1)
    assert online.until == int(T0.timestamp()) + 300 + SILENCE
    assert online.session == session_key("s-1")
    assert len(online.device) == 8
    assert ended == []


def test_a_stop_ends_its_session_and_no_other_under_its_class() -> None:
    online, ended = read(record(0, "start"), record(0, "start", "s-2"), record(60, "stop"), record(61, "interim"))
    assert [one.session for one in online] == [session_key("s-2")]
    assert ended == [Release(42, b"token-01", session_key("s-1"))]


def test_a_nas_that_rebooted_has_nobody_of_before_online() -> None:
    stays = record(0, "start", "s-2", nas_id=2, token=b"token-02")
    later = record(120, "start", "s-3", token=b"token-03")
    online, ended = read(record(0, "start"), stays, record(60, "on", "", service_id=None), later)
    assert {one.token for one in online} == {b"token-02", b"token-03"}
    assert [one.token for one in ended] == [b"token-01"]


def test_what_names_no_login_of_ours_or_cannot_be_read_is_passed_over() -> None:
    damaged = AccountingRecord(1, 1, "127.0.0.1", 1, b"\x04\x01\x00\x14 short")
    assert read(record(0, "start", service_id=None), damaged) == ([], [])
