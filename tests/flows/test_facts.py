"""What a session's row keeps of what its packets said: the first word, the newest address and those before, the Stop's.

Read by hand and stored in real PostgreSQL: identifiers of several vendors, addresses that change in mid-session, late.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, packet_of, utc

from sms_aaa.db.engine import connect
from sms_aaa.flows.facts import VENDOR_CHARACTERS_MAX, facts_of, fingerprint_of
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import Packet, attribute, integer, parse
from sms_aaa.rules.session import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
FIRST, SECOND = 0x0A000007, 0x0A000009


def packet(*extra: bytes) -> Packet:
    parsed = parse(packet_of(Said(status="interim", at=T0, extra=b"".join(extra))))
    assert isinstance(parsed, Packet)
    return parsed


@pytest.mark.parametrize(
    "sent",
    [
        [attribute(dictionary.ADSL_AGENT_CIRCUIT_ID, b"olt1 eth 2/1:100"), attribute(3561 << 8 | 2, b"cpe-7")],
        [attribute(2352 << 8 | 97, b"olt1 eth 2/1:100"), attribute(2352 << 8 | 96, b"cpe-7")],
        [attribute(4874 << 8 | 110, b"olt1 eth 2/1:100"), attribute(4874 << 8 | 182, b"cpe-7")],
        [
            attribute(dictionary.CISCO_AVPAIR, b"client-mac-address=0200.0000.0007"),
            attribute(dictionary.CISCO_AVPAIR, b"circuit-id-tag=olt1 eth 2/1:100"),
            attribute(dictionary.CISCO_AVPAIR, b"remote-id-tag=cpe-7"),
        ],
    ],
    ids=["ADSL Forum", "Redback", "Juniper", "Cisco"],
)
def test_the_circuit_is_found_in_whichever_attribute_a_vendor_sends_it(sent: list[bytes]) -> None:
    facts = facts_of(packet(*sent), None)
    assert (facts.circuit_id, facts.remote_id) == ("olt1 eth 2/1:100", "cpe-7")


def test_standard_attributes_are_kept_as_they_were_sent() -> None:
    facts = facts_of(
        packet(
            attribute(dictionary.ACCT_MULTI_SESSION_ID, b"bundle-1"),
            attribute(dictionary.ACCT_LINK_COUNT, integer(2)),
            attribute(dictionary.CONNECT_INFO, b"54000 V.90"),
            attribute(dictionary.ACCT_AUTHENTIC, integer(1)),
            attribute(dictionary.SERVICE_TYPE, integer(2)),
            attribute(dictionary.FRAMED_PROTOCOL, integer(1)),
            attribute(dictionary.FRAMED_INTERFACE_ID, bytes.fromhex("0200000000000007")),
            attribute(dictionary.DELEGATED_IPV6_PREFIX, bytes.fromhex("003820010db8000100")),
        ),
        None,
    )
    assert (facts.acct_multi_session_id, facts.acct_link_count, facts.connect_info) == ("bundle-1", 2, "54000 V.90")
    assert (facts.acct_authentic, facts.service_type, facts.framed_protocol) == (1, 2, 1)
    assert (facts.framed_interface_id, facts.delegated_ipv6_prefix) == ("0200:0000:0000:0007", "2001:db8:1::/56")


def test_an_address_of_zeros_and_a_prefix_of_no_bits_are_none() -> None:
    """Else whoever asks who had an address would find this session for every one."""
    parsed = parse(
        packet_of(
            Said(
                status="start",
                at=T0,
                framed_ip=0,
                extra=attribute(dictionary.FRAMED_IPV6_PREFIX, bytes(18))
                + attribute(dictionary.FRAMED_IPV6_ADDRESS, bytes(16)),
            )
        )
    )
    assert isinstance(parsed, Packet)
    facts = facts_of(parsed, None)
    assert (facts.framed_ip, facts.framed_ipv6_prefix, facts.framed_ipv6_address) == (None, None, None)


def test_vendor_attributes_are_kept_by_name_or_number_and_secrets_are_not() -> None:
    facts = facts_of(
        packet(
            attribute(dictionary.MIKROTIK_REALM, b"north"),
            attribute(dictionary.CISCO_AVPAIR, b"ip:vrf-id=7"),
            attribute(dictionary.CISCO_AVPAIR, b"leap:session-key=geheim"),
            attribute(dictionary.MIKROTIK_WIRELESS_PSK, b"geheim"),
            attribute(2011 << 8 | 33, b"geheim"),
            attribute(6527 << 8 | 11, b"sub-7"),
        ),
        None,
    )
    assert facts.vendor_attributes is not None
    assert "geheim" not in facts.vendor_attributes
    assert b"geheim".hex() not in facts.vendor_attributes
    kept = json.loads(facts.vendor_attributes)
    assert kept["Mikrotik-Realm"] == "north"
    assert kept["Cisco-AVPair"] == ["ip:vrf-id=7", "***"]
    assert kept["Vendor-6527-Attr-11"] == "0x" + b"sub-7".hex()


def test_a_second_prefix_is_kept_beside_the_first() -> None:
    """RFC 3162 lets Framed-IPv6-Prefix come more than once."""
    prefixes = [attribute(dictionary.FRAMED_IPV6_PREFIX, bytes.fromhex(f"004020010db80000000{n}")) for n in (1, 2)]
    facts = facts_of(packet(*prefixes), None)
    assert facts.framed_ipv6_prefix == "2001:db8:0:1::/64"
    assert json.loads(facts.vendor_attributes or "") == {"Framed-IPv6-Prefix": "2001:db8:0:2::/64"}


def test_vendor_attributes_have_a_bound() -> None:
    many = [attribute(6527 << 8 | number, bytes(200)) for number in range(1, 19)]
    kept = facts_of(packet(*many), None).vendor_attributes
    assert kept is not None
    assert 0 < len(kept) < VENDOR_CHARACTERS_MAX + 200


def test_a_fingerprint_differs_where_a_fact_does_and_not_where_only_counters_do() -> None:
    first, again = (packet(attribute(dictionary.ACCT_INPUT_OCTETS, integer(octets))) for octets in (1, 2))
    other = packet(attribute(dictionary.CONNECT_INFO, b"x"))
    token = b"token-01"
    assert fingerprint_of(first, Event.INTERIM, token) == fingerprint_of(again, Event.INTERIM, token)
    assert fingerprint_of(first, Event.INTERIM, token) != fingerprint_of(other, Event.INTERIM, token)
    assert fingerprint_of(first, Event.INTERIM, token) != fingerprint_of(first, Event.INTERIM, b"token-02")


class Desk(Site):
    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, T0)

    def settle(self, *said: Said) -> None:
        for one in said:  # a batch each
            super().settle(one)

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return self.connection.execute(query).fetchall()


@pytest.fixture
def desk(database_dsn: str) -> Iterator[Desk]:
    with connect(database_dsn, name="test") as connection:
        yield Desk(connection)
        connection.rollback()


def at(seconds: int, status: str = "interim", **more: object) -> Said:
    counted = {} if status == "start" else {"seconds": seconds, "octets_in": seconds, "octets_out": seconds}
    return Said(status=status, at=T0 + timedelta(seconds=seconds), **counted, **more)


FORMER = "select host(address), from_at, heard_at, to_at from session_address order by from_at, address"
NOW_HAS = "select host(framed_ip), addressed_at from session"


def seconds(number: int) -> object:
    return T0 + timedelta(seconds=number)


def test_an_address_that_changes_in_mid_session_leaves_the_one_before_with_its_times(desk: Desk) -> None:
    desk.settle(at(0, "start"), at(300), at(600, framed_ip=SECOND), at(900, framed_ip=SECOND), at(1200))
    assert desk.ask(FORMER) == [
        ("10.0.0.7", seconds(0), seconds(300), seconds(600)),
        ("10.0.0.9", seconds(600), seconds(900), seconds(1200)),
    ]
    assert desk.ask(NOW_HAS) == [("10.0.0.7", seconds(1200))]
    assert desk.ask("select kind, event_at from anomaly order by event_at") == [
        ("re-addressed", seconds(600)),
        ("re-addressed", seconds(1200)),
    ]


def test_a_late_record_with_an_earlier_address_changes_nothing_back(desk: Desk) -> None:
    late = at(300)
    desk.settle(at(600, framed_ip=SECOND), late, late, at(0, "start"), at(900, framed_ip=SECOND))
    assert desk.ask(FORMER) == [
        ("10.0.0.7", seconds(0), seconds(0), seconds(0)),
        ("10.0.0.7", seconds(300), seconds(300), seconds(300)),
    ]
    assert desk.ask(NOW_HAS) == [("10.0.0.9", None)]


def test_an_address_that_postgresql_writes_in_another_way_has_not_changed(desk: Desk) -> None:
    mapped = attribute(dictionary.FRAMED_IPV6_ADDRESS, bytes(10) + b"\xff\xff\x0a\x01\x02\x03")
    desk.settle(at(0, "start", extra=mapped), at(300, extra=mapped), at(600, extra=mapped))
    assert desk.ask("select host(framed_ipv6_address), addressed_at from session") == [("::ffff:10.1.2.3", None)]
    assert (desk.ask(FORMER), desk.ask("select kind from anomaly")) == ([], [])


def test_an_address_told_only_by_the_second_record_was_there_from_the_start(desk: Desk) -> None:
    desk.settle(at(0, "start", framed_ip=0), at(300, framed_ip=SECOND))
    assert (desk.ask(NOW_HAS), desk.ask(FORMER)) == ([("10.0.0.9", None)], [])


def test_the_first_word_stands_but_of_vendor_attributes_the_stop_has_the_last(desk: Desk) -> None:
    realm = attribute(dictionary.MIKROTIK_REALM, b"north")
    final, early = (attribute(6527 << 8 | 11, octets) for octets in (b"\x02", b"\x01"))
    desk.settle(
        at(0, "start", extra=realm, username=b"\0\0\0\0"),
        at(300, extra=early + attribute(dictionary.CONNECT_INFO, b"first")),
        at(600, "stop", extra=final + attribute(dictionary.CONNECT_INFO, b"second")),
        at(0, "start", extra=realm + early, identifier=9),
    )
    ((username, connect_info, vendor),) = desk.ask("select username, connect_info, vendor_attributes from session")
    assert (username, connect_info) == ("alice", "first")
    assert json.loads(str(vendor)) == {"Mikrotik-Realm": "north", "Vendor-6527-Attr-11": "0x02"}
