"""Opening an LMDB environment so that what is wrong with it is a value, and not the end of the process.

LMDB maps its file and has no checksums on its pages. A file that is shorter than its own book-keeping says would kill
the reader with SIGBUS at some later look-up, so the size is compared when it is opened.

py-lmdb must not open one folder twice in a process: closing the second would drop the locks of the first (they are
POSIX locks), and py-lmdb does not stop anybody. Nor may an environment be used on the far side of a fork. Here
children are started by exec, and each process opens each environment once.
"""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING

import lmdb

if TYPE_CHECKING:
    from pathlib import Path

READERS_MAX = 126
DATABASES_MAX = 8

DAMAGE_ERRORS = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)


class StoreFaultKind(Enum):
    """What is wrong with the replica or the live set."""

    MISSING = "missing"
    DAMAGED = "damaged"
    FORMAT = "format"  # whole, but of another version of this program
    FOREIGN_DATABASE = "foreign-database"
    TOO_MANY = "too-many"
    FULL = "full"
    IO = "io"


def open_allocated(folder: Path, *, map_octets: int) -> tuple[lmdb.Environment, bool]:
    """An unsynced environment that is changed in place: a store costs no system call. And whether it could be so.

    The whole file is allocated at once, because a store into a hole of a full disk would kill the process (SIGBUS).
    Where there is no room for that, pages are written as usual: slower, and a full disk is an error like any other.
    """
    # An opening in place makes the file as long as it should be; one that was cut short shows only before that.
    open_environment(folder, map_octets=map_octets, synced=False).close()
    env = open_environment(folder, map_octets=map_octets, synced=False, in_place=True)
    try:
        fd = os.open(folder / "data.mdb", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, map_octets)
        finally:
            os.close(fd)
    except OSError:
        env.close()
        return open_environment(folder, map_octets=map_octets, synced=False), False
    return env, True


def open_environment(
    folder: Path, *, map_octets: int, synced: bool, read_only: bool = False, in_place: bool = False
) -> lmdb.Environment:
    """The environment in `folder`; lmdb.Error when it cannot be opened, lmdb.CorruptedError when it is cut short.

    `map_octets` is address space, not disk. A reader's slot in the lock file belongs to its transaction, not to its
    thread, so that one transaction can be renewed for each batch.
    """
    env = lmdb.open(
        str(folder),
        map_size=map_octets,
        readonly=read_only,
        create=not read_only,
        mode=0o600,
        sync=synced,
        metasync=synced,
        writemap=in_place,
        readahead=False,
        max_readers=READERS_MAX,
        max_dbs=DATABASES_MAX,
    )
    needed = octets_needed(env)
    octets = (folder / "data.mdb").stat().st_size
    if octets < needed:
        env.close()
        raise lmdb.CorruptedError(f"{folder / 'data.mdb'}: {octets} octets where {needed} are in use")
    return env


def octets_needed(env: lmdb.Environment) -> int:
    """How long the file is at least, by its own book-keeping."""
    return int((env.info()["last_pgno"] + 1) * env.stat()["psize"])


def kind_of(error: lmdb.Error) -> StoreFaultKind:
    if isinstance(error, DAMAGE_ERRORS):
        return StoreFaultKind.DAMAGED
    return StoreFaultKind.FULL if isinstance(error, lmdb.MapFullError) else StoreFaultKind.IO
