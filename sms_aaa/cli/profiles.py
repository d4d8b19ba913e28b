"""What `sms-aaa load` plays: logins, accounting, whole sessions, and the storm after a NAS has rebooted, as scripts.

The storm is what a BNG that lost its power does to a server. The server believes all its sessions live; no Stop ever
comes; the first that is heard is an Accounting-On, and then every subscriber logs in at once, from a port that the NAS
numbered anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from os import urandom
from typing import TYPE_CHECKING

from sms_aaa.cli.simulator import Device, Report, Script, accounting, find_flaw, login, nas_report
from sms_aaa.radius.dictionary import CLASS
from sms_aaa.radius.packet import Code
from sms_aaa.radius.values import AcctStatusType, AcctTerminateCause

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from sms_aaa.cli.simulator import Outcome, Question
    from sms_aaa.radius.credentials import Method
    from sms_aaa.radius.digest import SecretDigests

NAS_IDENTIFIER = "sms-aaa-load"
INTERIM_SECONDS = 300
UP_SECONDS = 60
"""How long the sessions of a storm had been up when the NAS went down."""
OCTETS_PER_INTERIM = 1_000_000
_PORTS_APART = 10_000_000  # more than there are subscribers: the ports before and after a reboot have none in common


class Profile(StrEnum):
    LOGIN = "login"
    ACCOUNTING = "accounting"
    SESSION = "session"
    REBOOT_STORM = "reboot-storm"


SENDS = {
    Profile.LOGIN: "logins",
    Profile.ACCOUNTING: "sessions of Start, Interim-Update and Stop, without a login",
    Profile.SESSION: "sessions of a login, Start, Interim-Update and Stop",
    Profile.REBOOT_STORM: "sessions of a NAS that reboots: login and Start, Accounting-On, login and Start again",
}

_START = (AcctStatusType.START,)
_WHOLE = (AcctStatusType.START, AcctStatusType.INTERIM_UPDATE, AcctStatusType.STOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What is to be sent. `users`, `passwords` are formats of one number, 1 to `subscribers`, over and over.

    `flawed` hears of an Access-Accept that is not what it should be (MS-CHAPv2: no proof, wrong keys).
    """

    profile: Profile
    method: Method
    is_signed: bool
    users: str
    passwords: str
    subscribers: int
    count: int
    seconds: float
    flawed: Callable[[str], None]

    def scripts(self, digests: SecretDigests) -> Iterator[Script]:
        """`count` scripts, or as many as are begun within `seconds`. Of a storm: what comes after the Accounting-On."""
        renumbered = self.profile is Profile.REBOOT_STORM
        return self._within_time(lambda device: self._script(device, digests), renumbered=renumbered)

    def scripts_before(self, digests: SecretDigests) -> Iterator[Script]:
        """The sessions that a server believes live when the storm comes."""
        began = int(time.time()) - UP_SECONDS
        return self._within_time(lambda device: self._come_in(device, digests, began))

    def _within_time(self, make: Callable[[Device], Script], *, renumbered: bool = False) -> Iterator[Script]:
        until = time.monotonic() + self.seconds
        for number in islice(self._numbers(), self.count):
            if time.monotonic() >= until:
                return
            yield make(self._device(number, port=number + _PORTS_APART * renumbered))

    def _numbers(self) -> Iterator[int]:
        while True:
            yield from range(1, self.subscribers + 1)

    def _device(self, number: int, *, port: int) -> Device:
        return Device(
            username=filled(self.users, number),
            password=filled(self.passwords, number),
            station=f"02-00-{number.to_bytes(4, 'big').hex('-').upper()}",  # 02: administered locally, nobody's own
            port=port,
            nas_identifier=NAS_IDENTIFIER,
        )

    def _script(self, device: Device, digests: SecretDigests) -> Script:
        if self.profile is Profile.LOGIN:
            yield from self._login(device, digests)
        elif self.profile is Profile.ACCOUNTING:
            yield from _session(device, (), _WHOLE, began=int(time.time()) - 2 * INTERIM_SECONDS)
        elif self.profile is Profile.REBOOT_STORM:
            yield from self._come_in(device, digests, int(time.time()))
        elif (classes := (yield from self._login(device, digests))) is not None:
            yield from _session(device, classes, _WHOLE, began=int(time.time()) - 2 * INTERIM_SECONDS)

    def _come_in(self, device: Device, digests: SecretDigests, began: int) -> Script:
        if (classes := (yield from self._login(device, digests))) is not None:
            yield from _session(device, classes, _START, began=began)

    def _login(self, device: Device, digests: SecretDigests) -> Generator[Question, Outcome, tuple[bytes, ...] | None]:
        """The Class attributes of the Access-Accept; None when it was none."""
        asked = login(device, self.method, digests, is_signed=self.is_signed)
        reply = (yield asked.question).reply
        if reply is None or reply.code != Code.ACCESS_ACCEPT:
            return None
        flaw = find_flaw(asked, reply, digests)
        if flaw is not None:
            self.flawed(flaw)
        return tuple(reply.all(CLASS))


def accounting_on() -> Question:
    """The NAS is back, and has no session."""
    return nas_report(NAS_IDENTIFIER, AcctStatusType.ACCOUNTING_ON, int(time.time()))


def accounting_off() -> Question:
    """The NAS goes in good order: of what a storm left open, the server closes what began before this second."""
    return nas_report(NAS_IDENTIFIER, AcctStatusType.ACCOUNTING_OFF, int(time.time()))


def filled(text: str, number: int) -> str:
    """A format with its number; as it is without one. TypeError or ValueError when it is no such format."""
    return text % number if "%" in text else text


def _session(device: Device, classes: tuple[bytes, ...], statuses: tuple[AcctStatusType, ...], *, began: int) -> Script:
    """The records of one session, an interim's time apart, from `began` on."""
    session_id = urandom(8).hex()
    for interims, status in enumerate(statuses):
        yield accounting(
            device,
            Report(
                status=status,
                session_id=session_id,
                at=began + interims * INTERIM_SECONDS,
                seconds=interims * INTERIM_SECONDS,
                octets_in=interims * OCTETS_PER_INTERIM // 10,
                octets_out=interims * OCTETS_PER_INTERIM,
                terminate_cause=AcctTerminateCause.USER_REQUEST if status is AcctStatusType.STOP else None,
                classes=classes,
            ),
        )
