"""UDP sockets: bound by the supervisor, passed to workers by descriptor, drained in batches.

One SO_REUSEPORT socket a worker and address, all bound before any worker starts: the kernel's mapping of sources to
sockets stands still while workers come and go, and a dead worker's queue waits for its successor. On a wildcard address
the packet tells which local address was asked (IP_PKTINFO), and the reply leaves from it: a NAS drops a reply that
comes from another.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from sms_aaa.config import parse_listen

DATAGRAM_OCTETS_MAX = 4096 + 1
"""RFC 2865 allows 4096 octets: one more shows a datagram that is too long."""

_WILDCARDS = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what an operator may set
_PKTINFO4 = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_ANCILLARY_OCTETS = socket.CMSG_SPACE(_PKTINFO6.size)
_IP_PKTINFO = 8  # Linux; Python 3.11 has no name for it
_SO_RCVBUFFORCE = 33  # Linux; lets root pass net.core.rmem_max


class Arrival(NamedTuple):
    """A datagram, where it came from, and what sends the reply back from the address that was asked."""

    data: bytes
    source: tuple[str, int]
    way_back: tuple[object, ...]


def bind(listen: str, *, receive_buffer_octets: int) -> socket.socket:
    """A bound socket for one worker. OSError says why not."""
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer_octets)
    except PermissionError:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_octets)
    bound.setblocking(False)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def granted_buffer_octets(bound: socket.socket) -> int:
    """What the kernel gave; it doubles what was asked for, for its own bookkeeping."""
    return bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


class Endpoint:
    """A passed socket in a worker's hands."""

    __slots__ = ("_is_wildcard", "_level", "_option", "socket")

    def __init__(self, passed: socket.socket) -> None:
        self.socket = passed
        self._is_wildcard = passed.getsockname()[0] in _WILDCARDS
        is_ipv6 = passed.family == socket.AF_INET6
        self._level = socket.IPPROTO_IPV6 if is_ipv6 else socket.IPPROTO_IP
        self._option = socket.IPV6_PKTINFO if is_ipv6 else _IP_PKTINFO
        if self._is_wildcard:
            passed.setsockopt(self._level, socket.IPV6_RECVPKTINFO if is_ipv6 else _IP_PKTINFO, 1)
        passed.setblocking(False)

    def drain(self, count_max: int) -> list[Arrival]:
        """What is there, at most `count_max` datagrams."""
        arrivals: list[Arrival] = []
        receive = self._receive_asked if self._is_wildcard else self._receive
        try:
            while len(arrivals) < count_max:
                arrivals.append(receive())
        except (BlockingIOError, InterruptedError):
            pass
        except ConnectionError:
            pass  # an ICMP error about an earlier reply: its receiver is gone, nothing of ours is lost
        return arrivals

    def send(self, reply: bytes, way_back: tuple[object, ...]) -> bool:
        """False when the kernel did not take it: to the NAS that is a lost packet, and it will ask again."""
        try:
            if self._is_wildcard:
                address, ancillary = way_back
                self.socket.sendmsg((reply,), ancillary, 0, address)  # type: ignore[arg-type] # as _receive_asked made it
            else:
                self.socket.sendto(reply, way_back)
        except OSError:
            return False
        return True

    def _receive(self) -> Arrival:
        data, address = self.socket.recvfrom(DATAGRAM_OCTETS_MAX)
        return Arrival(data, (address[0], address[1]), address)

    def _receive_asked(self) -> Arrival:
        data, ancillary, _, address = self.socket.recvmsg(DATAGRAM_OCTETS_MAX, _ANCILLARY_OCTETS)
        back = [
            (level, kind, self._as_source(value))
            for level, kind, value in ancillary
            if level == self._level and kind == self._option
        ]
        return Arrival(data, (address[0], address[1]), (address, back))

    def _as_source(self, value: bytes) -> bytes:
        """The received packet info as the one to send with: from that address, by whatever interface routing says."""
        if self._level == socket.IPPROTO_IP:
            _, asked, _ = _PKTINFO4.unpack(value[: _PKTINFO4.size])
            return _PKTINFO4.pack(0, asked, bytes(4))
        return value
