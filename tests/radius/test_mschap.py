"""The RFCs' own examples."""

from __future__ import annotations

import pytest

from sms_aaa.radius import mschap

# RFC 2759 section 9.2.
CHALLENGE = bytes.fromhex("5B5D7C7D7B3F2F3E3C2C602132262628")
PEER_CHALLENGE = bytes.fromhex("21402324255E262A28295F2B3A337C7E")
HASH = bytes.fromhex("44EBBA8D5312B8D611474411F56989AE")
HASH_HASH = bytes.fromhex("41C00C584BD2D91C4017A2A12FA59F3F")
NT_RESPONSE = bytes.fromhex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")


@pytest.mark.parametrize(
    ("message", "digest"),
    [
        (b"", "31d6cfe0d16ae931b73c59d7e0c089c0"),
        (b"a", "bde52cb31de33e46245e05fbdbd6fb24"),
        (b"abc", "a448017aaf21d8525fc10ae87aa6729d"),
        (b"message digest", "d9130a8164549fe818874806e1c7014b"),
        (b"abcdefghijklmnopqrstuvwxyz", "d79e1c308aa5bbcdeea8ed63df412da9"),
        (b"1234567890" * 8, "e33b4ddc9c38f2199c3e7b164fcc0536"),
    ],
)
def test_rfc_1320_appendix_a_5_md4(message: bytes, digest: str) -> None:
    assert mschap.md4(message).hex() == digest


@pytest.mark.parametrize("octets", [55, 56, 63, 64, 119, 120])
def test_md4_pads_to_whole_blocks_and_depends_on_each_octet(octets: int) -> None:
    assert mschap.md4(bytes(octets)) != mschap.md4(bytes(octets - 1) + b"\x01")


def test_rfc_2433_appendix_b_2_challenge_response() -> None:
    password_hash = mschap.nt_hash(b"MyPw")
    assert password_hash.hex().upper() == "FC156AF7EDCD6C0EDDE3337D427F4EAC"
    response = mschap.challenge_response(bytes.fromhex("102DB5DF085D3041"), password_hash)
    assert response.hex().upper() == "4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61"


def test_rfc_2759_section_9_2_hashes() -> None:
    assert mschap.nt_hash(b"clientPass") == HASH
    assert mschap.md4(HASH) == HASH_HASH


def test_rfc_2759_section_9_2_responses() -> None:
    assert mschap.challenge_hash(PEER_CHALLENGE, CHALLENGE, b"User").hex().upper() == "D02E4386BCE91226"
    response = mschap.generate_nt_response(
        authenticator_challenge=CHALLENGE, peer_challenge=PEER_CHALLENGE, user_name=b"User", password_hash=HASH
    )
    assert response == NT_RESPONSE
    proof = mschap.authenticator_response(
        password_hash_hash=HASH_HASH,
        nt_response=NT_RESPONSE,
        peer_challenge=PEER_CHALLENGE,
        authenticator_challenge=CHALLENGE,
        user_name=b"User",
    )
    assert proof == b"S=407A5589115FD0D6209F510FE9C04566932CDA56"


def test_rfc_3079_section_3_5_3_start_keys() -> None:
    assert mschap.master_key(HASH_HASH, NT_RESPONSE).hex().upper() == "FDECE3717A8C838CB388E527AE3CDD31"
    send, receive = mschap.server_keys(HASH_HASH, NT_RESPONSE)
    assert send.hex().upper() == "8B7CDC149B993A1BA118CB153F56DCCB"
    # The RFC shows the one direction; the other is what FreeRADIUS 3.2 derives as well.
    assert receive.hex().upper() == "D5F0E9521E3EA9589645E86051C82226"


def test_rfc_2548_section_2_4_1_keys_of_version_1() -> None:
    assert mschap.mschap1_keys(HASH_HASH) == bytes(8) + HASH_HASH


def test_a_password_beyond_ascii_is_hashed_as_utf_16() -> None:
    assert mschap.nt_hash("Jürgen日本".encode()) == mschap.md4("Jürgen日本".encode("utf-16-le"))
    with pytest.raises(UnicodeDecodeError):
        mschap.nt_hash(b"\xff")
