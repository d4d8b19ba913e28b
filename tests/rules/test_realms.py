r"""The realm in a user name: user@realm and REALM\user, and what a service is looked up by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.rules.entitlement import NodeRealm
from sms_aaa.rules.realms import Named, Realms, UnknownRealm, split_realm

KEPT = NodeRealm(1, "isp-a.example", False, ())
STRIPPED = NodeRealm(2, "isp-b.example", True, (7,))
REALMS = Realms([KEPT, STRIPPED])


@pytest.mark.parametrize(
    ("username", "parts"),
    [
        (b"alice@isp-a.example", (b"alice", b"isp-a.example")),
        (b"Alice@ISP-A.Example", (b"Alice", b"isp-a.example")),
        (b"ISP-A\\alice", (b"alice", b"isp-a")),
        (b"alice@home@isp-a.example", (b"alice@home", b"isp-a.example")),
        (b"A\\b\\c", (b"b\\c", b"a")),
        (b"CORP\\alice@isp-a.example", (b"CORP\\alice", b"isp-a.example")),
        (b"CORP\\alice@", (b"alice@", b"corp")),
        (b"alice", None),
        (b"alice@", None),
        (b"@isp-a.example", None),
        (b"\\alice", None),
        (b"CORP\\", None),
        (b"@", None),
        (b"", None),
        (b"al\xffce@\xc4.example", (b"al\xffce", b"\xc4.example")),
    ],
)
def test_a_name_is_split_by_its_last_at_else_by_its_first_backslash(
    username: bytes, parts: tuple[bytes, bytes] | None
) -> None:
    assert split_realm(username) == parts


@pytest.mark.parametrize(
    ("username", "identities"),
    [
        (b"alice", (b"alice",)),
        (b"alice@isp-a.example", (b"alice@isp-a.example",)),
        (b"alice@ISP-A.example", (b"alice@ISP-A.example", b"alice@isp-a.example")),
        (b"ISP-A.example\\Alice", (b"ISP-A.example\\Alice", b"Alice@isp-a.example")),
        (b"alice@isp-b.example", (b"alice@isp-b.example", b"alice")),
        (b"ISP-B.EXAMPLE\\alice", (b"ISP-B.EXAMPLE\\alice", b"alice")),
        (b"alice@elsewhere", (b"alice@elsewhere",)),
    ],
)
def test_a_name_is_looked_up_as_sent_and_then_as_its_realm_says(username: bytes, identities: tuple[bytes, ...]) -> None:
    assert REALMS.identities(username) == identities


def test_a_bare_user_goes_by_its_name_in_each_stripped_realm_too() -> None:
    assert REALMS.spellings(b"alice") == (b"alice@isp-b.example",)
    assert REALMS.spellings(b"alice@isp-a.example") == ()


def test_however_a_realm_is_spelled_it_is_the_same_user() -> None:
    kept = {REALMS.key(name) for name in (b"al@isp-a.example", b"al@ISP-A.Example", b"Isp-A.example\\al")}
    stripped = {REALMS.key(name) for name in (b"al@isp-b.example", b"al@ISP-B.example", b"al")}
    assert (kept, stripped) == ({b"al@isp-a.example"}, {b"al"})
    assert REALMS.key(b"al@Elsewhere") == b"al@Elsewhere"


@given(st.binary(max_size=253))
def test_any_octets_have_at_most_one_realm_and_no_user_is_folded(username: bytes) -> None:
    parts = split_realm(username)
    if parts is None:
        return
    user, realm = parts
    assert user
    assert realm
    assert user in username
    assert realm in username.lower()
    assert len(user) + len(realm) + 1 == len(username)
    known = Realms([NodeRealm(1, "x", True, ())])
    assert known.identities(username)[0] == username


def test_an_unknown_realm_is_refused_only_if_it_is_to_be_and_only_where_there_are_realms() -> None:
    strict = Realms([KEPT], UnknownRealm.REJECT)
    assert strict.find(b"alice@elsewhere") == Named(None, b"alice@elsewhere", is_refused=True)
    assert strict.find(b"alice@isp-a.example") == Named(KEPT, b"alice@isp-a.example")
    assert REALMS.find(b"alice@elsewhere") == Named(None, b"alice@elsewhere")
    assert strict.find(b"alice") is None
    assert Realms([], UnknownRealm.REJECT).find(b"alice@elsewhere") is None
