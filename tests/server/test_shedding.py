"""What an overloaded worker drops: read off datagrams as they come, by sockets that say how full they are."""

from __future__ import annotations

import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms_aaa.config import LimitsSettings
from sms_aaa.metrics import Word
from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.radius.request import access_request, accounting_request, status_server
from sms_aaa.rules.limits import Worth
from sms_aaa.server.shedding import Shedder, worth_of
from sms_aaa.server.sockets import Endpoint, bind

DIGESTS = SecretDigests(b"secret")
NAME = attribute(dictionary.USER_NAME, b"alice")
LISTENS = ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"]


def record(status: int | None) -> bytes:
    said = b"" if status is None else attribute(dictionary.ACCT_STATUS_TYPE, integer(status))
    return accounting_request(1, NAME + said, DIGESTS)


def login(extra: bytes = b"") -> bytes:
    return access_request(1, bytes(16), NAME + extra, DIGESTS)


@pytest.mark.parametrize(
    ("datagram", "worth"),
    [
        (record(3), Worth.INTERIM),
        *((record(status), Worth.RECORD) for status in (1, 2, 7, 8, 9, 15, None)),
        (login(), Worth.LOGIN),
        (login(attribute(dictionary.STATE, b"x")), Worth.CONVERSATION),
        # An attribute inside of another one, or behind the end, is none.
        (login(attribute(dictionary.CLASS, attribute(dictionary.STATE, b"x"))), Worth.LOGIN),
        (status_server(1, bytes(16), DIGESTS), Worth.RECORD),
        (b"", Worth.RECORD),
    ],
)
def test_the_worth_of_a_datagram(datagram: bytes, worth: Worth) -> None:
    assert worth_of(datagram) is worth


@given(st.binary(max_size=300))
def test_whatever_comes_has_a_worth(datagram: bytes) -> None:
    for code in (b"\1", b"\4", b""):
        assert worth_of(code + datagram) in Worth


@pytest.mark.parametrize("listen", LISTENS)
def test_a_socket_says_how_full_it_is_what_it_dropped_and_when_each_datagram_came(listen: str) -> None:
    with bind(listen, receive_buffer_octets=65_536) as server, socket.socket(server.family, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        to = ("127.0.0.1" if server.family == socket.AF_INET else "::1", server.getsockname()[1])
        assert endpoint.queue()[0] == endpoint.queue()[2] == 0
        before = time.time()
        nas.sendto(b"first", to)
        between = time.time()
        time.sleep(0.05)
        for _ in range(1000):
            nas.sendto(bytes(150), to)
        queued, room, dropped = endpoint.queue()
        assert queued > 0.9 * room
        assert room >= 65_536
        timed = endpoint.drain_timed(2000)
        assert len(timed) + dropped == 1001
        (data, source, way_back), at = timed[0]
        assert data == b"first"
        assert source == (to[0], nas.getsockname()[1])
        assert before - 0.01 <= at <= between + 0.01
        assert timed[-1][1] > at + 0.03
        assert endpoint.send(b"reply", way_back)
        nas.settimeout(5)
        assert nas.recvfrom(100)[0] == b"reply"
        assert endpoint.drain_timed(10) == []


def test_a_worker_is_behind_while_its_queue_is_full_and_drops_by_worth_and_age() -> None:
    counters = memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q")
    shedder = Shedder(LimitsSettings(shed_queue_percent=50, stale_seconds=2.0), counters)
    with (
        bind("127.0.0.1:0", receive_buffer_octets=65_536) as server,
        bind("127.0.0.1:0", receive_buffer_octets=65_536) as quiet,
        socket.socket(type=socket.SOCK_DGRAM) as nas,
    ):
        endpoint, other = Endpoint(server), Endpoint(quiet)
        assert not shedder.is_behind(endpoint)
        for _ in range(1000):
            nas.sendto(record(3), server.getsockname())
        assert shedder.is_behind(endpoint)
        assert not shedder.is_behind(other), "each socket for itself"
        queued = endpoint.drain(2000)
        assert not shedder.is_behind(endpoint)
        shedder.count_drops([endpoint, other])
        assert counters[Word.KERNEL_DROPS] == 1000 - len(queued)
    source, now = ("127.0.0.1", 1), 1000.0
    datagrams = [record(3), record(1), record(2), login(), login(attribute(dictionary.STATE, b"x"))]
    old = [((data, source, source), now - 2.5) for data in datagrams]
    new = [((data, source, source), now - 1.5) for data in datagrams]
    assert [data for data, _, _ in shedder.keep(old, now)] == [datagrams[1], datagrams[2], datagrams[4]]
    assert [data for data, _, _ in shedder.keep(new, now)] == datagrams[1:]
    assert (counters[Word.SHED_INTERIMS], counters[Word.SHED_STALE]) == (2, 1)
