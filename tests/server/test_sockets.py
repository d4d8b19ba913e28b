"""Sockets on loopback: the reply leaves from the address that was asked, IPv4 and IPv6; the buffer is asked for."""

from __future__ import annotations

import socket

import pytest

from sms_aaa.server.sockets import DATAGRAM_OCTETS_MAX, Endpoint, bind, granted_buffer_octets


def bound(listen: str) -> socket.socket:
    return bind(listen, receive_buffer_octets=1 << 20)


@pytest.mark.parametrize("asked", ["127.0.0.1", "127.0.0.5"])
def test_on_a_wildcard_address_the_reply_comes_from_the_address_that_was_asked(asked: str) -> None:
    with bound("0.0.0.0:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        nas.settimeout(5)
        nas.sendto(b"hello", (asked, server.getsockname()[1]))
        [arrival] = endpoint.drain(10)
        assert arrival.data == b"hello"
        assert arrival.source == ("127.0.0.1", nas.getsockname()[1])
        assert endpoint.send(b"reply", arrival.way_back)
        data, source = nas.recvfrom(100)
        assert (data, source[0]) == (b"reply", asked)


@pytest.mark.parametrize("listen", ["[::]:0", "[::1]:0"])
def test_ipv6_is_answered(listen: str) -> None:
    with bound(listen) as server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        nas.settimeout(5)
        nas.sendto(b"hello", ("::1", server.getsockname()[1]))
        [arrival] = endpoint.drain(10)
        assert arrival.source[0] == "::1"
        assert endpoint.send(b"reply", arrival.way_back)
        assert nas.recvfrom(100)[1][0] == "::1"


def test_a_drain_takes_no_more_than_a_batch_and_an_empty_socket_gives_nothing() -> None:
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        for number in range(5):
            nas.sendto(b"%d" % number, server.getsockname())
        assert [arrival.data for arrival in endpoint.drain(3)] == [b"0", b"1", b"2"]
        assert len(endpoint.drain(10)) == 2
        assert endpoint.drain(10) == []


def test_a_datagram_that_is_too_long_is_seen_to_be() -> None:
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.sendto(bytes(5000), server.getsockname())
        [arrival] = Endpoint(server).drain(10)
        assert len(arrival.data) == DATAGRAM_OCTETS_MAX > 4096


def test_several_workers_share_a_port() -> None:
    with bound("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with bound(f"127.0.0.1:{port}") as second:
            assert second.getsockname()[1] == port
            assert granted_buffer_octets(second) > 0
