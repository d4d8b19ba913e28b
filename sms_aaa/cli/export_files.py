"""The files of a usage export: CSV, JSON lines or Parquet, written row by row, with the digest of what was written."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, date, datetime
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.output import csv_writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FORMATS = ("csv", "jsonl", "parquet")

_TEXT_ROWS = 1_000
_PARQUET_ROWS = 50_000
_PARQUET_TYPES = {
    "subscriber": "string", "username": "string", "nas": "string", "acct_session_id": "string", "zone": "string",
    "from_at": "timestamp", "to_at": "timestamp", "started_at": "timestamp", "stopped_at": "timestamp",
    "hour_at": "timestamp", "day": "date32", "wrapped": "bool_",
}  # fmt: skip


class Digested(io.RawIOBase):
    """Passes octets on to a file, and knows their SHA-256."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, octets: Any) -> int:
        self._digest.update(octets)
        self._file.write(octets)
        return len(octets)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_rows(form: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]], file: Digested) -> None:
    """All rows in the format of FORMATS; Failure when what it needs is not there."""
    if form == "parquet":
        _write_parquet(columns, rows, file)
        return
    text = _csv_text(columns, rows) if form == "csv" else _json_text(columns, rows)
    for part in text:
        file.write(part.encode())


def check_format(form: str) -> None:
    """Failure when the program for it is not installed: said before anything is read."""
    if form == "parquet":
        _pyarrow()


def _csv_text(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(columns)
    for index, row in enumerate(rows, 1):
        writer.writerow([_plain(value) for value in row])
        if index % _TEXT_ROWS == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _json_text(columns: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    encode = json.JSONEncoder(default=_plain).encode
    for row in rows:
        yield encode(dict(zip(columns, row, strict=True))) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else value


def _write_parquet(columns: Sequence[str], rows: Iterable[tuple[Any, ...]], file: Digested) -> None:
    arrow, parquet = _pyarrow()
    types = [_PARQUET_TYPES.get(name, "int64") for name in columns]
    schema = arrow.schema([
        (name, arrow.timestamp("us", tz="UTC") if kind == "timestamp" else getattr(arrow, kind)())
        for name, kind in zip(columns, types, strict=True)
    ])  # fmt: skip
    with parquet.ParquetWriter(file, schema) as writer:
        for page in _pages(rows):
            arrays = [
                arrow.array(column, type=field.type)
                for column, field in zip(zip(*page, strict=True), schema, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _pages(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    page: list[tuple[Any, ...]] = []
    for row in rows:
        page.append(row)
        if len(page) == _PARQUET_ROWS:
            yield page
            page = []
    if page:
        yield page


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise Failure(
            Exit.UNAVAILABLE,
            "Parquet needs pyarrow, which is not installed",
            "install it with `pip install 'sms-aaa[parquet]'`, or write --format csv",
        ) from None
