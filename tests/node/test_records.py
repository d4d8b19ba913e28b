"""Payloads read back as they were packed, and anything else is a named fault."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node.frames import PAYLOAD_OCTETS_MAX
from sms_aaa.node.records import (
    AccountingRecord,
    DecisionBatch,
    DecisionRecord,
    RecordFault,
    pack_accounting,
    pack_decisions,
    unpack_accounting,
    unpack_decisions,
)

NUMBERS = st.integers(0, 2**31)
TEXTS = st.binary(max_size=253)
ACCOUNTING = AccountingRecord(1_800_000_000_000_000_000, 7, "2001:db8::1", 1646, bytes(range(40)))
DECISION = DecisionRecord(2, 3, 4, 30, 1, b"ada", b"00-11", b"ge-0/0/1", bytes(8), 1, 1, b"two of one")
BATCH = DecisionBatch(1_800_000_000_000_000_000, 250, [DECISION, DECISION])
RECORDS = st.builds(
    DecisionRecord,
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
    saw=TEXTS,
)


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


@given(st.integers(0, 2**63), NUMBERS, st.lists(RECORDS, min_size=1, max_size=64))
@settings(max_examples=100)
def test_a_batch_of_decisions_reads_back_as_it_was_packed(at_ns, duration_us, decisions):
    [payload] = pack_decisions(DecisionBatch(at_ns, duration_us, decisions))
    assert unpack_decisions(payload) == DecisionBatch(at_ns, duration_us, decisions)


def test_a_batch_that_is_too_long_for_a_payload_is_cut_and_nothing_is_lost():
    long = msgspec.structs.replace(DECISION, username=b"x" * 253, calling_station_id=b"y" * 253, nas_port=b"z" * 253)
    payloads = pack_decisions(DecisionBatch(1, 2, [long] * 100 + [DECISION] * 100))
    assert len(payloads) > 1
    assert max(map(len, payloads)) <= PAYLOAD_OCTETS_MAX
    read_back = [unpack_decisions(payload) for payload in payloads]
    assert [decision for batch in read_back for decision in batch.decisions] == [long] * 100 + [DECISION] * 100
    assert {(batch.at_ns, batch.duration_us) for batch in read_back} == {(1, 2)}


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_octets_are_a_record_or_a_fault(octets):
    assert isinstance(unpack_accounting(octets), AccountingRecord | RecordFault)
    assert isinstance(unpack_decisions(octets), DecisionBatch | RecordFault)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 20])
def test_an_accounting_record_that_is_cut_short_is_a_fault(cut):
    assert unpack_accounting(pack_accounting(ACCOUNTING)[:cut]) is RecordFault.SHORT


def test_a_record_of_another_version_is_a_fault():
    assert unpack_accounting(b"\x09" + pack_accounting(ACCOUNTING)[1:]) is RecordFault.VERSION
    assert unpack_decisions(b"\x09" + pack_decisions(BATCH)[0][1:]) is RecordFault.VERSION


def test_a_decision_that_is_cut_short_or_of_other_types_is_a_fault():
    [packed] = pack_decisions(BATCH)
    assert unpack_decisions(packed[:-1]) is RecordFault.MALFORMED
    assert unpack_decisions(packed[:1]) is RecordFault.SHORT
    assert unpack_decisions(b"\x02" + msgspec.msgpack.encode(["a"] * 3)) is RecordFault.MALFORMED


def test_a_decision_that_stands_alone_as_they_once_did_is_read():
    alone = [7, *msgspec.structs.astuple(DECISION)[:-1], 250]
    without_saw = msgspec.structs.replace(DECISION, saw=b"")
    assert unpack_decisions(b"\x01" + msgspec.msgpack.encode(alone)) == DecisionBatch(7, 250, [without_saw])
    assert unpack_decisions(b"\x01" + msgspec.msgpack.encode(7)) is RecordFault.MALFORMED


def test_a_source_that_is_no_text_is_a_fault():
    packed = bytearray(pack_accounting(ACCOUNTING))
    packed[16] = 0xFF
    assert unpack_accounting(bytes(packed)) is RecordFault.MALFORMED


def test_a_decision_has_no_place_for_a_secret():
    assert not {"password", "credential", "secret", "key"} & set(DecisionRecord.__struct_fields__)
