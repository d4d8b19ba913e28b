"""The evening that the demo's NAS lives through: logins, sessions and their accidents, and what must come of it.

Three hours are told in a second, by Event-Timestamps that end now. Every answer is checked when it comes; at the end
the database must say to the octet what the NAS reported, whatever was lost, repeated or overtaken on the way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from os import urandom
from typing import TYPE_CHECKING

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.output import octets, say
from sms_aaa.cli.simulator import (
    SOURCE_PORTS,
    Device,
    Outcome,
    Report,
    Simulator,
    accounting,
    find_flaw,
    login,
    nas_report,
    status_server,
)
from sms_aaa.radius import dictionary as names
from sms_aaa.radius.credentials import Method
from sms_aaa.radius.packet import Code, as_ipv4, as_text
from sms_aaa.radius.values import AcctStatusType, AcctTerminateCause
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import SessionRow

NAS_NAME = "demo-nas"
CAMERA, CAMERA_MAC = "camera-gate", "02-00-00-00-CA-FE"
STATIC_ADDRESS = "198.51.100.10"

HEAVY, SUSPENDED, METERED, SPARE, BUSINESS = 1, 7, 8, 9, 10
"""Who has a part: beyond the included volume, suspended, priced by direction, the reader's, with an address."""

MISTYPED = (4, 5)
LOST = (4, 5)
ONLINE = (2, 3, BUSINESS, 11, 12, 13)
NAS_WAIT_TRIES = 40
SETTLE_SECONDS_MAX = 30.0
SESSIONS_MAX = 10_000
_MINUTE = 60
_INTERIM_SECONDS = 5 * _MINUTE
_EVENING_SECONDS = 180 * _MINUTE
_GB = 10**9


def name_of(number: int) -> str:
    return f"customer{number:03d}"


def device_of(number: int) -> Device:
    return Device(
        username=name_of(number),
        password=f"password-{number:03d}",
        station=f"02-00-00-00-{number >> 8:02X}-{number & 255:02X}",
        port=number,
        nas_identifier=NAS_NAME,
        framed_ip=STATIC_ADDRESS if number == BUSINESS else f"100.64.{number >> 8}.{number & 255}",
    )


def expect(condition: bool, reason: str) -> None:
    """Ends the demo unless it is so."""
    if not condition:
        raise Failure(Exit.DIFFERENT, f"not as expected: {reason}", "see serve.log in the demo's folder")


_CAMERA = Device(username=CAMERA_MAC, station=CAMERA_MAC, port=1000, nas_identifier=NAS_NAME, framed_ip="100.64.3.232")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One session: from `begin` minutes into the evening so many interims of so many octets each; a Stop or none."""

    device: Device
    begin: int
    interims: int
    octets_in: int
    octets_out: int
    stops: bool = False

    @property
    def total_in(self) -> int:
        return self.interims * self.octets_in

    @property
    def total_out(self) -> int:
        return self.interims * self.octets_out


class Evening:
    """One NAS, one evening. `connection` (autocommit) is for looking at what came of it."""

    def __init__(self, nas: Simulator, connection: Connection) -> None:
        self._nas = nas
        self._connection = connection
        self._run = urandom(3).hex()  # so that the sessions of two demos have two names
        self._began = int(time.time()) - _EVENING_SECONDS
        self._classes: dict[str, tuple[bytes, ...]] = {}
        self._parts: dict[str, _Part] = {}

    def boot(self) -> None:
        """What an earlier demo left online is closed, as by every NAS that boots."""
        self._reboot(int(time.time()), "boots (Accounting-On)")
        self._wait(lambda: f"{len(rows)} sessions are still open" if (rows := self._sessions(State.OPEN)) else None)

    def log_in(self) -> None:
        """Everybody who may come in does; then come those who may not, all at once, for a Reject takes a second."""
        self._log_in(device_of(HEAVY), Method.PAP, "the answer is authentic")
        self._log_in(device_of(2), Method.CHAP, "the password did not cross the network")
        self._log_in(device_of(3), Method.MSCHAP2, "the server proved that it knows it, too; MPPE keys of 128 bits")
        self._log_in(_CAMERA, Method.MAC, "no password: the NAS vouches for the hardware address")
        static = self._log_in(device_of(BUSINESS), Method.PAP, f"with its own address, {STATIC_ADDRESS}")
        assert static.reply is not None
        address = static.reply.attributes.get(names.FRAMED_IP_ADDRESS, b"")
        expect(as_ipv4(address) == STATIC_ADDRESS, f"{name_of(BUSINESS)} did not get its address")
        self._be_refused()
        for number in (*LOST, METERED, *ONLINE):
            if name_of(number) not in self._classes:
                self._log_in(device_of(number), Method.PAP)

    def _log_in(self, device: Device, method: Method, words: str = "") -> Outcome:
        asked = login(device, method, self._nas.digests)
        outcome = self._nas.ask(asked.question)
        reply = outcome.reply
        expect(reply is not None, f"no answer to the login of {device.username}")
        assert reply is not None
        expect(reply.code == Code.ACCESS_ACCEPT, f"{device.username} was not let in")
        flaw = find_flaw(asked, reply, self._nas.digests)
        expect(flaw is None, f"{device.username}: {flaw}")
        self._classes[device.username] = tuple(reply.all(names.CLASS))
        if words:
            say(_line(method, device.username, f"accepted in {outcome.seconds * 1000:.1f} ms", words))
        return outcome

    def _be_refused(self) -> None:
        other = replace(device_of(HEAVY), station="02-00-00-00-FF-01", port=2001)
        stranger = replace(device_of(0), username="nobody")
        mistyped = [replace(device_of(number), password=device_of(number).password.upper()) for number in MISTYPED]
        trials = [
            (mistyped[0], Method.PAP, "a wrong password"),
            (mistyped[1], Method.MSCHAP2, "a wrong password"),
            (stranger, Method.PAP, "an unknown user, who learns no more than that"),
            (device_of(SUSPENDED), Method.PAP, "suspended"),
            (other, Method.PAP, "a second device on a plan of one session"),
        ]
        asked = [login(device, method, self._nas.digests) for device, method, _ in trials]
        outcomes = self._nas.ask_all([one.question for one in asked])
        for (device, method, why), outcome in zip(trials, outcomes, strict=True):
            expect(
                outcome.reply is not None and outcome.reply.code == Code.ACCESS_REJECT,
                f"{device.username} with {why} was not rejected",
            )
            assert outcome.reply is not None
            words = as_text(outcome.reply.attributes.get(names.REPLY_MESSAGE, b""))
            say(_line(method, device.username, "rejected", f'{why}: "{words}"'))
            challenged = names.MS_CHAP_ERROR in outcome.reply.attributes
            expect(challenged == (method is Method.MSCHAP2), f"{device.username}: MS-CHAP-Error is out of place")

    def pass_by(self) -> None:
        """The sessions, in the order of the evening."""
        self._be_heavy()
        self._play(
            _Part(device=device_of(METERED), begin=30, interims=6, octets_in=_GB // 4, octets_out=_GB, stops=True)
        )
        for number in LOST:
            self._play(_Part(device=device_of(number), begin=60, interims=8, octets_in=10**7, octets_out=_GB // 5))
        lost = " and ".join(map(name_of, LOST))
        say(f"  {name_of(METERED)}  Start, Interim-Updates, Stop; upload and download have prices of their own")
        say(f"  {lost}  Start, Interim-Updates, and then nothing: their Stops are lost")
        self._reboot(self._began + 120 * _MINUTE, "reboots (Accounting-On), which closes what it lost")
        for number in ONLINE:
            self._play(_Part(device=device_of(number), begin=150, interims=5, octets_in=10**7, octets_out=_GB // 10))
        self._play(_Part(device=_CAMERA, begin=150, interims=5, octets_in=10**8, octets_out=10**6))
        say(f"  {len(ONLINE)} subscribers and {CAMERA} come online after it, and stay")

    def _be_heavy(self) -> None:
        """Two hours of films at 80 Mbit/s, and all that UDP can do to their records."""
        part = _Part(device=device_of(HEAVY), begin=0, interims=24, octets_in=_GB // 8, octets_out=3 * _GB, stops=True)
        reports = self._enter(part)
        *until_late, overtaken, stop = reports
        for report in until_late:
            self._send(part.device, report)
        stopped = self._send(part.device, stop)
        used = f"{octets(part.total_out).text} down, {octets(part.total_in).text} up"
        say(f"  {name_of(HEAVY)}  Start, {len(until_late) - 1} Interim-Updates, Stop: {used} (Gigawords count)")
        again = self._nas.repeat(stopped)
        assert stopped.reply is not None
        expect(again is not None and again.data == stopped.reply.data, "a duplicate was not answered as the first was")
        say(f"  {name_of(HEAVY)}  the Stop again, as after a lost answer: the same answer again, from the cache")
        self._send(part.device, replace(stop, delay_seconds=5))
        say(f"  {name_of(HEAVY)}  the Stop with a new Identifier and Acct-Delay-Time: recorded, counted once")
        self._send(part.device, overtaken)
        say(f"  {name_of(HEAVY)}  an Interim-Update that the Stop has overtaken: recorded, counted once")

    def _play(self, part: _Part) -> None:
        for report in self._enter(part):
            self._send(part.device, report)

    def _enter(self, part: _Part) -> list[Report]:
        """What the NAS reports of a session; from now on it is expected to be found."""
        session_id = f"{self._run}-{part.device.username}"
        self._parts[session_id] = part
        reports = []
        for interims in range(part.interims + 1):
            last = part.stops and interims == part.interims
            status = (
                AcctStatusType.STOP if last else AcctStatusType.INTERIM_UPDATE if interims else AcctStatusType.START
            )
            reports.append(
                Report(
                    status=AcctStatusType.STOP if last else status,
                    session_id=session_id,
                    at=self._began + part.begin * _MINUTE + interims * _INTERIM_SECONDS,
                    seconds=interims * _INTERIM_SECONDS,
                    octets_in=interims * part.octets_in,
                    octets_out=interims * part.octets_out,
                    terminate_cause=AcctTerminateCause.USER_REQUEST if last else None,
                    classes=self._classes[part.device.username],
                )
            )
        return reports

    def _send(self, device: Device, report: Report) -> Outcome:
        outcome = self._nas.ask(accounting(device, report))
        expect(outcome.reply is not None, f"no answer to a {report.status.label} of {device.username}")
        return outcome

    def _reboot(self, at: int, words: str) -> None:
        outcome = self._nas.ask(nas_report(NAS_NAME, AcctStatusType.ACCOUNTING_ON, at))
        expect(outcome.reply is not None, "no answer to an Accounting-On")
        say(f"  {NAS_NAME:<11}  {words}")

    def wait_until_settled(self) -> None:
        """Until the database has all of it, rated; Failure says what is not as the NAS reported."""
        began = time.monotonic()
        self._wait(self._find_difference)
        say(f"  All of it is settled and rated, {time.monotonic() - began:.1f} s after the last packet.")

    def _find_difference(self) -> str | None:
        from sms_aaa.db.rating_queue import queue_length

        found = {row.acct_session_id: row for row in self._sessions(State.OPEN, State.CLOSED, State.LAPSED)}
        for session_id, part in self._parts.items():
            row = found.get(session_id)
            if row is None:
                return f"there is no session {session_id}"
            if (row.octets_in, row.octets_out) != (part.total_in, part.total_out):
                return f"session {session_id} has {row.octets_in} + {row.octets_out} octets"
            lost = part.device.username in map(name_of, LOST)
            state = State.CLOSED if part.stops else State.LAPSED if lost else State.OPEN
            if (row.state, row.estimated) != (int(state), lost):
                return f"session {session_id} is {State(row.state).name.lower()}"
        waiting, _ = queue_length(self._connection)
        return f"{waiting} deltas wait for the rater" if waiting else None

    def _sessions(self, *states: State) -> list[SessionRow]:
        from sms_aaa.db.nas import find_nas
        from sms_aaa.db.session_lists import SessionFilter, list_sessions

        nas = find_nas(self._connection, NAS_NAME)
        assert nas is not None
        return list_sessions(self._connection, SessionFilter(states=states, nas_id=nas.id), limit=SESSIONS_MAX)

    def _wait(self, find_difference: Callable[[], str | None]) -> None:
        until = time.monotonic() + SETTLE_SECONDS_MAX
        while (difference := find_difference()) is not None:
            expect(time.monotonic() < until, f"after {SETTLE_SECONDS_MAX:.0f} s {difference}")
            time.sleep(0.05)


def wait_for_nas(nas: Simulator) -> None:
    """Status-Server until every worker answers: then the node knows the NAS, and all that was created before it."""
    began = time.monotonic()
    outcomes = nas.ask_all([status_server() for _ in range(2 * SOURCE_PORTS)])
    expect(all(outcome.reply is not None for outcome in outcomes), "the server does not know the NAS yet")
    seconds = time.monotonic() - began
    say(f"  Status-Server answered after {seconds:.1f} s: until then the node knows no such NAS and keeps silent")


def try_wrong_secret(nas: Simulator) -> None:
    """`nas` has another secret than the server knows."""
    outcome = nas.ask(login(device_of(HEAVY), Method.PAP, nas.digests).question)
    expect(outcome.reply is None, "a request under a wrong secret was answered")
    say(_line(Method.PAP, name_of(HEAVY), "silence", "the NAS has a wrong shared secret: counted, not answered"))


_METHODS = {Method.PAP: "PAP", Method.CHAP: "CHAP", Method.MSCHAP2: "MS-CHAPv2", Method.MAC: "MAC"}


def _line(method: Method, username: str, verdict: str, words: str) -> str:
    return f"  {_METHODS[method]:<9}  {username:<17}  {verdict:<18}  {words}"
