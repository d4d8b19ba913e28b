"""The files of imports and exports: what is read, by its digest, what is rejected of it, and what is written."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.flows.roster import REJECT_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.flows.import_reading import Order, Reject
    from sms_aaa.flows.roster import Column

STANDARD = "-"
"""Standard input, or output."""

_CHUNK_OCTETS = 1_048_576
_STDIN_REJECTS = "stdin.rejects.csv"


@dataclass(frozen=True, slots=True)
class Source:
    """A file open for reading, from its begin; `stamp`: how it was when its digest was taken."""

    file: IO[bytes]
    digest: bytes
    octets: int
    lines: int
    stamp: tuple[int, int]

    def check_unchanged(self) -> None:
        if _stamp(self.file) != self.stamp:
            raise Failure(
                Exit.CONFLICT, "the file was changed while it was imported", "let it be as it was, and import it again"
            )


@contextmanager
def open_source(path: str) -> Iterator[Source]:
    """A file; what cannot be read twice (`-` and pipes) is kept in a temporary file that nobody else can open."""
    with nullcontext(sys.stdin.buffer) if path == STANDARD else Path(path).open("rb") as given:
        if path != STANDARD and given.seekable():
            yield _digested(given)
            return
        with tempfile.TemporaryFile() as spool:  # it has no name, and mode 0600
            while chunk := given.read(_CHUNK_OCTETS):
                spool.write(chunk)
            spool.flush()
            yield _digested(spool)


def _digested(file: IO[bytes]) -> Source:
    file.seek(0)
    stamp = _stamp(file)
    digest, octets, lines = hashlib.sha256(), 0, 0
    while chunk := file.read(_CHUNK_OCTETS):
        digest.update(chunk)
        octets += len(chunk)
        lines += chunk.count(b"\n")
    file.seek(0)
    return Source(file, digest.digest(), octets, lines, stamp)


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_size


@contextmanager
def open_export(path: str) -> Iterator[IO[str]]:
    """Standard output for `-`; else a file of mode 0600, which takes its place when it is whole."""
    if path == STANDARD:
        yield sys.stdout
        return
    with open_export_octets(path) as octets:
        file = io.TextIOWrapper(octets, encoding="utf-8", newline="")
        yield file
        file.detach()  # which flushes it


@contextmanager
def open_export_octets(path: str) -> Iterator[IO[bytes]]:
    """The same for what is no text."""
    if path == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        raise Failure(Exit.INVALID, f"{path} is no file", f"name one, or write `{STANDARD}` for standard output")
    beside = Path(f"{path}.part")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


def rejects_path(given: str | None, source: str) -> Path:
    """Where the rejects of an import go; Failure when that is the file itself, or a file of another kind."""
    path = Path(given or (_STDIN_REJECTS if source == STANDARD else f"{source}.rejects.csv"))
    if not path.exists():
        return path
    if not path.is_file():  # /dev/null would get a mode of 0600
        raise Failure(Exit.INVALID, f"{path} is no file", "name one: the rejected rows are to be mended")
    if source != STANDARD and path.samefile(source):
        raise Failure(Exit.INVALID, f"{path} is the file that is imported", "name another one for the rejects")
    with path.open("rb") as file:
        head = file.readline(_CHUNK_OCTETS)
    if head and REJECT_COLUMNS[0].encode() not in head:
        raise Failure(Exit.INVALID, f"{path} is there, and is no file of rejects", "move it away, or name another one")
    return path


class RejectsFile:
    """Rejected rows with line, field, reason and remedy, to be mended and imported. Mode 0600: passwords are in it.

    To be opened before the import's position is read: it is locked, so that of two imports that are to write it one
    does. `octets`: how long it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: tuple[Column | None, ...] = ()
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b")
        os.fchmod(self._file.fileno(), 0o600)  # it may have been there
        self.octets = 0
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise Failure(
                Exit.CONFLICT, f"{path} is at work in another process", "let that import finish, or name another file"
            ) from None

    def begin(self, order: Order, octets: int) -> bool:
        """From `octets` on, as they are committed: what is behind them is rejected again. False: it was shorter."""
        self._columns = order.header.columns
        is_whole = os.fstat(self._file.fileno()).st_size >= octets
        self._file.truncate(octets if is_whole else 0)
        self.octets = self._file.seek(0, os.SEEK_END)
        if not self.octets:
            self._write([[*(column for column in self._columns if column is not None), *REJECT_COLUMNS]])
        return is_whole

    def add(self, rejects: Sequence[Reject]) -> None:
        """They are on the disk when this returns."""
        if rejects:
            self._write(self._row(reject) for reject in rejects)

    def close(self, *, keep: bool = True) -> None:
        """Not kept, it is removed; an empty one is, too."""
        if self._file.closed:
            return
        if not keep or os.fstat(self._file.fileno()).st_size == 0:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _row(self, reject: Reject) -> list[str]:
        record = reject.record
        told = [str(record.line), reject.field, reject.reason, reject.remedy]
        if len(record.cells) == len(self._columns):
            cells = [cell for column, cell in zip(self._columns, record.cells, strict=True) if column is not None]
            return [*cells, *told, ""]
        text = record.raw.decode(errors="backslashreplace").rstrip("\r\n")
        return [*("" for column in self._columns if column is not None), *told, text]

    def _write(self, rows: Iterator[list[str]] | list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.octets = self._file.tell()
