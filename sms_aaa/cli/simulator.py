"""A NAS, simulated, as a library: what it says (requests), how it asks (UDP, retransmission), what it believes.

`load`, `demo` and the tests play it. What is asked is pure: a Question has everything but its Identifier, which belongs
to the source port that sends it. What a subscriber does is a script: a generator that yields questions and is sent the
answers, so that a session reads from top to bottom although a thousand of them run at once over a few sockets.

A reply counts when it proves the shared secret; anything else that arrives is not noticed, as by a NAS. The sockets
block and one thread serves them: this asks 10,000 times a second, which is enough to see what a change did.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from os import urandom
from typing import TYPE_CHECKING, Self

from sms_aaa.radius import dictionary as names
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.mschap import generate_nt_response, md4, nt_hash, server_keys
from sms_aaa.radius.packet import Code, Packet, attribute, integer, parse
from sms_aaa.radius.request import (
    chap_attributes,
    mschap2_attributes,
    mschap2_success_is_authentic,
    pap_attributes,
)
from sms_aaa.radius.values import AcctStatusType, NasPortType, ServiceType

if TYPE_CHECKING:
    from types import TracebackType

    from sms_aaa.radius.values import AcctTerminateCause
    from sms_aaa.rules.secret import Secret

TIMEOUT_SECONDS = 1.0
TRIES_MAX = 3
SOURCE_PORTS = 16
SOURCE_PORTS_MAX = 256
IDENTIFIERS = 256  # RFC 2865 section 3: one octet
DATAGRAM_OCTETS_MAX = 4096
_WORD = 1 << 32


@dataclass(frozen=True, slots=True)
class Question:
    """A request without its Identifier. `authenticator`: 16 random octets, unused where it is a digest (accounting)."""

    code: Code
    attributes: bytes
    authenticator: bytes
    is_signed: bool

    def encode(self, identifier: int, digests: SecretDigests) -> bytes:
        return digests.request(
            self.code, identifier, self.authenticator, self.attributes, message_authenticator=self.is_signed
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question. `reply` None: silence, after `tries` of them.

    `seconds` from the first try to the end; `datagram` and `source` say what was sent by which of the source ports.
    """

    question: Question
    reply: Packet | None
    seconds: float
    tries: int
    datagram: bytes
    source: int


Script = Generator[Question, Outcome, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A subscriber's device at a port of the NAS."""

    username: str
    password: str = ""
    station: str  # Calling-Station-Id: its hardware address
    port: int
    nas_identifier: str
    framed_ip: str | None = None

    def attributes(self) -> bytes:
        """What every request about it says."""
        return b"".join(
            (
                attribute(names.USER_NAME, self.username.encode()),
                attribute(names.NAS_IDENTIFIER, self.nas_identifier.encode()),
                attribute(names.NAS_PORT, integer(self.port)),
                attribute(names.NAS_PORT_TYPE, integer(NasPortType.ETHERNET)),
                attribute(names.CALLING_STATION_ID, self.station.encode()),
            )
        )


@dataclass(frozen=True, slots=True)
class Login:
    """A device's Access-Request, with what is needed to check that the server knows the password too."""

    device: Device
    method: Method
    question: Question
    challenge: bytes
    peer_challenge: bytes


def login(device: Device, method: Method, digests: SecretDigests, *, is_signed: bool = True) -> Login:
    """An Access-Request, with a Message-Authenticator unless told otherwise. `method`: PAP, CHAP, MSCHAP2 or MAC."""
    authenticator, challenge, peer_challenge = urandom(16), urandom(16), urandom(16)
    password = device.password.encode()
    if method is Method.PAP:
        proof = pap_attributes(password, authenticator, digests)
    elif method is Method.CHAP:
        proof = chap_attributes(challenge[0], password, challenge)
    elif method is Method.MSCHAP2:
        proof = mschap2_attributes(
            challenge[0], device.username.encode(), password, challenge=challenge, peer_challenge=peer_challenge
        )
    else:
        assert method is Method.MAC, "the simulator does not speak this method"
        proof = attribute(names.SERVICE_TYPE, integer(ServiceType.CALL_CHECK))
    question = Question(Code.ACCESS_REQUEST, device.attributes() + proof, authenticator, is_signed=is_signed)
    return Login(device, method, question, challenge, peer_challenge)


def status_server() -> Question:
    """RFC 5997: are you there? To the access port."""
    return Question(Code.STATUS_SERVER, b"", urandom(16), is_signed=True)


def find_flaw(asked: Login, accept: Packet, digests: SecretDigests) -> str | None:
    """What is wrong with an Access-Accept beyond its authenticators, None if nothing: MS-CHAPv2 proves both sides."""
    if asked.method is not Method.MSCHAP2:
        return None
    username, password = asked.device.username.encode(), asked.device.password.encode()
    success = accept.attributes.get(names.MS_CHAP2_SUCCESS, b"")
    if not mschap2_success_is_authentic(
        success, username, password, challenge=asked.challenge, peer_challenge=asked.peer_challenge
    ):
        return "MS-CHAP2-Success does not prove that the server knows the password"
    password_hash = nt_hash(password)
    response = generate_nt_response(
        authenticator_challenge=asked.challenge,
        peer_challenge=asked.peer_challenge,
        user_name=username,
        password_hash=password_hash,
    )
    for key, expected in zip(
        (names.MS_MPPE_SEND_KEY, names.MS_MPPE_RECV_KEY), server_keys(md4(password_hash), response), strict=True
    ):
        sealed = accept.attributes.get(key, b"")
        if digests.decrypt_key(sealed, asked.question.authenticator) != expected:
            return "the keys of MPPE are not those of this login"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a NAS reports of a session. `at`: epoch seconds of its clock, None for a NAS without one."""

    status: AcctStatusType
    session_id: str
    at: int | None = None
    seconds: int = 0
    octets_in: int = 0
    octets_out: int = 0
    delay_seconds: int = 0
    terminate_cause: AcctTerminateCause | None = None
    classes: tuple[bytes, ...] = ()


def accounting(device: Device, report: Report) -> Question:
    """An Accounting-Request about a session."""
    parts = [
        device.attributes(),
        attribute(names.ACCT_STATUS_TYPE, integer(report.status)),
        attribute(names.ACCT_SESSION_ID, report.session_id.encode()),
        *(attribute(names.CLASS, value) for value in report.classes),
    ]
    if report.status is not AcctStatusType.START:
        parts.append(attribute(names.ACCT_SESSION_TIME, integer(report.seconds)))
        parts.extend(_counter(names.ACCT_INPUT_OCTETS, names.ACCT_INPUT_GIGAWORDS, report.octets_in))
        parts.extend(_counter(names.ACCT_OUTPUT_OCTETS, names.ACCT_OUTPUT_GIGAWORDS, report.octets_out))
    if device.framed_ip is not None:
        parts.append(attribute(names.FRAMED_IP_ADDRESS, IPv4Address(device.framed_ip).packed))
    if report.at is not None:
        parts.append(attribute(names.EVENT_TIMESTAMP, integer(report.at)))
    if report.delay_seconds:
        parts.append(attribute(names.ACCT_DELAY_TIME, integer(report.delay_seconds)))
    if report.terminate_cause is not None:
        parts.append(attribute(names.ACCT_TERMINATE_CAUSE, integer(report.terminate_cause)))
    return Question(Code.ACCOUNTING_REQUEST, b"".join(parts), b"", is_signed=False)


def nas_report(nas_identifier: str, status: AcctStatusType, at: int) -> Question:
    """Accounting-On or -Off: the NAS speaks of itself."""
    parts = (
        attribute(names.NAS_IDENTIFIER, nas_identifier.encode()),
        attribute(names.ACCT_STATUS_TYPE, integer(status)),
        attribute(names.EVENT_TIMESTAMP, integer(at)),
    )
    return Question(Code.ACCOUNTING_REQUEST, b"".join(parts), b"", is_signed=False)


def _counter(octets: int, gigawords: int, value: int) -> Iterator[bytes]:
    """RFC 2869 section 5.1: the wraps of the 32-bit counter, once there are any."""
    yield attribute(octets, integer(value % _WORD))
    if value >= _WORD:
        yield attribute(gigawords, integer(value // _WORD))


def _nobody(_: Outcome) -> None:
    """Hears of outcomes and keeps them to itself."""


@dataclass(slots=True)
class _Flight:
    """A question that was sent and waits for its reply."""

    script: Script
    question: Question
    source: _SourcePort
    identifier: int
    datagram: bytes
    first_sent: float
    tries: int = 1
    is_over: bool = False

    def end(self, reply: Packet | None, now: float) -> Outcome:
        """Gives the Identifier back."""
        self.is_over = True
        del self.source.waiting[self.identifier]
        self.source.free.append(self.identifier)
        return Outcome(self.question, reply, now - self.first_sent, self.tries, self.datagram, self.source.index)


class _SourcePort:
    """A socket to one port of the server: 256 Identifiers, each for one question at a time."""

    def __init__(self, index: int, server: tuple[str, int]) -> None:
        self.index = index
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect(server)
        # The one that was used longest ago is used next: the server may hold an old answer for a while.
        self.free = deque(range(IDENTIFIERS))
        self.waiting: dict[int, _Flight] = {}

    def send(self, datagram: bytes) -> None:
        with suppress(OSError):  # refused, no route, buffer full: lost, as any datagram may be
            self.socket.send(datagram)

    def receive(self) -> bytes | None:
        """The next datagram that is there."""
        while True:
            try:
                return self.socket.recv(DATAGRAM_OCTETS_MAX, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError:
                continue  # the ICMP answer to an earlier datagram: nobody listens there


class Simulator:
    """The sockets of a NAS. A context manager; not for use by several threads."""

    def __init__(
        self,
        server: str,
        secret: Secret,
        *,
        access_port: int,
        accounting_port: int,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tries_max: int = TRIES_MAX,
        source_ports: int = SOURCE_PORTS,
    ) -> None:
        """`server` is an IP address. OSError when there is no way to it."""
        self.digests = SecretDigests(secret.reveal())
        self._timeout_seconds = timeout_seconds
        self._tries_max = tries_max
        access = [_SourcePort(index, (server, access_port)) for index in range(source_ports)]
        records = [_SourcePort(source_ports + index, (server, accounting_port)) for index in range(source_ports)]
        self._sources = access + records
        self._access, self._records = deque(access), deque(records)
        self._poll = select.epoll()
        self._by_descriptor = {source.socket.fileno(): source for source in self._sources}
        for descriptor in self._by_descriptor:
            self._poll.register(descriptor, select.EPOLLIN)
        self._deadlines: deque[tuple[float, _Flight]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._poll.close()
        for source in self._sources:
            source.socket.close()

    def ask(self, question: Question) -> Outcome:
        [outcome] = self.ask_all([question])
        return outcome

    def ask_all(self, questions: Iterable[Question]) -> list[Outcome]:
        """All at once; the outcomes in the order of the questions."""
        asked = list(questions)
        found: dict[int, Outcome] = {}

        def script(number: int) -> Script:
            found[number] = yield asked[number]

        self.run((script(number) for number in range(len(asked))), window=max(len(asked), 1))
        return [found[number] for number in range(len(asked))]

    def repeat(self, outcome: Outcome) -> Packet | None:
        """The reply to the very same datagram from the same source port: what a lost reply makes a NAS send."""
        source = self._sources[outcome.source]
        source.send(outcome.datagram)
        until = time.monotonic() + self._timeout_seconds
        while (left := until - time.monotonic()) > 0 and select.select([source.socket], [], [], left)[0]:
            datagram = source.receive()
            if datagram is not None and (reply := self._believe(datagram, outcome.datagram)) is not None:
                return reply
        return None

    def run(
        self, scripts: Iterable[Script], *, window: int, rate: float = 0.0, note: Callable[[Outcome], None] = _nobody
    ) -> None:
        """Plays scripts to their ends: up to `window` at a time, up to `rate` questions a second (0: as they come).

        `note` hears of every outcome.
        """
        waiting = iter(scripts)
        ready: deque[tuple[Script, Question]] = deque()
        active, asked, began = 0, 0, time.monotonic()
        while True:
            while active < window and (opened := _open_next(waiting)) is not None:
                ready.append(opened)
                active += 1
            if not active:
                return
            while ready and (not rate or asked <= rate * (time.monotonic() - began)) and self._ask(*ready[0]):
                ready.popleft()
                asked += 1
            due = began + asked / rate if rate and ready else float("inf")
            for flight, outcome in self._wait(due):
                note(outcome)
                try:
                    ready.append((flight.script, flight.script.send(outcome)))
                except StopIteration:
                    active -= 1

    def _ask(self, script: Script, question: Question) -> bool:
        """Sends it by the next source port; False while all Identifiers of that one are in use."""
        sources = self._records if question.code is Code.ACCOUNTING_REQUEST else self._access
        source = sources[0]
        if not source.free:
            return False
        sources.rotate(-1)
        identifier = source.free.popleft()
        datagram = question.encode(identifier, self.digests)
        now = time.monotonic()
        flight = source.waiting[identifier] = _Flight(script, question, source, identifier, datagram, now)
        self._deadlines.append((now + self._timeout_seconds, flight))
        source.send(datagram)
        return True

    def _wait(self, due: float) -> list[tuple[_Flight, Outcome]]:
        """What ended by the next deadline, or by `due`: replies that came, and questions that got none."""
        while self._deadlines and self._deadlines[0][1].is_over:
            self._deadlines.popleft()
        until = min(due, self._deadlines[0][0] if self._deadlines else due)
        ended: list[tuple[_Flight, Outcome]] = []
        for descriptor, _ in self._poll.poll(max(until - time.monotonic(), 0.0)):
            ended.extend(self._receive(self._by_descriptor[descriptor]))
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, flight = self._deadlines.popleft()
            if not flight.is_over and (given_up := self._try_again(flight, now)) is not None:
                ended.append((flight, given_up))
        return ended

    def _receive(self, source: _SourcePort) -> Iterator[tuple[_Flight, Outcome]]:
        while (datagram := source.receive()) is not None:
            flight = source.waiting.get(datagram[1]) if len(datagram) > 1 else None
            if flight is not None and (reply := self._believe(datagram, flight.datagram)) is not None:
                yield flight, flight.end(reply, time.monotonic())

    def _try_again(self, flight: _Flight, now: float) -> Outcome | None:
        """The same datagram again, so that the server knows it for a repetition; the outcome when it was the last."""
        if flight.tries >= self._tries_max:
            return flight.end(None, now)
        flight.tries += 1
        self._deadlines.append((now + self._timeout_seconds, flight))
        flight.source.send(flight.datagram)
        return None

    def _believe(self, datagram: bytes, request: bytes) -> Packet | None:
        reply = parse(datagram)
        if not isinstance(reply, Packet) or reply.identifier != request[1]:
            return None
        # The Request Authenticator is taken from where it stands in the request, whether random or a digest.
        return reply if self.digests.reply_is_authentic(reply, request[4:20]) else None


def _open_next(scripts: Iterator[Script]) -> tuple[Script, Question] | None:
    """The next script that has a question; None when there is none."""
    for script in scripts:
        for question in script:
            return script, question
    return None
