"""Accounting packets of a usage file -> usage and what was odd, by the daemon's own rules of sessions.

The same steps as when a journal is settled (flows/settling.py): find the life, step its machine; a late reading with
all that its life was counted with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sms_aaa.rules.evaluation_result import Odd
from sms_aaa.rules.instants import instant_of, instant_us
from sms_aaa.rules.late import is_late, known_of, step_late
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.session import Event, State, close, find_life, step
from sms_aaa.rules.usage_lines import Used

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.rules.late import Known
    from sms_aaa.rules.session import Delta, Life, Reading, Step
    from sms_aaa.rules.usage_lines import Packet


@dataclass(slots=True)
class _Session:
    """A life, with all that it was counted with."""

    life: Life
    deltas: list[Delta] = field(default_factory=list)
    late: list[Known] = field(default_factory=list)


class Sessions:
    """The sessions that packets told of. `rate_kbps`: the faster direction of the service; 0: not known."""

    def __init__(self, rate_kbps: int) -> None:
        self._rate_kbps = rate_kbps
        self._lives: dict[tuple[str, str], list[_Session]] = {}

    def hear(self, packet: Packet) -> Iterator[Used | Odd]:
        """What a packet adds."""
        if packet.reading is None:
            self._end_all(packet)
            return
        name = f"{packet.nas}/{packet.session}" if packet.nas else packet.session
        lives = self._lives.setdefault((packet.nas, packet.session), [])
        life = find_life([each.life for each in lives], packet.reading)
        session = next((each for each in lives if each.life is life), None)
        number = 1 + max((each.life.life for each in lives), default=0)
        result = self._count(session, number, packet.reading)
        if session is None:
            session = _Session(result.life)
            lives.append(session)
        session.life = result.life
        if session.life.life > 1:
            name = f"{name}#{session.life.life}"
        if result.delta is not None:
            session.deltas.append(result.delta)
            yield _used(packet, name, session.life, result.delta)
        if result.anomaly is not None:
            yield Odd(packet.line, name, result.anomaly)

    def _count(self, session: _Session | None, number: int, reading: Reading) -> Step:
        if session is None:
            return step(None, number, reading, rate_kbps=self._rate_kbps)
        if is_late(session.life, reading):
            known = known_of(session.life, session.deltas, session.late)
            if known:
                result, late = step_late(session.life, reading, known, rate_kbps=self._rate_kbps)
                if late is not None:
                    session.late.append(late)
                return result
        return step(session.life, number, reading, rate_kbps=self._rate_kbps)

    def _end_all(self, packet: Packet) -> None:
        """Accounting-On or -Off: what ran at the NAS and began before has ended."""
        at = instant_of(packet.at_us)
        for (nas, _), lives in self._lives.items():
            if nas == packet.nas:
                for each in lives:
                    if each.life.state is State.OPEN and each.life.started_at < at:
                        each.life = close(each.life, Event.NAS_REBOOT)


def _used(packet: Packet, name: str, life: Life, delta: Delta) -> Used:
    return Used(
        packet.line,
        name,
        packet.member,
        packet.key,
        instant_us(delta.from_at),
        instant_us(delta.to_at),
        instant_us(life.started_at),
        None,
        Amounts(delta.octets_in, delta.octets_out, delta.seconds, events=1 if delta.seq == 1 else 0),
        packet.traits,
    )
