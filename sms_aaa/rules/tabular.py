"""A CSV file (RFC 4180, UTF-8) cut into records, one at a time and in bounded memory.

A record that cannot be cut costs itself alone: a quote that is never closed would swallow the rest of the file, so
after some lines its first line is given up, and the lines after it are cut on their own.
"""

from __future__ import annotations

import csv
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LINE_OCTETS_MAX = 65_536
RECORD_LINES_MAX = 128
"""How many lines a record may run over, with line breaks in its quoted cells."""

_BOM = b"\xef\xbb\xbf"


class CutFault(StrEnum):
    """Why a record cannot be cut into cells."""

    TOO_LONG = "the line is longer than 65536 octets"
    NOT_UTF8 = "the line is not UTF-8"
    FORM = "it is not CSV: a quote that is not closed, or a carriage return alone"


@dataclass(frozen=True, slots=True)
class Record:
    """`line`: where it begins, from 1; `next_line`, and `end` in octets of the file: where what follows begins.

    `raw`: as it stands there. `cells` is empty, and `fault` says why, when it cannot be cut.
    """

    line: int
    next_line: int
    end: int
    raw: bytes
    cells: tuple[str, ...]
    fault: CutFault | None = None


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    end: int
    raw: bytes
    is_whole: bool


def read_records(readline: Callable[[int], bytes], *, line: int = 1, offset: int = 0) -> Iterator[Record]:
    """The records from where `readline(size)` stands, which is at `offset` and the begin of line number `line`.

    `readline` is that of a binary file. Empty lines are no records.
    """
    lines = _Lines(readline, line, offset)
    while (first := lines.take()) is not None:
        record = _cut([first]) if first.is_whole else _given_up(first, CutFault.TOO_LONG)
        if record is not None and record.fault is CutFault.FORM:
            record = _cut_over_lines(first, lines)
        if record is not None:
            yield record


class _Lines:
    """The lines one by one; those that turn out to be none of a record's can be put back."""

    def __init__(self, readline: Callable[[int], bytes], number: int, offset: int) -> None:
        self._read = _read_lines(readline, number, offset)
        self._waiting: deque[_Line] = deque()

    def take(self) -> _Line | None:
        return self._waiting.popleft() if self._waiting else next(self._read, None)

    def put_back(self, lines: list[_Line]) -> None:
        self._waiting.extendleft(reversed(lines))


def _read_lines(readline: Callable[[int], bytes], number: int, offset: int) -> Iterator[_Line]:
    while raw := readline(LINE_OCTETS_MAX + 1):
        end = offset + len(raw)
        is_whole = len(raw) <= LINE_OCTETS_MAX
        rest = raw
        while not rest.endswith(b"\n") and len(rest) > LINE_OCTETS_MAX:  # the rest of a line that is too long
            rest = readline(LINE_OCTETS_MAX + 1)
            end += len(rest)
        yield _Line(number, end, raw.removeprefix(_BOM) if offset == 0 else raw, is_whole)
        number, offset = number + 1, end


def _cut_over_lines(first: _Line, lines: _Lines) -> Record:
    """The record that begins with `first` and goes on over lines; when there is none, they are put back."""
    taken = [first]
    while len(taken) < RECORD_LINES_MAX and sum(line.raw.count(b'"') for line in taken) % 2:
        following = lines.take()
        if following is None:
            break
        taken.append(following)
    record = _cut(taken)
    if len(taken) > 1 and (record is None or record.fault is not None):
        lines.put_back(taken[1:])
        return _given_up(first, CutFault.FORM)
    return record or _given_up(first, CutFault.FORM)


def _cut(lines: list[_Line]) -> Record | None:
    """None: there is nothing in it."""
    raw = b"".join(line.raw for line in lines)
    try:
        rows = list(csv.reader([raw.decode()], strict=True)) if len(lines) == 1 else _rows(lines)
    except UnicodeDecodeError:
        return _given_up(lines[0], CutFault.NOT_UTF8)
    except csv.Error:
        return _given_up(lines[0], CutFault.FORM)
    if not rows or not rows[0]:
        return None
    return Record(lines[0].number, lines[-1].number + 1, lines[-1].end, raw, tuple(rows[0]))


def _rows(lines: list[_Line]) -> list[list[str]]:
    rows = list(csv.reader([line.raw.decode() for line in lines], strict=True))
    if len(rows) != 1:
        raise csv.Error("its first line is a record of its own")
    return rows


def _given_up(line: _Line, fault: CutFault) -> Record:
    return Record(line.number, line.number + 1, line.end, line.raw, (), fault)
