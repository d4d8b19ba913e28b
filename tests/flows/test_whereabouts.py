"""Where a login comes from as its packet says, what its terms saw, and how long its session may be."""

from __future__ import annotations

import pytest
from make import make_vault

from sms_aaa.flows.tables import Tables
from sms_aaa.flows.whereabouts import SAW_OCTETS_MAX, tell_terms, whereabouts
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Packet, as_integer, attribute, integer, parse
from sms_aaa.radius.request import access_request
from sms_aaa.rules.access import Whereabouts
from sms_aaa.rules.entitlement import NodePlan, NodeRealm, Policy, Terms
from sms_aaa.rules.realms import Named
from sms_aaa.rules.reasons import Reason

TERMS = Terms(nas_ids=(1,))
NAMES = {1: "bng1", 2: "bng2"}
HERE = Whereabouts(1, (b"ge-0/0/1",), b"020000000007")


def packet_with(*attributes: tuple[int, bytes]) -> Packet:
    octets = b"".join(attribute(key, value) for key, value in attributes)
    packet = parse(access_request(1, bytes(16), octets, SecretDigests(b"secret")))
    assert isinstance(packet, Packet)
    return packet


@pytest.mark.parametrize(
    ("attributes", "ports"),
    [
        ([], ()),
        ([(dictionary.NAS_PORT, integer(7))], (b"7",)),
        ([(dictionary.NAS_PORT, integer(0))], (b"0",)),
        ([(dictionary.NAS_PORT_ID, b"ge-0/0/1"), (dictionary.NAS_PORT, integer(7))], (b"ge-0/0/1", b"7")),
        ([(dictionary.ADSL_AGENT_CIRCUIT_ID, b"dslam1 atm 1/1")], (b"dslam1 atm 1/1",)),
        ([(dictionary.ADSL_AGENT_REMOTE_ID, b"\x00\x04\x00\x64")], (b"0x00040064",)),
        ([(dictionary.ADSL_AGENT_REMOTE_ID, b"\xff\xfe")], (b"0xfffe",)),
        ([(dictionary.ADSL_AGENT_CIRCUIT_ID, b"0X0004AB")], (b"0x0004ab",)),
    ],
)
def test_a_line_is_all_that_the_nas_says_of_it(attributes: list[tuple[int, bytes]], ports: tuple[bytes, ...]) -> None:
    found = whereabouts(packet_with(*attributes), 1, TERMS, None)
    assert found is not None
    assert (found.nas_id, found.ports, found.realm_nas_ids) == (1, ports, ())


@pytest.mark.parametrize(
    ("station", "mac"), [(b"02-00-00-00-00-AB", b"0200000000ab"), (b"+4930123456", None), (b"\xff" * 17, None)]
)
def test_a_device_is_its_hardware_address_or_nothing(station: bytes, mac: bytes | None) -> None:
    for attributes, expected in (([(dictionary.CALLING_STATION_ID, station)], mac), ([], None)):
        found = whereabouts(packet_with(*attributes), 1, TERMS, None)
        assert found is not None
        assert found.mac == expected


def test_nothing_is_looked_at_for_a_service_without_terms_in_a_realm_without_places() -> None:
    anywhere, bound = (Named(NodeRealm(1, "isp-a", True, nas_ids), b"alice") for nas_ids in ((), (2, 3)))
    for named in (None, anywhere, Named(None, b"alice@elsewhere")):
        assert whereabouts(packet_with(), 1, None, named) is None
    found = whereabouts(packet_with(), 1, None, bound)
    assert found is not None
    assert found.realm_nas_ids == (2, 3)


@pytest.mark.parametrize(
    ("reason", "terms", "where", "told"),
    [
        (Reason.NOT_YET_ACTIVE, Terms(valid_from=1), HERE, b"valid from 1970-01-01 00:00:01Z"),
        (Reason.EXPIRED, Terms(valid_until=1), HERE, b"valid until 1970-01-01 00:00:01Z"),
        (Reason.NAS_NOT_ALLOWED, Terms(nas_ids=(2, 9)), HERE, b"bng1; bound to bng2, NAS 9"),
        (Reason.NAS_NOT_ALLOWED, None, Whereabouts(1, (), None, (2,)), b"bng1; bound to bng2"),
        (Reason.PORT_MISMATCH, Terms(ports=(b"a", b"b")), HERE, b"ge-0/0/1; bound to a, b"),
        (Reason.PORT_MISMATCH, Terms(ports=(b"a",)), Whereabouts(1, (), None), b"no port; bound to a"),
        (Reason.MAC_NOT_BOUND, Terms(macs=(b"m",)), Whereabouts(1, (), None), b"no hardware address; bound to m"),
        (Reason.ACCEPTED, Terms(nas_ids=(1,)), HERE, b""),
        (Reason.BAD_PASSWORD, Terms(nas_ids=(2,)), HERE, b""),
    ],
)
def test_what_a_check_saw_is_told_in_words(
    reason: Reason, terms: Terms | None, where: Whereabouts, told: bytes
) -> None:
    assert tell_terms(reason, terms, where, NAMES) == told


def test_what_is_told_is_bounded_and_what_came_is_not_cut() -> None:
    many = Terms(ports=tuple(b"port %d of a long name" % number for number in range(32)))
    told = tell_terms(Reason.PORT_MISMATCH, many, HERE, NAMES)
    assert len(told) == SAW_OCTETS_MAX
    assert told.startswith(b"ge-0/0/1; bound to port 0")
    assert told.endswith(b"...")


@pytest.mark.parametrize(
    ("limit", "left", "timeout"),
    [(0, 0, None), (3600, 0, 3600), (3600, 60, 60), (3600, 3600, 3600), (3600, 9999, 3600), (0, 60, 60),
     (0, 1 << 40, (1 << 32) - 1)],
)  # fmt: skip
def test_the_earlier_of_plan_limit_and_end_of_service_is_the_session_timeout(
    limit: int, left: int, timeout: int | None
) -> None:
    policy = Policy(rate_up_kbps=1000, rate_down_kbps=1000, session_timeout_seconds=limit, idle_timeout_seconds=600)
    plan = Tables((), [NodePlan(1, "home", 1, policy)], make_vault()).plans[1]
    for dialect_at in range(len(plan.attributes)):
        packet = parse(access_request(1, bytes(16), plan.attributes_until(dialect_at, left), SecretDigests(b"secret")))
        assert isinstance(packet, Packet)
        timeouts = [as_integer(value) for value in packet.all(dictionary.SESSION_TIMEOUT)]
        assert timeouts == ([timeout] if timeout is not None else [])
        assert as_integer(packet.attributes[dictionary.IDLE_TIMEOUT]) == 600
