"""The world through the rules alone: real packets, heard and stepped in memory as flows/settling.py does it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

from auditor import Counted, Outcome
from faults import Fault
from network import SECOND
from speech import attributes_of
from world import RATE_KBPS, SPAN_SECONDS

from sms_aaa.flows.hearing import Heard, Rebooted, hear
from sms_aaa.node.records import AccountingRecord
from sms_aaa.rules.late import is_late, known_of, step_late
from sms_aaa.rules.session import AnomalyKind, Event, Place, State, close, find_life, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from network import Delivery
    from world import World

    from sms_aaa.db.sessions import SessionKey
    from sms_aaa.rules.late import Known
    from sms_aaa.rules.session import Delta, Life, Reading, Step

BASE = 1_762_776_000
"""The world's beginning: 2025-11-10 12:00 UTC."""

_SERVICES = [101, 102, 103]
_SILENCE = timedelta(seconds=900)
_T0 = datetime.fromtimestamp(BASE, UTC)


def settle(world: World, deliveries: Sequence[Delivery]) -> Outcome:
    """What the rules make of these deliveries, in their order."""
    rules = _Rules(world)
    sweeps = iter(sorted(Random(f"sweeps {world.seed}").sample(range(SPAN_SECONDS * 2), 3)))
    sweep_at = next(sweeps)
    for number, delivery in enumerate(deliveries):
        while sweep_at is not None and delivery.settled > sweep_at * SECOND:
            rules.sweep(_T0 + timedelta(seconds=sweep_at))
            sweep_at = next(sweeps, None)
        rules.take(number, delivery)
    rules.sweep(_T0 + timedelta(days=30))
    return rules.outcome()


def _packet(attributes: bytes, identifier: int) -> bytes:
    return bytes([4, identifier]) + (20 + len(attributes)).to_bytes(2, "big") + bytes(16) + attributes


class _Rules:
    def __init__(self, world: World) -> None:
        self.world = world
        self.lives: dict[SessionKey, list[Life]] = {}
        self.counted: dict[tuple[SessionKey, int], Counted] = {}
        self.deltas: dict[tuple[SessionKey, int], list[Delta]] = {}
        self.late: dict[tuple[SessionKey, int], list[Known]] = {}
        self.quarantined: dict[str, int] = {}
        self.lapsed = 0

    def take(self, number: int, delivery: Delivery) -> None:
        packet = _packet(
            attributes_of(self.world, delivery, base=BASE, services=_SERVICES), delivery.identifier
        )  # the worker has proved it: nothing here looks at the authenticator
        received_ns = BASE * 1_000_000_000 + delivery.received * 1000
        record = AccountingRecord(received_ns, delivery.nas.place + 1, "127.0.0.1", 4000, packet)
        said = hear(record, Place(delivery.node, 1, 64 + number), single=not delivery.nas.by_prefix)
        if isinstance(said, Heard):
            self._step(said, delivery)
        elif isinstance(said, Rebooted):
            self._reboot(said)
        elif said.quarantine:
            self.quarantined[said.reason] = self.quarantined.get(said.reason, 0) + 1

    def _step(self, said: Heard, delivery: Delivery) -> None:
        lives = self.lives.setdefault(said.key, [])
        found = find_life(lives, said.reading)
        result = self._count(said.key, found, len(lives) + 1, said.reading)
        if found is None:
            lives.append(result.life)
        else:
            lives[lives.index(found)] = result.life
        counted = self.counted.setdefault((said.key, result.life.life), Counted(said.key, result.life.life))
        counted.sessions.add(delivery.saying.session)
        if said.clock_overruled:
            counted.names.add(AnomalyKind.CLOCK.value)
        if result.anomaly is not None:
            counted.names.add(result.anomaly.value)

    def _count(self, key: SessionKey, life: Life | None, number: int, reading: Reading) -> Step:
        of_it = self.deltas.setdefault((key, life.life if life is not None else number), [])
        late: Known | None = None
        if life is not None and is_late(life, reading):
            kept = self.late.setdefault((key, life.life), [])
            result, late = step_late(life, reading, known_of(life, of_it, kept), rate_kbps=RATE_KBPS)
            kept += [late] if late is not None else []
        else:
            result = step(life, number, reading, rate_kbps=RATE_KBPS)
        of_it += [result.delta] if result.delta is not None else []
        return result

    def _reboot(self, said: Rebooted) -> None:
        """As db.sessions.close_rebooted has it."""
        for (nas_id, nas_key, _), lives in self.lives.items():
            if (nas_id, nas_key) == (said.nas_id, said.nas_key):
                lives[:] = [
                    close(life, Event.NAS_REBOOT) if life.state is State.OPEN and life.started_at < said.at else life
                    for life in lives
                ]

    def sweep(self, now: datetime) -> None:
        """As db.sessions.close_stale has it."""
        for lives in self.lives.values():
            for index, life in enumerate(lives):
                if life.state is State.OPEN and life.received_at < now - _SILENCE:
                    lives[index] = close(life, Event.SILENCE)
                    self.lapsed += 1

    def outcome(self) -> Outcome:
        for key, lives in self.lives.items():
            for life in lives:
                counted = self.counted[key, life.life]
                counted.state = life.state
                counted.octets_in, counted.octets_out = life.octets_in, life.octets_out
                counted.started_at, counted.stopped_at = life.started_at, life.stopped_at
                counted.estimated = life.estimated
                counted.deltas = [
                    (delta.octets_in, delta.octets_out, delta.from_at, delta.to_at, delta.late)
                    for delta in self.deltas[key, life.life]
                ]
        self.world.faults[Fault.SILENCE] += bool(self.lapsed)
        return Outcome(list(self.counted.values()), self.quarantined, base=_T0)
