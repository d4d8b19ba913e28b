"""crypt(3) of this system: what the hashes of its own password files are made with.

Python gave up its module `crypt` with 3.13, so the library is called itself. Which methods it knows is the system's
affair: libxcrypt (Debian, Fedora, Arch) has all that are spoken of here, musl has no yescrypt, other systems have no
libcrypt at all. The call lets go of the interpreter's lock: it is made in threads beside a worker's loop.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# libxcrypt's crypt_data has 32 kB, that of glibc's old libcrypt 131,232 octets.
_DATA_OCTETS = 262_144
_LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2", None)  # None: musl has it in its libc


def _find() -> Callable[[bytes, bytes, object], bytes | None] | None:
    for name in _LIBRARIES:
        try:
            crypt_r = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        crypt_r.argtypes, crypt_r.restype = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p], ctypes.c_char_p
        return crypt_r
    return None


_crypt_r = _find()


def crypt(password: bytes, setting: bytes) -> bytes | None:
    """The whole hash text of a password; `setting` is one with the same method, cost and salt.

    None where this system has no such method, and for a password with a NUL, which would end it.
    """
    if _crypt_r is None or b"\0" in password or b"\0" in setting:
        return None
    made = _crypt_r(password, setting, ctypes.create_string_buffer(_DATA_OCTETS))
    # libxcrypt tells a failure by a text that no hash can be: *0 or *1.
    return None if made is None or made.startswith(b"*") else made
