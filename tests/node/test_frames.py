"""The framing: whatever is done to a file's octets, what is read is what was written, and the rest is named."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.node import frames

SEED = frames.file_seed(stream=1, sequence=1_000)
START = frames.FILE_HEADER_OCTETS
PAYLOADS = st.lists(st.binary(max_size=300), min_size=1, max_size=12)
HEADER = frames.FileHeader(stream=1, sequence=1_000, database_id=bytes(range(16)), preallocated_octets=4096)


def scan_all(octets: bytes, *, seed: int = SEED, offset: int = START) -> frames.Scanned:
    end = offset + len(octets)
    return frames.scan(octets, offset=offset, limit=end, end=end, seed=seed, records_max=10_000)


@given(PAYLOADS)
@settings(max_examples=100)
def test_any_payloads_read_back_the_same(payloads):
    octets = frames.pack_records(payloads, offset=START, seed=SEED)
    assert len(octets) == frames.framed_octets(payloads)
    found = scan_all(octets)
    assert [record.payload for record in found.records] == payloads
    assert (found.damaged, found.next_offset) == ([], START + len(octets))


@given(PAYLOADS, st.data())
@settings(max_examples=200)
def test_j10_a_flipped_bit_costs_its_record_and_no_other(payloads, data):
    octets = bytearray(frames.pack_records(payloads, offset=START, seed=SEED))
    intact = scan_all(bytes(octets)).records
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= 1 << data.draw(st.integers(0, 7))
    found = scan_all(bytes(octets))
    hit = max(record.offset for record in intact if record.offset <= START + at)
    untouched = [record for record in intact if record.offset != hit]
    if found.damaged:
        assert found.records == untouched
        assert [damage.offset for damage in found.damaged] == [hit]
    else:
        assert found.records == intact  # it was padding
    covered = sum(frames.framed_octets([record.payload]) for record in found.records)
    assert covered + sum(damage.octets for damage in found.damaged) == len(octets)


@given(PAYLOADS, st.data())
@settings(max_examples=100)
def test_j10_a_tail_that_was_cut_off_is_named(payloads, data):
    octets = frames.pack_records(payloads, offset=START, seed=SEED)
    end = START + len(octets)
    kept = octets[: data.draw(st.integers(0, len(octets) - 1))]
    found = frames.scan(kept, offset=START, limit=end, end=end, seed=SEED, records_max=10_000)
    assert [record.payload for record in found.records] == payloads[: len(found.records)]
    assert found.next_offset == end
    if len(found.records) < len(payloads):
        assert found.damaged[-1].is_last
        assert found.damaged[-1].offset + found.damaged[-1].octets == end


def test_j3_a_record_is_valid_only_in_its_stream_file_and_place():
    octets = frames.pack_records([b"one"], offset=START, seed=SEED)
    assert scan_all(octets).records
    for seed in (frames.file_seed(stream=2, sequence=1_000), frames.file_seed(stream=1, sequence=1_001)):
        assert [damage.reason for damage in scan_all(octets, seed=seed).damaged] == [frames.DamageReason.CHECKSUM]
    assert not scan_all(octets, offset=START + 8).records


def test_an_old_copy_of_a_record_does_not_mislead_the_search_after_damage():
    inner = frames.pack_records([b"forty-two"], offset=START, seed=SEED)
    octets = bytearray(frames.pack_records([b"\0" * 4 + inner, b"after"], offset=START, seed=SEED))
    octets[8] ^= 1
    found = scan_all(bytes(octets))
    assert [record.payload for record in found.records] == [b"after"]
    assert found.damaged[0].octets == frames.framed_octets([b"\0" * 4 + inner])


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (bytes(16), frames.DamageReason.ZEROS),
        (b"\x05" + bytes(15), frames.DamageReason.LENGTH),
        (b"\xff\xff\xff\xff" + bytes(12), frames.DamageReason.LENGTH),
        (b"\xff" + bytes(15), frames.DamageReason.SHORT),
        (b"\x10\0\0\0\x01" + bytes(11), frames.DamageReason.CHECKSUM),
    ],
    ids=["zeros", "below its header", "beyond any record", "beyond the end", "checksum"],
)
def test_j10_damage_is_named_by_what_was_seen(head, reason):
    octets = head + frames.pack_records([b"after"], offset=START + len(head), seed=SEED)
    found = scan_all(octets)
    assert [record.payload for record in found.records] == [b"after"]
    assert found.damaged == [frames.Damage(START, 16, reason, head, is_last=False)]


def test_j10_a_record_of_another_version_is_named_and_passed(monkeypatch):
    monkeypatch.setattr(frames, "RECORD_FORMAT_VERSION", 2)
    octets = frames.pack_records([b"new form"], offset=START, seed=SEED)
    monkeypatch.undo()
    octets += frames.pack_records([b"after"], offset=START + len(octets), seed=SEED)
    found = scan_all(octets)
    assert [damage.reason for damage in found.damaged] == [frames.DamageReason.VERSION]
    assert [record.payload for record in found.records] == [b"after"]


def test_what_is_kept_of_a_damaged_stretch_is_bounded():
    found = scan_all(b"\xff" * 100_000)
    assert [len(damage.raw) for damage in found.damaged] == [frames.RAW_OCTETS_MAX]
    assert (found.damaged[0].octets, found.damaged[0].is_last) == (100_000, True)


def test_a_batch_ends_at_its_bound_and_goes_on_from_there():
    octets = frames.pack_records([b"a", b"b", b"c"], offset=START, seed=SEED)
    end = START + len(octets)
    first = frames.scan(octets, offset=START, limit=end, end=end, seed=SEED, records_max=2)
    rest = frames.scan(
        octets[first.next_offset - START :], offset=first.next_offset, limit=end, end=end, seed=SEED, records_max=2
    )
    assert [record.payload for record in first.records + rest.records] == [b"a", b"b", b"c"]


def test_a_file_header_reads_back():
    octets = frames.pack_file_header(HEADER)
    assert len(octets) == frames.FILE_HEADER_OCTETS
    assert frames.parse_file_header(octets) == HEADER


def test_a_file_header_that_is_not_ours_or_damaged_is_a_fault(monkeypatch):
    octets = frames.pack_file_header(HEADER)
    assert frames.parse_file_header(octets[:-1]) is frames.HeaderFault.FOREIGN
    assert frames.parse_file_header(bytes(64)) is frames.HeaderFault.FOREIGN
    for at in range(8, frames.FILE_HEADER_OCTETS):
        flipped = bytearray(octets)
        flipped[at] ^= 1
        assert frames.parse_file_header(bytes(flipped)) is frames.HeaderFault.DAMAGED
    monkeypatch.setattr(frames, "FILE_FORMAT_VERSION", 2)
    assert frames.parse_file_header(octets) is frames.HeaderFault.VERSION
