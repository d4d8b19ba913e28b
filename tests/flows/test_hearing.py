"""From a packet to what it says: events, times, 64-bit counters, our Class among others; and what cannot be settled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import SECRET, Said, record_of, utc
from msgspec.structs import replace

from sms_aaa.flows.access import encode_class
from sms_aaa.flows.hearing import OCTETS_MAX, Heard, Rebooted, Unsettled, hear
from sms_aaa.node.records import AccountingRecord
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.radius.request import accounting_request
from sms_aaa.rules.session import Event, Place

T0 = utc("2026-11-10 12:00:00")
PLACE = Place("node1", 1, 64)


def heard(*, single: bool = True, received_at: datetime | None = None, **said: object) -> Heard | Rebooted | Unsettled:
    place, record = record_of(Said(at=T0, **said), nas_id=3, offset=64, received_at=received_at)
    return hear(record, place, single=single)


def understood(**said: object) -> Heard:
    found = heard(**said)
    assert isinstance(found, Heard)
    return found


@pytest.mark.parametrize(
    ("status", "event"), [("start", Event.START), ("interim", Event.INTERIM), ("stop", Event.STOP)]
)
def test_a_record_of_a_session(status: str, event: Event) -> None:
    received_at = T0 + timedelta(seconds=4)
    found = understood(
        status=status, seconds=60, octets_in=7, octets_out=9 << 32, service_id=5, delay=4, received_at=received_at
    )
    reading = found.reading
    assert (reading.event, reading.at, reading.session_seconds, reading.delay_seconds) == (event, T0, 60, 4)
    assert (reading.octets_in, reading.octets_out, reading.gigawords) == (7, 9 << 32, True)
    assert (found.key, found.service_id, found.token, found.clock_overruled) == ((3, "", "s-1"), 5, b"token-01", False)
    assert (reading.terminate_cause, reading.place) == (1 if event is Event.STOP else None, PLACE)
    assert found.facts.username == found.username == "alice"


@pytest.mark.parametrize("status", ["on", "off"])
def test_a_nas_that_reboots_needs_no_session_id(status: str) -> None:
    assert heard(status=status, session="") == Rebooted(3, "", T0)


def test_a_nas_of_a_prefix_is_told_apart_by_its_own_name() -> None:
    by_address = heard(status="start", single=False)
    by_name = heard(status="start", single=False, extra=attribute(dictionary.NAS_IDENTIFIER, b"bng-7"))
    assert isinstance(by_address, Heard)
    assert isinstance(by_name, Heard)
    assert (by_address.key, by_name.key) == ((3, "127.0.0.1", "s-1"), (3, "bng-7", "s-1"))


def test_our_class_is_found_among_those_of_others() -> None:
    others = attribute(dictionary.CLASS, b"of a proxy")
    ours = attribute(dictionary.CLASS, encode_class(9, b"token-09"))
    found = understood(status="interim", extra=others + ours)
    assert (found.service_id, found.token) == (9, b"token-09")


def test_without_the_attributes_nothing_is_said_of_time_and_octets() -> None:
    reading = understood(status="stop").reading
    assert (reading.session_seconds, reading.octets_in, reading.octets_out, reading.gigawords) == (
        None, None, None, False,
    )  # fmt: skip


def test_what_cannot_be_settled_says_why() -> None:
    packet = record_of(Said(status="start", at=T0), nas_id=3, offset=64)[1]
    unknown = accounting_request(1, attribute(dictionary.ACCT_STATUS_TYPE, integer(15)), SecretDigests(SECRET))
    short = replace(packet, packet=packet.packet[:30])
    other = replace(packet, packet=unknown)
    assert heard(status="start", session="") == Unsettled("no-acct-session-id", quarantine=True)
    assert heard(status="stop", octets_in=OCTETS_MAX + 1) == Unsettled("implausible-counters", quarantine=True)
    assert hear(short, PLACE, single=True) == Unsettled("length-mismatch", quarantine=True)
    assert hear(other, PLACE, single=True) == Unsettled("unknown-status-type", quarantine=False)


def test_a_clock_of_1970_is_overruled_by_the_receipt_and_the_delay() -> None:
    stamp = attribute(dictionary.EVENT_TIMESTAMP, integer(70))
    received_at = T0 + timedelta(seconds=40)
    found = heard(status="interim", stamped=False, delay=30, extra=stamp, received_at=received_at)
    assert isinstance(found, Heard)
    assert (found.reading.at, found.clock_overruled) == (received_at - timedelta(seconds=30), True)


@given(st.integers(0, 4_102_444_800_000_000))
def test_a_receive_time_is_kept_to_the_microsecond(received_us: int) -> None:
    packet = record_of(Said(status="start", at=T0, stamped=False), nas_id=3, offset=64)[1].packet
    found = hear(AccountingRecord(received_us * 1000 + 999, 3, "127.0.0.1", 1, packet), PLACE, single=True)
    assert isinstance(found, Heard)
    assert found.reading.received_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=received_us)
