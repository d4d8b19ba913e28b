"""What makes a name on the disk last over a power cut: a file's own sync does not cover its name in the folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Returns when the names in the folder are on disk; OSError if they cannot be brought there."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, octets: bytes) -> None:
    """The file has these octets or, if anything fails, its old ones; never a part. OSError says that it failed."""
    unfinished = path.with_name(f"{path.name}.new")
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(fd)
    unfinished.replace(path)
    sync_folder(path.parent)
