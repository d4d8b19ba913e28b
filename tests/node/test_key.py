"""The node's key: made once with mode 0600, refused when others may read it or it is not one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sms_aaa.node.key import KeyFault, read_or_create_key

if TYPE_CHECKING:
    from pathlib import Path


def test_a_missing_key_is_made_with_mode_0600_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    first = read_or_create_key(path, fresh=b"1" * 32)
    assert first == b"1" * 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_create_key(path, fresh=b"2" * 32) == first
    assert [file.name for file in path.parent.iterdir()] == ["key"]


def test_two_starts_at_once_end_with_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            read_or_create_key(path, fresh=bytes([number]) * 32)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    key = read_or_create_key(path, fresh=b"9" * 32)
    assert isinstance(key, bytes)
    assert key in {bytes([number]) * 32 for number in range(4)}


def test_a_key_that_others_may_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read_or_create_key(path, fresh=b"1" * 32)
    path.chmod(0o640)
    fault = read_or_create_key(path, fresh=b"2" * 32)
    assert isinstance(fault, KeyFault)
    assert fault.remedy == f"chmod 600 {path}"


def test_a_file_that_is_no_key_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("not a key")
    path.chmod(0o600)
    assert isinstance(read_or_create_key(path, fresh=b"2" * 32), KeyFault)
    assert path.read_text() == "not a key"
