"""Small decisions of the login's way that need no store: whose device it is, what our Class says."""

from __future__ import annotations

from sms_aaa.flows.access import encode_class, name_device, read_class
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Packet, attribute, parse
from sms_aaa.radius.request import access_request

STATION, PORT_ID, PORT = b"02-00-00-00-00-01", b"ppp17", (7).to_bytes(4, "big")


def test_a_device_that_tells_its_address_is_the_same_at_whatever_port() -> None:
    one = name_device(1, station=STATION, port_id=PORT_ID, port=PORT)
    assert one == name_device(1, station=STATION, port_id=b"ppp18", port=b"")
    assert one != name_device(2, station=STATION, port_id=PORT_ID, port=PORT)
    assert one != name_device(1, station=b"02-00-00-00-00-02", port_id=PORT_ID, port=PORT)


def test_without_an_address_the_port_is_the_device_and_port_0_is_none() -> None:
    assert name_device(1, station=b"", port_id=PORT_ID, port=b"") != b""
    assert name_device(1, station=b"", port_id=b"", port=PORT) != b""
    assert name_device(1, station=b"", port_id=b"", port=bytes(4)) == b""
    assert name_device(1, station=b"", port_id=b"", port=b"") == b""


def test_our_class_is_found_among_others() -> None:
    classes = (b"somebody else's", encode_class(42, b"token-01"), b"SMS")
    attributes = b"".join(attribute(dictionary.CLASS, value) for value in classes)
    packet = parse(access_request(1, bytes(16), attributes, SecretDigests(b"secret")))
    assert isinstance(packet, Packet)
    assert read_class(packet) == (42, b"token-01")
