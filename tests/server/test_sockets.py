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
        [(heard, from_whom, way_back)] = endpoint.drain(10)
        assert heard == b"hello"
        assert from_whom == ("127.0.0.1", nas.getsockname()[1])
        assert endpoint.send(b"reply", way_back)
        data, source = nas.recvfrom(100)
        assert (data, source[0]) == (b"reply", asked)


@pytest.mark.parametrize("listen", ["[::]:0", "[::1]:0"])
def test_ipv6_is_answered(listen: str) -> None:
    with bound(listen) as server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        nas.settimeout(5)
        nas.sendto(b"hello", ("::1", server.getsockname()[1]))
        [(_, from_whom, way_back)] = endpoint.drain(10)
        assert from_whom == ("::1", nas.getsockname()[1])
        assert endpoint.send(b"reply", way_back)
        assert nas.recvfrom(100)[1][0] == "::1"


def test_a_drain_takes_no_more_than_a_batch_and_an_empty_socket_gives_nothing() -> None:
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        endpoint = Endpoint(server)
        for number in range(5):
            nas.sendto(b"%d" % number, server.getsockname())
        assert [data for data, _, _ in endpoint.drain(3)] == [b"0", b"1", b"2"]
        assert len(endpoint.drain(10)) == 2
        assert endpoint.drain(10) == []


def test_a_datagram_that_is_too_long_is_seen_to_be() -> None:
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.sendto(bytes(5000), server.getsockname())
        [(data, _, _)] = Endpoint(server).drain(10)
        assert len(data) == DATAGRAM_OCTETS_MAX > 4096


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"])
def test_replies_of_a_batch_leave_together_and_each_arrives_whole_where_it_belongs(listen: str) -> None:
    family = socket.AF_INET6 if "[" in listen else socket.AF_INET
    home = "::1" if "[" in listen else "127.0.0.1"
    with (
        bound(listen) as server,
        socket.socket(family, socket.SOCK_DGRAM) as one,
        socket.socket(family, socket.SOCK_DGRAM) as two,
    ):
        endpoint = Endpoint(server)
        for nas, count in ((one, 100), (two, 3)):
            nas.settimeout(5)
            for number in range(count):
                nas.sendto(b"%03d" % number, (home, server.getsockname()[1]))
        arrivals = endpoint.drain(200)
        replies = [(b"re " + data + b"!" * (int(data) % 2), way_back) for data, _, way_back in arrivals]
        assert endpoint.send_many(replies) == 0
        for nas, count in ((one, 100), (two, 3)):
            heard = sorted(nas.recvfrom(100) for _ in range(count))
            assert [data for data, _ in heard] == [b"re %03d" % n + b"!" * (n % 2) for n in range(count)]
            assert {source[0] for _, source in heard} == {home}


def test_a_reply_too_long_to_leave_with_others_leaves_alone() -> None:
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.bind(("127.0.0.1", 0))
        nas.settimeout(5)
        replies = [(bytes(3000), nas.getsockname())] * 3
        assert Endpoint(server).send_many(replies) == 0
        assert [len(nas.recv(5000)) for _ in range(3)] == [3000] * 3


def test_where_the_kernel_cannot_cut_replies_leave_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sms_aaa.server.sockets._UDP_SEGMENT", 9999)
    with bound("127.0.0.1:0") as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas:
        nas.bind(("127.0.0.1", 0))
        nas.settimeout(5)
        endpoint = Endpoint(server)
        for _ in range(2):
            assert endpoint.send_many([(b"one", nas.getsockname()), (b"two", nas.getsockname())]) == 0
            assert [nas.recv(100), nas.recv(100)] == [b"one", b"two"]


def test_replies_that_the_kernel_does_not_take_are_counted() -> None:
    with bound("127.0.0.1:0") as server:
        nobody = ("127.0.0.1", 0)
        assert Endpoint(server).send_many([(b"one", nobody), (b"two", nobody), (b"other", nobody)]) == 3


def test_several_workers_share_a_port() -> None:
    with bound("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with bound(f"127.0.0.1:{port}") as second:
            assert second.getsockname()[1] == port
            assert granted_buffer_octets(second) > 0
