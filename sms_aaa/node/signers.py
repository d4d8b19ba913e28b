"""Which NASes sign their logins, in a file of each worker: `auto` requires it of them after a restart too.

PostgreSQL has it as well, and by the replica every node; the file is for what was learned while PostgreSQL was away.
It is about one database's NASes: with another one it says nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from sms_aaa.node.folders import replace_file

if TYPE_CHECKING:
    from pathlib import Path


class _Signers(Struct, frozen=True):
    database_id: str
    signs_since: dict[int, int]


def read_signers(root: Path, database_id: bytes) -> dict[int, int]:
    """Since when each NAS signs, by id, in epoch seconds, as far as any worker's file can be read and says so."""
    found: dict[int, int] = {}
    for path in root.glob("signers-*.json"):
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Signers)
        except (OSError, msgspec.MsgspecError):
            continue
        if kept.database_id == database_id.hex():
            found |= {nas_id: max(at, found.get(nas_id, 0)) for nas_id, at in kept.signs_since.items()}
    return found


def write_signers(root: Path, worker: str, database_id: bytes, signs_since: dict[int, int]) -> str | None:
    """The text of what went wrong, or None."""
    path = root / f"signers-{worker}.json"
    try:
        replace_file(path, msgspec.json.encode(_Signers(database_id.hex(), signs_since)))
    except OSError as fault:
        return f"{path}: {fault.strerror}"
    return None
