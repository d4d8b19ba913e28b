"""Payloads read back as they were packed, and anything else is a named fault."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node.records import (
    TEXT_OCTETS_MAX,
    AccountingRecord,
    DecisionRecord,
    RecordFault,
    pack_accounting,
    pack_decision,
    unpack_accounting,
    unpack_decision,
)

NUMBERS = st.integers(0, 2**31)
TEXTS = st.binary(max_size=TEXT_OCTETS_MAX)
ACCOUNTING = AccountingRecord(1_800_000_000_000_000_000, 7, "2001:db8::1", 1646, bytes(range(40)))
DECISION = DecisionRecord(1, 2, 3, 4, 30, 1, b"ada", b"00-11", b"ge-0/0/1", bytes(8), 1, 1, 250)


@given(
    st.builds(
        AccountingRecord,
        received_ns=st.integers(0, 2**63),
        nas_id=NUMBERS,
        source=st.ip_addresses().map(str),
        source_port=st.integers(0, 65535),
        packet=st.binary(max_size=4096),
    )
)
@settings(max_examples=100)
def test_an_accounting_record_reads_back_as_it_was_packed(record):
    assert unpack_accounting(pack_accounting(record)) == record


@given(
    st.builds(
        DecisionRecord,
        at_ns=st.integers(0, 2**63),
        nas_id=NUMBERS,
        service_id=st.integers(0, 2**63 - 1),
        plan_version_id=NUMBERS,
        reason_code=st.integers(0, 99),
        method=st.integers(0, 9),
        username=TEXTS,
        calling_station_id=TEXTS,
        nas_port=TEXTS,
        token=st.binary(max_size=8),
        sessions_seen=NUMBERS,
        sessions_max=NUMBERS,
        duration_us=NUMBERS,
    )
)
@settings(max_examples=100)
def test_a_decision_record_reads_back_as_it_was_packed(record):
    assert unpack_decision(pack_decision(record)) == record


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_octets_are_a_record_or_a_fault(octets):
    assert isinstance(unpack_accounting(octets), AccountingRecord | RecordFault)
    assert isinstance(unpack_decision(octets), DecisionRecord | RecordFault)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 20])
def test_an_accounting_record_that_is_cut_short_is_a_fault(cut):
    assert unpack_accounting(pack_accounting(ACCOUNTING)[:cut]) is RecordFault.SHORT


def test_a_record_of_another_version_is_a_fault():
    assert unpack_accounting(b"\x09" + pack_accounting(ACCOUNTING)[1:]) is RecordFault.VERSION
    assert unpack_decision(b"\x09" + pack_decision(DECISION)[1:]) is RecordFault.VERSION


def test_a_decision_that_is_cut_short_or_of_other_types_is_a_fault():
    packed = pack_decision(DECISION)
    assert unpack_decision(packed[:-1]) is RecordFault.MALFORMED
    assert unpack_decision(packed[:1]) is RecordFault.SHORT
    assert unpack_decision(b"\x01" + msgspec.msgpack.encode(["a"] * 13)) is RecordFault.MALFORMED


def test_a_source_that_is_no_text_is_a_fault():
    packed = bytearray(pack_accounting(ACCOUNTING))
    packed[16] = 0xFF
    assert unpack_accounting(bytes(packed)) is RecordFault.MALFORMED


def test_texts_of_a_decision_are_bounded():
    long = b"x" * 400
    found = unpack_decision(pack_decision(msgspec.structs.replace(DECISION, username=long, nas_port=long)))
    assert (len(found.username), len(found.nas_port)) == (TEXT_OCTETS_MAX, TEXT_OCTETS_MAX)
    assert found.calling_station_id == DECISION.calling_station_id


def test_a_decision_has_no_place_for_a_secret():
    assert not {"password", "credential", "secret", "key"} & set(DecisionRecord.__struct_fields__)
