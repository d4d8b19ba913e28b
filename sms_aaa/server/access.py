"""An access worker: the login's way. Batches of 64, one reader transaction, one short write transaction each.

What takes longer than the loop may wait (Case.work, a strict place) is done beside it and comes back into the way where
it left.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sms_aaa.config import WhenTooOld
from sms_aaa.flows.access import (
    AccessRequest,
    Case,
    answer_case,
    claim_of,
    decision_of,
    devices_of,
    reserve_places,
    withdraw_place,
)
from sms_aaa.flows.deciding import RANDOM_OCTETS, Known, decide_requests, distrust, prove_case, refuse_request
from sms_aaa.flows.passwords import KEY_OCTETS, PasswordCheck, PasswordChecks
from sms_aaa.metrics import LATENCY_AT, Word, observe, reason_word
from sms_aaa.node.journal import Appended, Dropped, Stream, Writer
from sms_aaa.node.records import DecisionBatch, DecisionRecord, pack_decisions
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Code
from sms_aaa.rules.access import StrictAway, Unrebuilt
from sms_aaa.rules.reasons import Reason
from sms_aaa.server.beside import Beside, Done
from sms_aaa.server.defence import Defence
from sms_aaa.server.dispatch import SILENCE, Asked, Deferred
from sms_aaa.server.strict import StrictPlaces
from sms_aaa.server.udp import UdpWorker
from sms_aaa.server.worker import Child, run_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sms_aaa.db.places import Claimed
    from sms_aaa.node.replica import ReplicaFault
    from sms_aaa.server.sockets import Endpoint

BATCH_MAX = 64
REBUILT_LOOK_SECONDS = 0.25
WORK_WAITING_MAX = 256
"""Cases whose work waits beside the loop. A NAS gives up after some seconds: more would be done for nobody."""
DUMMY_WAITING_MAX = WORK_WAITING_MAX // 4
"""So much may wait where work for a refusal that is certain is still taken: it must not keep out who may be let in."""
KIND_SERVICES_MAX = 5_000
"""Among so many services a worker looks for a slow hash when it starts: some 20 ms."""

_ACCEPTED = Reason.ACCEPTED


class _Aside(NamedTuple):
    """A case that left the loop, and the way back into it."""

    endpoint: Endpoint
    asked: Asked
    case: Case
    began: float


class AccessWay:
    """Decide, reserve, answer, journal the decisions, send."""

    batch_max = BATCH_MAX
    pace_seconds = 0.0

    def __init__(self, worker: UdpWorker) -> None:
        child = worker.child
        self._worker = worker
        self._child = child
        self._counters = child.counters
        self._live = child.live_set()
        self._was_too_old = self._is_silent = self._is_refusing = False
        self._reject_delay = child.settings.access.reject_delay_seconds
        self._reservation_seconds = child.settings.access.reservation_seconds
        self._defence = Defence(child.settings.limits, child.lockouts(), child.counters)
        self._beside: Beside[_Aside, bool] = Beside(
            threads=child.settings.access.password_threads, waiting_max=WORK_WAITING_MAX, name="work-beside"
        )
        self._passwords = PasswordChecks(
            key=os.urandom(KEY_OCTETS), remember_seconds=child.settings.access.password_cache_seconds
        )
        with worker.reader.replica.read() as view:
            self._passwords.meet(view.first_entitlements(KIND_SERVICES_MAX), worker.reader.vault)
        self._strict: StrictPlaces[_Aside] = StrictPlaces(child)
        self._until_rebuilt = child.settings.access.until_rebuilt
        self._strict_when_away = child.settings.access.strict_when_away
        self._is_rebuilt = self._until_rebuilt is Unrebuilt.ADMIT or self._live.is_rebuilt()
        self._rebuilt_due = 0.0
        self._journal = Writer(
            child.journal_folder(Stream.DECISIONS),
            Stream.DECISIONS,
            worker.reader.meta().database_id,
            child.slot,
            synced=False,
            file_octets_max=child.settings.journal.file_octets_max,
            folder_octets_max=child.settings.journal.decisions_octets_max,
        )

    @property
    def bells(self) -> tuple[Beside[_Aside, bool], StrictPlaces[_Aside]]:
        """What the loop polls beside its sockets."""
        return (self._beside, self._strict)

    def serve(self, endpoint: Endpoint, asked: Sequence[Asked], began: float) -> None:
        reader = self._worker.reader
        if reader.is_too_old is not self._was_too_old:
            self._say_age(is_too_old=reader.is_too_old)
        if self._is_silent:
            for one in asked:
                self._say_nothing(endpoint, one, Word.REPLICA_TOO_OLD)
            return
        self._passwords.now = began
        asked, requests, ready = self._screen(endpoint, asked, began)
        with reader.replica.read() as view:
            known = Known(reader.tables, reader.vault, view, self._passwords, int(time.time()))
            cases = decide_requests(requests, known, randomness=os.urandom(RANDOM_OCTETS * len(requests)))
        for one, case in zip(asked, cases, strict=True):
            if type(case) is not Case:
                self._give_up(endpoint, one, case)
            elif case.work is None or not self._set_aside(_Aside(endpoint, one, case, began), case.work):
                ready.append((one, case))
        self._counters[Word.PASSWORD_CACHE_HITS] = self._passwords.hits
        if ready:
            self._finish(endpoint, ready, began, is_late=False)

    def _set_aside(self, aside: _Aside, work: PasswordCheck) -> bool:
        """False: the case goes on without its work, which would change nothing but the time that it takes."""
        if aside.case.is_refused_anyhow() and len(self._beside) >= DUMMY_WAITING_MAX:
            return False
        if not self._beside.put(aside, work, key=work.key):
            self._say_nothing(aside.endpoint, aside.asked, Word.SHED_WORK)
        return True

    def _say_age(self, *, is_too_old: bool) -> None:
        settings = self._child.settings.replica
        self._was_too_old = is_too_old
        self._is_silent = is_too_old and settings.when_too_old is WhenTooOld.SILENCE
        self._is_refusing = is_too_old and settings.when_too_old is WhenTooOld.REJECT
        event = "replica-too-old" if is_too_old else "replica-fresh-again"
        self._child.log.warning(event, age_seconds_max=settings.age_seconds_max, logins=settings.when_too_old.value)

    def collect(self) -> None:
        """What was done beside the loop goes on from where it left."""
        collected = self._beside.collect()
        self._counters[Word.PASSWORD_CHECKS] = self._beside.worked
        self._passwords.now = time.monotonic()
        for done in collected:
            self._resume(done.what, partial(self._go_on, done))
        for aside, claimed in self._strict.collect():
            self._resume(aside, partial(self._go_on_strictly, aside, claimed))

    def _resume(self, aside: _Aside, go_on: Callable[[], None]) -> None:
        """As in a batch, a bug of ours costs the login that sets it off its answer, and nobody else's."""
        try:
            go_on()
        except Exception:  # noqa: BLE001 - the door's last resort, as UdpWorker has it for a batch
            self._worker.give_up(aside.endpoint, aside.asked)

    def _go_on(self, done: Done[_Aside, bool]) -> None:
        aside = done.what
        if done.bug is not None:
            raise done.bug
        case = prove_case(aside.case, self._passwords, matches=bool(done.told))
        if case.work is None or not self._set_aside(aside._replace(case=case), case.work):
            self._finish(aside.endpoint, [(aside.asked, case)], aside.began, is_late=True)

    def _go_on_strictly(self, aside: _Aside, claimed: Claimed | None) -> None:
        if self._take_strict_place(aside, claimed):
            self._answer(aside.endpoint, [(aside.asked, aside.case)], aside.began)

    def keep_house(self, now: float) -> None:
        """There is nothing to keep."""

    def close(self) -> None:
        self._beside.close()
        self._strict.close()
        self._journal.close()
        self._live.close()

    def _screen(
        self, endpoint: Endpoint, asked: Sequence[Asked], began: float
    ) -> tuple[Sequence[Asked], list[AccessRequest], list[tuple[Asked, Case]]]:
        """(those who are let through, as requests; the cases of those who are refused unseen)."""
        if self._defence.holds_rates:
            asked, above = self._defence.hold_rate(asked, time.monotonic_ns())
            for one in above:
                self._say_nothing(endpoint, one, Word.SHED_NAS)
        requests, refused = self._defence.screen(asked, began, int(time.time()), self._worker.reader.tables.realms)
        if not refused:
            return asked, requests, []
        cases = []
        for at, (reason, saw, is_told) in refused.items():
            case = refuse_request(requests[at], reason, saw, is_told=is_told)
            if isinstance(case, PacketFault):
                self._give_up(endpoint, asked[at], case)
            else:
                cases.append((asked[at], case))
        passed = [at for at in range(len(asked)) if at not in refused]
        return [asked[at] for at in passed], [requests[at] for at in passed], cases

    def _finish(self, endpoint: Endpoint, ready: list[tuple[Asked, Case]], began: float, *, is_late: bool) -> None:
        """From the decision to the reply."""
        if self._is_refusing:
            self._counters[Word.REPLICA_TOO_OLD] += sum(distrust(case) for _, case in ready)
        self._defence.note(ready, int(time.time()), is_late=is_late)
        wanting = [pair for pair in ready if pair[1].wants_place()]
        if wanting and not (self._is_rebuilt or self._look_whether_rebuilt(began)):
            ready = self._turn_away(endpoint, ready)
        elif not self._reserve([case for _, case in wanting], int(time.time())):
            # Nobody may say that those who wanted a place were admitted.
            for one, _ in wanting:
                self._say_nothing(endpoint, one, Word.OUR_FAULTS)
            ready = [pair for pair in ready if not pair[1].wants_place()]
        elif self._worker.reader.tables.has_strict_plans and any(case.wants_strict_place() for _, case in wanting):
            ready = [pair for pair in ready if not self._ask_strictly(endpoint, *pair, began)]
        if ready:
            self._answer(endpoint, ready, began)

    def _answer(self, endpoint: Endpoint, ready: list[tuple[Asked, Case]], began: float) -> None:
        now_ns = time.time_ns()
        accepted, refused, decisions = [], [], []
        for one, case in ready:
            reply = answer_case(case)
            if not isinstance(reply, bytes):
                self._give_up(endpoint, one, reply)
                continue
            if one.admitted.other is not None and case.proves_secret():
                self._worker.gate.learn_secret(one.admitted, case.request.digests)
            if case.is_told:
                decisions.append(decision_of(case))
            if case.reason is _ACCEPTED:
                accepted.append((one, reply))
            else:
                refused.append((one, reply))
                self._counters[reason_word(case.reason)] += 1
        if decisions:
            self._record(decisions, now_ns, began)
        self._send(endpoint, accepted, refused, began)
        observe(self._counters, LATENCY_AT, int((time.monotonic() - began) * 1e6), len(accepted) + len(refused))

    def _send(
        self,
        endpoint: Endpoint,
        accepted: list[tuple[Asked, bytes]],
        refused: list[tuple[Asked, bytes]],
        began: float,
    ) -> None:
        dispatcher = self._worker.dispatcher
        if accepted:
            self._counters[reason_word(_ACCEPTED)] += len(accepted)
            dispatcher.answer_all(endpoint, accepted)
        if refused and not self._reject_delay:
            dispatcher.answer_all(endpoint, refused)
            return
        for one, reply in refused:
            dispatcher.carry_out(endpoint, one, Deferred(reply, began + self._reject_delay))

    def _reserve(self, cases: list[Case], now: int) -> bool:
        """False: no store for the reservations."""
        if not cases:
            return True
        devices = devices_of(cases)
        with self._live.write() as change:
            reserve_places(cases, devices, change, now=now, until=now + self._reservation_seconds)
        if change.fault is None:
            return True
        self._counters[Word.LIVE_FAULTS] += 1
        return False

    def _look_whether_rebuilt(self, now: float) -> bool:
        if now >= self._rebuilt_due:
            self._rebuilt_due = now + REBUILT_LOOK_SECONDS
            self._is_rebuilt = self._live.is_rebuilt()
        return self._is_rebuilt

    def _turn_away(self, endpoint: Endpoint, ready: list[tuple[Asked, Case]]) -> list[tuple[Asked, Case]]:
        """After a boot, before it is known who is online: those who want a place are refused or hear nothing."""
        answered = []
        for one, case in ready:
            if not case.wants_place():
                answered.append((one, case))
            elif self._until_rebuilt is Unrebuilt.REJECT:
                case.refuse(Reason.BACKEND_UNAVAILABLE, b"after a boot it is not known yet who was online")
                answered.append((one, case))
            else:
                self._say_nothing(endpoint, one, Word.SHED_PLACES)
        return answered

    def _ask_strictly(self, endpoint: Endpoint, one: Asked, case: Case, began: float) -> bool:
        """Whether the case is not to be answered now: it waits for PostgreSQL, or for nothing."""
        if not case.wants_strict_place():
            return False
        aside = _Aside(endpoint, one, case, began)
        return self._strict.put(aside, claim_of(case), time.monotonic()) or not self._take_strict_place(aside, None)

    def _take_strict_place(self, aside: _Aside, claimed: Claimed | None) -> bool:
        """What PostgreSQL said, or did not say (None), is held against the case; whether it is to be answered."""
        case = aside.case
        self._counters[Word.STRICT_AWAY if claimed is None else Word.STRICT_CLAIMS] += 1
        if claimed is None:
            if self._strict_when_away is StrictAway.LOCAL:
                return True
            self._withdraw(case)
            if self._strict_when_away is StrictAway.SILENCE:
                self._say_nothing(aside.endpoint, aside.asked, Word.SHED_PLACES)
                return False
            case.refuse(Reason.BACKEND_UNAVAILABLE, b"PostgreSQL did not say in time whether there is a place")
            return True
        case.sessions_seen = claimed.seen
        if not claimed.is_admitted:
            self._withdraw(case)
            case.refuse(Reason.CONCURRENT_LIMIT)
        return True

    def _withdraw(self, case: Case) -> None:
        with self._live.write() as change:
            withdraw_place(case, change)
        self._counters[Word.LIVE_FAULTS] += change.fault is not None

    def _record(self, decisions: list[DecisionRecord], now_ns: int, began: float) -> None:
        """The decision stream may lose the last second, or drop when it is full: a login does not wait for it."""
        batch = DecisionBatch(now_ns, int((time.monotonic() - began) * 1e6), decisions)
        appended = self._journal.append(pack_decisions(batch), now_ns)
        if isinstance(appended, Dropped) or not isinstance(appended, Appended):
            self._counters[Word.DECISIONS_DROPPED] += len(decisions)

    def _give_up(self, endpoint: Endpoint, one: Asked, fault: Case | PacketFault | ReplicaFault) -> None:
        """A fault of the peer's is dropped as the gate drops its packets; one of ours is counted as ours."""
        if isinstance(fault, PacketFault):
            address, port, _ = one.admitted.entry.key
            self._worker.gate.drop(fault, (address, port), one.admitted.nas)
            self._worker.dispatcher.carry_out(endpoint, one, SILENCE)
        else:
            self._counters[Word.REPLICA_READ_FAULTS] += 1  # the replicator sees it, and builds the replica anew
            self._say_nothing(endpoint, one, Word.OUR_FAULTS)

    def _say_nothing(self, endpoint: Endpoint, one: Asked, word: int) -> None:
        self._counters[word] += 1
        self._worker.dispatcher.carry_out(endpoint, one, SILENCE)


def main(child: Child) -> None:
    worker = UdpWorker(child, code=Code.ACCESS_REQUEST, duplicate_seconds=child.settings.access.duplicate_seconds)
    child.log.info("serving", sockets=len(child.order.sockets))
    worker.run(AccessWay(worker))


if __name__ == "__main__":
    run_child(main)
