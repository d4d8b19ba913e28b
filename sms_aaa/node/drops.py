"""The drop log's files: which sources sent what was dropped in silence, a file each worker and ten minutes with drops.

    <state>/drops/<window>-<worker>.msgpack     window: the first drop in it, in epoch seconds

A file is replaced as a whole while its window lasts, and then stays until PostgreSQL has it or FILES_MAX newer ones are
there. It is a help for people: it is not synced, and a file that cannot be read is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from pathlib import Path

WINDOW_SECONDS = 600
FILES_MAX = 1_000
"""On a node; some 100 kB each at most."""

_NAMED = re.compile(r"(\d{10,})-([a-z0-9-]+)\.msgpack")


class Drop(Struct, gc=False, array_like=True):
    """What one source sent in a window and a fault had dropped. `address` "": sources that found no room by name.

    `fault`: a PacketFault's label. `nas_id` 0: nobody's address. Instants in epoch nanoseconds.
    """

    address: str
    fault: str
    nas_id: int
    packets: int
    first_ns: int
    last_ns: int
    last_port: int


class DropWindow(Struct, frozen=True):
    """What one worker dropped from `began_at` (epoch seconds) on, for WINDOW_SECONDS."""

    database_id: str
    worker: str
    began_at: int
    drops: list[Drop]


def write_window(root: Path, window: DropWindow) -> str | None:
    """The text of what went wrong, or None."""
    path = _path(root, window.began_at, window.worker)
    unfinished = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished.write_bytes(msgspec.msgpack.encode(window))
        unfinished.replace(path)
    except OSError as fault:
        return f"{path}: {fault.strerror}"
    return None


def list_windows(root: Path) -> list[tuple[int, str]]:
    """(start, worker) of each window that has a file, the oldest first."""
    try:
        names = [found for path in _folder(root).iterdir() if (found := _NAMED.fullmatch(path.name))]
    except OSError:
        return []
    return sorted((int(found[1]), found[2]) for found in names)


def read_window(root: Path, began_at: int, worker: str) -> DropWindow | None:
    """None when it is gone, or cannot be read."""
    try:
        return msgspec.msgpack.decode(_path(root, began_at, worker).read_bytes(), type=DropWindow)
    except (OSError, msgspec.MsgspecError):
        return None


def delete_window(root: Path, began_at: int, worker: str) -> None:
    _path(root, began_at, worker).unlink(missing_ok=True)


def delete_too_many(root: Path) -> None:
    """So many that PostgreSQL has not taken: the oldest go."""
    for window in list_windows(root)[:-FILES_MAX]:
        delete_window(root, *window)


def _folder(root: Path) -> Path:
    return root / "drops"


def _path(root: Path, began_at: int, worker: str) -> Path:
    return _folder(root) / f"{began_at:010d}-{worker}.msgpack"
