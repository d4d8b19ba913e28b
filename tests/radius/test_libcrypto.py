"""libcrypto's MD4 and DES are what is written out beside them, and are left alone where they cannot be trusted."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.radius import libcrypto, mschap

pytestmark = pytest.mark.skipif(libcrypto.PRIMITIVES is None, reason="this Python's libcrypto has no MD4 or DES")


@given(st.binary(max_size=300))
def test_md4_is_the_one_that_is_written_out(message: bytes) -> None:
    assert libcrypto.PRIMITIVES is not None
    assert libcrypto.PRIMITIVES.md4(message) == mschap.md4_written_out(message)


@given(st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16))
def test_a_response_is_the_one_by_triple_des(challenge: bytes, password_hash: bytes) -> None:
    assert libcrypto.PRIMITIVES is not None
    expected = mschap.challenge_response_by_triple_des(challenge, password_hash)
    assert libcrypto.PRIMITIVES.challenge_response(challenge, password_hash) == expected


@given(st.binary(min_size=16, max_size=16))
def test_rfc_2759_section_8_5_keys_are_the_hash_in_pieces_of_seven_bits(password_hash: bytes) -> None:
    bits = "".join(f"{octet:08b}" for octet in password_hash + bytes(5))
    expected = bytes(int(bits[at : at + 7] + "0", 2) for at in range(0, 168, 7))
    assert libcrypto.spread_keys(password_hash) == expected


def test_rfc_2433_appendix_b_2_by_triple_des() -> None:
    response = mschap.challenge_response_by_triple_des(libcrypto._CHALLENGE, libcrypto._NT_HASH)
    assert response == libcrypto._RESPONSE


class WithoutDes(ctypes.PyDLL):
    def __getattr__(self, name: str) -> object:
        if name.startswith("DES"):
            raise AttributeError(name)
        return super().__getattr__(name)


class WithAnotherMd4(ctypes.PyDLL):
    """MD5 has the same signature, and says something else."""

    def __getattr__(self, name: str) -> object:
        return super().__getattr__("MD5" if name == "MD4" else name)


@pytest.mark.parametrize("library", [WithoutDes, WithAnotherMd4])
def test_a_library_that_lacks_one_or_says_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, library: type[ctypes.PyDLL]
) -> None:
    monkeypatch.setattr(ctypes, "PyDLL", library)
    assert libcrypto._find() is None
