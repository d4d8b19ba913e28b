"""What a box says -> the octets of its Accounting-Request, as its habits have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faults import Fault
from world import WORD, Clock

from sms_aaa.flows.access import encode_class
from sms_aaa.radius import dictionary as key
from sms_aaa.radius.packet import attribute, integer, ipv4

if TYPE_CHECKING:
    from network import Delivery
    from world import Nas, Saying, Session, World

_STATUS = {"start": 1, "stop": 2, "interim": 3, "on": 7, "off": 8}
_UNKNOWN_STATUS = 6
_TOO_MANY_GIGAWORDS = 0x7FFFFFFF


def username_of(world: World, session: Session) -> str:
    who = "stranger" if session.subscriber is None else f"user{session.subscriber}"
    return f"w{world.seed}-{who}"


def counters_of(nas: Nas, saying: Saying) -> tuple[int, int]:
    """(in, out) as they stand on the wire."""
    if nas.gigawords:
        return saying.run_in, saying.run_out
    return saying.run_in % WORD, saying.run_out % WORD


def attributes_of(world: World, delivery: Delivery, *, base: int, services: list[int]) -> bytes:
    """`base`: the world's beginning in epoch seconds. `services`: ids of the subscribers' services."""
    nas, saying = delivery.nas, delivery.saying
    status = _UNKNOWN_STATUS if saying.spoilt is Fault.UNKNOWN_STATUS else _STATUS[saying.status]
    parts = [
        attribute(key.ACCT_STATUS_TYPE, integer(status)),
        attribute(key.NAS_IDENTIFIER, nas.name.encode()),
        attribute(key.ACCT_DELAY_TIME, integer(delivery.delay)),
    ]
    if nas.stamps:
        parts.append(attribute(key.EVENT_TIMESTAMP, integer(stamp_of(nas, saying, base))))
    if saying.session >= 0:
        parts += _of_session(world, nas, saying, services)
    return b"".join(parts)


def stamp_of(nas: Nas, saying: Saying, base: int) -> int:
    return saying.at + 600 if nas.clock is Clock.EPOCH else base + nas.clock_at(saying.at)


def _of_session(world: World, nas: Nas, saying: Saying, services: list[int]) -> list[bytes]:
    session = world.sessions[saying.session]
    number = session.number
    parts = [
        attribute(key.USER_NAME, username_of(world, session).encode()),
        attribute(key.CALLING_STATION_ID, b"02-00-00-00-00-%02X" % number),
        # The address moves with the login.
        attribute(key.FRAMED_IP_ADDRESS, ipv4(0x0A000000 + (number << 8) + saying.login)),
    ]
    if saying.spoilt is not Fault.NO_SESSION_ID:
        parts.append(attribute(key.ACCT_SESSION_ID, session.name.encode()))
    if session.bundle is not None:
        parts.append(attribute(key.ACCT_MULTI_SESSION_ID, b"bundle-%d" % session.bundle))
    if nas.echoes_class and session.subscriber is not None:
        login = session.number if session.bundle is None else session.bundle
        token = (world.seed % (1 << 32)).to_bytes(4, "big") + login.to_bytes(3, "big") + bytes([saying.login])
        parts.append(attribute(key.CLASS, encode_class(services[session.subscriber], token)))
    if saying.status == "stop":
        parts.append(attribute(key.ACCT_TERMINATE_CAUSE, integer(1)))
    if saying.status != "start":
        parts += _counted(nas, saying)
    return parts


def _counted(nas: Nas, saying: Saying) -> list[bytes]:
    octets_in, octets_out = counters_of(nas, saying)
    gigawords_in = _TOO_MANY_GIGAWORDS if saying.spoilt is Fault.IMPLAUSIBLE else octets_in // WORD
    parts = [
        attribute(key.ACCT_INPUT_OCTETS, integer(octets_in % WORD)),
        attribute(key.ACCT_OUTPUT_OCTETS, integer(octets_out % WORD)),
    ]
    if nas.session_time:
        parts.append(attribute(key.ACCT_SESSION_TIME, integer(saying.seconds)))
    if nas.gigawords or saying.spoilt is Fault.IMPLAUSIBLE:
        parts.append(attribute(key.ACCT_INPUT_GIGAWORDS, integer(gigawords_in)))
        parts.append(attribute(key.ACCT_OUTPUT_GIGAWORDS, integer(octets_out // WORD)))
    return parts
