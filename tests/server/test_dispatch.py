"""Outcomes carried out, with a clock that the test moves and a real socket: answer, later, silence."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from sms_aaa.flows.tables import Nas
from sms_aaa.node.nas_rows import LAST_ROW
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import Packet
from sms_aaa.rules.entitlement import MessageAuthenticatorPolicy
from sms_aaa.server import dispatch
from sms_aaa.server.dispatch import SILENCE, Answer, Asked, Deferred, Dispatcher
from sms_aaa.server.duplicates import DuplicateCache, Entry
from sms_aaa.server.gate import Admitted
from sms_aaa.server.sockets import Endpoint, bind

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = ("127.0.0.1", 1645, b"\1\0")
PACKET = b"the octets of a request"


class World:
    def __init__(self, server: socket.socket, nas: socket.socket) -> None:
        self.cache = DuplicateCache(10)
        self.dispatcher = Dispatcher(self.cache)
        self.endpoint = Endpoint(server)
        self.nas = nas
        digests = SecretDigests(b"x")
        known = Nas(
            nas_id=1,
            row=LAST_ROW,
            name="bng1",
            digests=digests,
            older=None,
            secret_id=1,
            dialect_at=0,
            message_authenticator=MessageAuthenticatorPolicy.AUTO,
            single=True,
            address="127.0.0.1",
            observed_from=0,
            signs_since=0,
        )
        entry = self.look_up()
        assert isinstance(entry, Entry)
        packet = Packet(PACKET, 1, 0, bytes(16), {}, None, -1)
        self.asked = Asked(Admitted(packet, known, digests, None, entry), nas.getsockname())

    def look_up(self) -> Entry | bytes | None:
        return self.cache.look_up(KEY, PACKET)

    def received(self) -> bytes | None:
        try:
            return self.nas.recv(100)
        except BlockingIOError:
            return None


@pytest.fixture
def world() -> Iterator[World]:
    with (
        bind("127.0.0.1:0", receive_buffer_octets=1 << 20) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nas,
    ):
        nas.bind(("127.0.0.1", 0))
        nas.setblocking(False)
        yield World(server, nas)


def test_an_answer_is_sent_and_remembered(world: World) -> None:
    world.dispatcher.carry_out(world.endpoint, world.asked, Answer(b"reply"))
    assert world.received() == b"reply"
    assert world.look_up() == b"reply"


def test_answers_of_a_batch_are_sent_and_remembered(world: World) -> None:
    world.dispatcher.answer_all(world.endpoint, [(world.asked, b"reply")])
    assert world.received() == b"reply"
    assert world.look_up() == b"reply"
    assert world.dispatcher.sent == 1


def test_a_deferred_answer_waits_for_its_time_and_a_retransmission_finds_it_pending(world: World) -> None:
    world.dispatcher.carry_out(world.endpoint, world.asked, Deferred(b"reject", 100.0))
    assert world.dispatcher.seconds_to_next(99.5, 10) == 0.5
    world.dispatcher.send_due(99.9)
    assert world.received() is None
    assert world.look_up() is None
    world.dispatcher.send_due(100.0)
    assert world.received() == b"reject"
    assert world.look_up() == b"reject"


def test_silence_sends_nothing_and_lets_a_retransmission_try_anew(world: World) -> None:
    world.dispatcher.carry_out(world.endpoint, world.asked, SILENCE)
    assert world.received() is None
    assert isinstance(world.look_up(), Entry)


def test_what_waits_is_bounded_and_beyond_it_is_shed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "DEFERRED_MAX", 1)
    world.dispatcher.carry_out(world.endpoint, world.asked, Deferred(b"one", 1.0))
    world.dispatcher.carry_out(world.endpoint, world.asked, Deferred(b"two", 1.0))
    assert world.dispatcher.shed == 1
    world.dispatcher.send_due(2.0)
    assert (world.received(), world.received()) == (b"one", None)
