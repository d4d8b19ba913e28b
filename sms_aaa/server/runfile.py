"""What a running supervisor tells the command line: which processes there are, where its database and metrics are."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

NAME = "running.json"
LOCK_NAME = "lock"


class RunningProcess(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    slot: int
    pid: int
    restarts: int
    since: float


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """`embedded_dsn` is "" with a configured database, whose DSN may hold a password and is in the settings anyway."""

    pid: int
    version: str
    node: str
    since: float
    metrics: str
    embedded_dsn: str
    database: str
    access: list[str]
    accounting: list[str]
    processes: list[RunningProcess]


def write_running(state_folder: Path, running: Running) -> None:
    """Replaces the file at once: a reader sees the old one or the new one."""
    beside = state_folder / f"{NAME}.new"
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(running)))
    beside.replace(state_folder / NAME)


def find_running(state_folder: Path) -> Running | None:
    """What the supervisor of this folder wrote, if it lives; None when nobody holds the folder."""
    if not is_held(state_folder):
        return None
    try:
        return msgspec.json.decode((state_folder / NAME).read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None


def is_held(state_folder: Path) -> bool:
    """Whether a supervisor has the folder's lock."""
    try:
        descriptor = os.open(state_folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def hold(state_folder: Path) -> int | None:
    """The folder's lock, for as long as this process lives; None when another supervisor has it."""
    state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(state_folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
