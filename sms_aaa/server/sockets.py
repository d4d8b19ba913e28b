"""UDP sockets: bound by the supervisor, passed to workers by descriptor, drained in batches.

One SO_REUSEPORT socket a worker and address, all bound before any worker starts: the kernel's mapping of sources to
sockets stands still while workers come and go, and a dead worker's queue waits for its successor. On a wildcard address
the packet tells which local address was asked (IP_PKTINFO), and the reply leaves from it: a NAS drops a reply that
comes from another.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from sms_aaa.config import parse_listen

if TYPE_CHECKING:
    from collections.abc import Sequence

DATAGRAM_OCTETS_MAX = 4096 + 1
"""RFC 2865 allows 4096 octets: one more shows a datagram that is too long."""

_WILDCARDS = frozenset(("0.0.0.0", "::"))  # noqa: S104 - what an operator may set
_PKTINFO4 = struct.Struct("=I4s4s")
_PKTINFO6 = struct.Struct("=16sI")
_TIMESPEC = struct.Struct("=qq")  # seconds, nanoseconds
_MEMINFO = struct.Struct("=9I")  # octets queued first, room second, datagrams dropped last
_ANCILLARY_OCTETS = socket.CMSG_SPACE(_PKTINFO6.size) + socket.CMSG_SPACE(_TIMESPEC.size)
_IP_PKTINFO = 8  # Linux; Python 3.11 has no name for it
_SO_RCVBUFFORCE = 33  # Linux; lets root pass net.core.rmem_max
_SO_TIMESTAMPNS = 35
_SO_MEMINFO = 55  # Linux 4.12
_UDP_SEGMENT = 103  # Linux 4.18
_SEGMENT_SIZE = struct.Struct("=H")
SEGMENTS_MAX = 64  # the kernel's own bound
SEGMENT_OCTETS_MAX = 1200  # fits into any path's packet: segments are not cut again
SEGMENTED_OCTETS_MAX = 60_000

BACKS_MAX = 1024

# ConnectionError: an ICMP error about an earlier reply. Its receiver is gone, nothing of ours is lost.
_NOTHING_MORE = (BlockingIOError, InterruptedError, ConnectionError)

WayBack = tuple[object, ...]
"""What sends a reply back: an address, or an address and the control data that name the address that was asked."""

Arrival = tuple[bytes, tuple[str, int], WayBack]
"""A datagram, where it came from, and the way back from the address that was asked."""


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

    __slots__ = ("_backs", "_can_segment", "_is_ipv6", "_is_wildcard", "_level", "_option", "socket")

    def __init__(self, passed: socket.socket) -> None:
        self.socket = passed
        self._is_wildcard = passed.getsockname()[0] in _WILDCARDS
        self._is_ipv6 = passed.family == socket.AF_INET6
        self._level = socket.IPPROTO_IPV6 if self._is_ipv6 else socket.IPPROTO_IP
        self._option = socket.IPV6_PKTINFO if self._is_ipv6 else _IP_PKTINFO
        self._can_segment = True
        self._backs: dict[bytes, tuple[tuple[int, int, bytes], ...]] = {}
        if self._is_wildcard:
            passed.setsockopt(self._level, socket.IPV6_RECVPKTINFO if self._is_ipv6 else _IP_PKTINFO, 1)
        # Always: a datagram that is queued before this is set would say that it came when it was read.
        passed.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        passed.setblocking(False)

    def queue(self) -> tuple[int, int, int]:
        """(octets that are queued, octets that there is room for, datagrams that found none since the socket began).

        In the kernel's own count, where a datagram takes some 800 octets.
        """
        queued, room, *_, dropped = _MEMINFO.unpack(
            self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        )
        return queued, room, dropped

    def drain(self, count_max: int) -> list[Arrival]:
        """What is there, at most `count_max` datagrams."""
        arrivals: list[Arrival] = []
        take = arrivals.append
        receive = self._receive_asked if self._is_wildcard else self._receive
        try:
            for _ in range(count_max):
                take(receive())
        except _NOTHING_MORE:
            pass
        return arrivals

    def drain_timed(self, count_max: int) -> list[tuple[Arrival, float]]:
        """As drain, each datagram with when the kernel received it, in epoch seconds."""
        timed: list[tuple[Arrival, float]] = []
        try:
            for _ in range(count_max):
                timed.append(self._receive_timed())  # noqa: PERF401 - what came before the exception is kept
        except _NOTHING_MORE:
            pass
        return timed

    def send(self, reply: bytes, way_back: WayBack) -> bool:
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

    def send_many(self, replies: Sequence[tuple[bytes, WayBack]]) -> int:
        """Sends a batch; how many the kernel did not take.

        Sending is the dearest part of a login. Replies of one size to one port of a NAS leave together, in one call
        that the kernel cuts into datagrams (UDP_SEGMENT): a busy NAS asks from few ports, and most Accepts are alike.
        """
        if not self._can_segment or len(replies) == 1:
            return sum(not self.send(reply, way_back) for reply, way_back in replies)
        together: dict[tuple[WayBack, int], list[bytes]] = {}
        for reply, way_back in replies:
            key = (way_back, len(reply))
            if key in together:
                together[key].append(reply)
            else:
                together[key] = [reply]
        unsent = 0
        for (way_back, octets), alike in together.items():
            if len(alike) == 1 or octets > SEGMENT_OCTETS_MAX:
                unsent += sum(not self.send(reply, way_back) for reply in alike)
            else:
                unsent += self._send_alike(alike, octets, way_back)
        return unsent

    def _send_alike(self, replies: list[bytes], octets: int, way_back: WayBack) -> int:
        """`replies`: two or more of `octets` each, to the same place."""
        at_once = min(SEGMENTS_MAX, SEGMENTED_OCTETS_MAX // octets)
        address, ancillary = way_back if self._is_wildcard else (way_back, ())
        ancillary = [*ancillary, (socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT_SIZE.pack(octets))]  # type: ignore[misc] # as above
        unsent = 0
        for start in range(0, len(replies), at_once):
            part = replies[start : start + at_once]
            try:
                self.socket.sendmsg((b"".join(part),), ancillary, 0, address)  # type: ignore[arg-type] # as above
            except OSError:
                # An interface that cannot, or a full buffer: one by one tells which, and what was lost.
                failed = sum(not self.send(reply, way_back) for reply in part)
                self._can_segment = bool(failed)
                unsent += failed
        return unsent

    def _receive(self) -> Arrival:
        data, address = self.socket.recvfrom(DATAGRAM_OCTETS_MAX)
        return data, address[:2] if self._is_ipv6 else address, address

    def _receive_timed(self) -> tuple[Arrival, float]:
        data, ancillary, _, address = self.socket.recvmsg(DATAGRAM_OCTETS_MAX, _ANCILLARY_OCTETS)
        seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
        way_back = (address, self._back_of(ancillary)) if self._is_wildcard else address
        return (data, address[:2], way_back), seconds + nanoseconds / 1e9

    def _receive_asked(self) -> Arrival:
        data, ancillary, _, address = self.socket.recvmsg(DATAGRAM_OCTETS_MAX, _ANCILLARY_OCTETS)
        return data, address[:2] if self._is_ipv6 else address, (address, self._back_of(ancillary))

    def _back_of(self, ancillary: list[tuple[int, int, bytes]]) -> tuple[tuple[int, int, bytes], ...]:
        """The kernel writes the time first and the address that was asked last."""
        asked = ancillary[-1][2] if ancillary else b""
        back = self._backs.get(asked)
        return self._learn_back(asked) if back is None else back

    def _learn_back(self, asked: bytes) -> tuple[tuple[int, int, bytes], ...]:
        """The received packet info as control data to send with: from that address, by whatever interface routing says.

        There are as many as this machine has addresses; they are kept, within a bound.
        """
        if len(self._backs) >= BACKS_MAX:
            self._backs.clear()
        value = asked
        if asked and not self._is_ipv6:
            value = _PKTINFO4.pack(0, _PKTINFO4.unpack(asked[: _PKTINFO4.size])[1], bytes(4))
        back = self._backs[asked] = ((self._level, self._option, value),) if asked else ()
        return back
