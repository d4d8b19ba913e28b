"""Notes beside the generations: what the command line asks of the replicator, and what its last check found.

REBUILD asks for a new generation, and is taken away by the replicator when it begins one. VERIFIED is what the last
comparison with PostgreSQL found.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from sms_aaa.node.folders import replace_file
from sms_aaa.node.replica import replica_folder

if TYPE_CHECKING:
    from pathlib import Path

_REQUEST, _VERIFIED = "REBUILD", "VERIFIED"
NOTE_OCTETS_MAX = 65_536


class RebuildRequest(Struct, frozen=True):
    """Who asked for a rebuild, and by which ticket."""

    by: str
    ticket: str | None


class Verified(Struct, frozen=True):
    """What a comparison with PostgreSQL found: when it ended, of which generation, over how many services."""

    at_ns: int
    generation: str
    services: int
    differences: int


def ask_rebuild(root: Path, request: RebuildRequest) -> None:
    """OSError when it cannot be left there."""
    replica_folder(root).mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(replica_folder(root) / _REQUEST, msgspec.json.encode(request))


def take_request(root: Path) -> RebuildRequest | None:
    """The request, once: it is gone afterwards. One that cannot be read is a request of somebody unknown."""
    path = replica_folder(root) / _REQUEST
    try:
        octets = path.read_bytes()[:NOTE_OCTETS_MAX]
        path.unlink()
    except OSError:
        return None
    with suppress(msgspec.MsgspecError):
        return msgspec.json.decode(octets, type=RebuildRequest)
    return RebuildRequest("?", None)


def write_verified(root: Path, verified: Verified) -> None:
    """OSError when it cannot be kept."""
    replace_file(replica_folder(root) / _VERIFIED, msgspec.json.encode(verified))


def read_verified(root: Path) -> Verified | None:
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((replica_folder(root) / _VERIFIED).read_bytes()[:NOTE_OCTETS_MAX], type=Verified)
    return None
