"""The one printer: tables for people, JSON and CSV for programs, all from the same cells.

A table shows a value as people read it (1.20 GB, 29.90 EUR); JSON and CSV carry it exactly (1200000000, 2990). On a
terminal a table has colour and folds; anywhere else it is plain aligned text that cuts nothing, so that grep and a
mail show what is there. What is not printable is shown escaped: a name can neither move the cursor nor colour a table.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from _csv import Writer as CsvWriter

    from rich.table import Table


class Format(Enum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Shown:
    """A value with the text that a table shows for it."""

    value: str | int | bool | None
    text: str


Cell = str | int | bool | datetime | Shown | None

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def octets(count: int) -> Shown:
    """In decimal units, as networks count."""
    for size, unit in _UNITS:
        if count >= size:
            hundredths = (count * 100 + size // 2) // size
            return Shown(count, f"{hundredths // 100}.{hundredths % 100:02d} {unit}")
    return Shown(count, f"{count} B")


def bit_rate(kbps: int) -> Shown:
    """kbit/s, for people in Mbit/s from a thousand on."""
    tenths = (kbps + 50) // 100
    return Shown(kbps, f"{tenths // 10}.{tenths % 10} Mbit/s" if kbps >= 1000 else f"{kbps} kbit/s")


def money(amount_minor: int, currency: str) -> Shown:
    from sms_aaa.rules.money import format_minor

    return Shown(amount_minor, format_minor(amount_minor, currency))


def seconds(count: int) -> Shown:
    """As a clock shows it, with days before it."""
    days, rest = divmod(count, 86_400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return Shown(count, f"{days}d {clock}" if days else clock)


def listing(columns: Sequence[str], rows: Iterable[Sequence[Cell]], form: Format, *, empty: str = "nothing") -> None:
    """Rows under named columns; `empty` is what a table without rows says."""
    rows = list(rows)
    if form is Format.JSON:
        document([dict(zip(columns, row, strict=True)) for row in rows])
    elif form is Format.CSV:
        _write_csv(columns, rows)
    elif not rows:
        say(empty)
    elif sys.stdout.isatty():
        _write_rich(columns, rows)
    else:
        _write_plain(columns, rows)


def facts(values: Mapping[str, Cell], form: Format) -> None:
    """One thing by its properties: a line each for people, one object or row for programs."""
    if form is Format.JSON:
        document(values)
    elif form is Format.CSV:
        _write_csv(list(values), [list(values.values())])
    else:
        width = max(map(len, values), default=0)
        for name, cell in values.items():
            say(f"{_title(name):<{width}}  {_text(cell)}".rstrip())


def document(value: object) -> None:
    """Anything made of mappings, sequences and cells, as JSON."""
    click.echo(json.dumps(_plain(value), indent=2))


def json_line(value: object) -> None:
    """The same on one line: for what is told as it is found."""
    click.echo(json.dumps(_plain(value)))


def say(line: str = "") -> None:
    """A line of the answer."""
    click.echo(_safe(line))


def heading(title: str) -> None:
    """Begins a part of an answer for people."""
    click.echo()
    click.secho(_safe(title), bold=True)


def note(line: str) -> None:
    """A line beside the answer, on stderr."""
    click.echo(_safe(line), err=True)


def csv_writer(file: IO[str]) -> CsvWriter:
    """For rows that are too many to be a listing."""
    return csv.writer(file, lineterminator="\n")


def _write_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_value(_plain(cell)) for cell in row] for row in rows)
    click.echo(text.getvalue(), nl=False)


def _csv_value(value: str | int | bool | None) -> str | int | None:
    return str(value).lower() if isinstance(value, bool) else value


def _write_plain(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    lines = [[_title(name) for name in columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    right = _right_aligned(rows)
    for line in lines:
        cells = (
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _write_rich(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    from rich.console import Console

    Console().print(rich_table(columns, rows))


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """The rows as a terminal shows them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, is_right in zip(columns, _right_aligned(rows), strict=True):
        table.add_column(Text(_title(name)), justify="right" if is_right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(cell)) for cell in row))  # as Text, so that no value is taken for markup
    return table


def _right_aligned(rows: Sequence[Sequence[Cell]]) -> list[bool]:
    """Columns of numbers."""
    return [all(_is_number(cell) for cell in column) for column in zip(*rows, strict=True)]


def _is_number(cell: Cell) -> bool:
    value = cell.value if isinstance(cell, Shown) else cell
    return isinstance(value, int) and not isinstance(value, bool)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _text(cell: Cell) -> str:
    match cell:
        case None:
            return "-"
        case bool():
            return "yes" if cell else "no"
        case datetime():
            return cell.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case Shown():
            return _safe(cell.text)
        case _:
            return _safe(str(cell))


def _safe(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _plain(value: object) -> Any:
    """What JSON and CSV carry."""
    match value:
        case Shown():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case str() | int() | None:
            return value
        case Sequence():
            return [_plain(inner) for inner in value]
        case _:
            raise TypeError(f"{type(value).__name__} is no cell")
