"""The node's encryption key: 32 octets in a file of mode 0600, made when it is missing, never in the database."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEY_OCTETS = 32


@dataclass(frozen=True, slots=True)
class KeyFault:
    """Why the key cannot be used, and what to do."""

    reason: str
    remedy: str


def read_or_create_key(path: Path, *, fresh: bytes) -> bytes | KeyFault:
    """The key in `path`; `fresh` (32 random octets) becomes it when there is no such file.

    Two starts at once end with one key: it is written beside the path and linked into place, which only one can.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, fresh.hex().encode() + b"\n")
        os.fsync(descriptor)
        os.close(descriptor)
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    return _read(path)


def _read(path: Path) -> bytes | KeyFault:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        return KeyFault(f"{path} may be read by others (mode {mode:04o})", f"chmod 600 {path}")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        return KeyFault(f"{path} is not {KEY_OCTETS} octets in hexadecimal", "restore the file from its backup")
    return key
