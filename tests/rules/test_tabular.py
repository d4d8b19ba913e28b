"""CSV cut into records: each bad one costs itself alone, and the offsets fit the file."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.rules.tabular import LINE_OCTETS_MAX, RECORD_LINES_MAX, CutFault, read_records


def cut(data: bytes):
    return list(read_records(io.BytesIO(data).readline))


def test_records_have_their_line_their_end_and_their_cells():
    records = cut(b'name,plan\nalice,home\r\n\nbob,"a, ""b"""\ncam,last')
    assert [(record.line, record.end, record.cells) for record in records] == [
        (1, 10, ("name", "plan")),
        (2, 22, ("alice", "home")),
        (4, 38, ("bob", 'a, "b"')),
        (5, 46, ("cam", "last")),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_name():
    [first, second] = cut("\ufeffname\n\ufeffalice\n".encode())
    assert (first.cells, second.cells) == (("name",), ("\ufeffalice",))
    assert (first.end, second.end) == (8, 17)


def test_a_quoted_cell_runs_over_lines_and_the_count_of_lines_goes_on():
    records = cut(b'a,"one\ntwo\n\nthree",z\nb,c,d\n')
    assert [(record.line, record.cells) for record in records] == [
        (1, ("a", "one\ntwo\n\nthree", "z")),
        (5, ("b", "c", "d")),
    ]


def test_a_quote_that_is_never_closed_costs_its_line_alone():
    good = b"".join(b"n%d,p\n" % number for number in range(100))
    records = cut(b'a,b\nbad,"open\n' + good)
    assert [record.line for record in records if record.fault] == [2]
    assert records[1].fault is CutFault.FORM
    assert records[1].raw == b'bad,"open\n'
    assert len(records) == 102
    assert [record.cells for record in records[2:]] == [(f"n{number}", "p") for number in range(100)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'x,"y"z\n', CutFault.FORM),
        (b'x,"', CutFault.FORM),
        (b"caf\xe9,y\n", CutFault.NOT_UTF8),
        (b"x" * (LINE_OCTETS_MAX + 1) + b"\n", CutFault.TOO_LONG),
        (b"x" * (3 * LINE_OCTETS_MAX) + b"\n", CutFault.TOO_LONG),
        (b"x" * (2 * LINE_OCTETS_MAX + 2) + b"\n", CutFault.TOO_LONG),
        (b"x\ry\n", CutFault.FORM),
    ],
)
def test_what_cannot_be_cut_is_named_and_the_next_line_is_sound(line, fault):
    records = cut(b"a,b\n" + line + b"\n" * (not line.endswith(b"\n")) + b"c,d\n")
    assert [record.fault for record in records] == [None, fault, None]
    assert records[1].cells == ()
    assert (records[2].line, records[2].cells) == (3, ("c", "d"))


def test_a_quote_in_the_middle_of_a_cell_is_a_letter():
    assert [record.cells for record in cut(b'a,5" pipe\nb,6" pipe\n')] == [("a", '5" pipe'), ("b", '6" pipe')]


def test_a_record_over_more_lines_than_allowed_is_given_up():
    cell = b'"' + b"x\n" * RECORD_LINES_MAX + b'"\n'
    first, *rest = cut(cell)
    assert first.fault is CutFault.FORM
    assert len(rest) == RECORD_LINES_MAX


def test_a_line_as_long_as_allowed_is_read():
    [record, last] = cut(b"x" * (LINE_OCTETS_MAX - 1) + b"\ny\n")
    assert record.cells == ("x" * (LINE_OCTETS_MAX - 1),)
    assert last.cells == ("y",)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)


@given(st.lists(st.lists(cells, min_size=2, max_size=4), max_size=8), st.integers(0, 8))
def test_what_csv_writes_is_read_back_from_any_record_on(rows, start):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    records = cut(data)
    if data.startswith(b"\xef\xbb\xbf"):
        return
    assert [list(record.cells) for record in records] == rows
    if start and start < len(records):
        file = io.BytesIO(data)
        file.seek(records[start - 1].end)
        again = list(read_records(file.readline, line=records[start].line, offset=records[start - 1].end))
        assert again == records[start:]


@given(st.binary(max_size=300))
def test_any_octets_end_in_records_that_tile_the_file(data):
    ends = [record.end for record in cut(data)]
    assert ends == sorted(set(ends))
    assert not ends or ends[-1] <= len(data)
