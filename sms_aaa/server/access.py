"""An access worker: the login's way. Batches of 64, one reader transaction, one short write transaction each."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from sms_aaa.flows.access import (
    RANDOM_OCTETS,
    AccessAnswer,
    AccessRequest,
    Case,
    answer_request,
    decide_requests,
    reserve_places,
)
from sms_aaa.metrics import LATENCY_AT, Word, fault_word, observe, reason_word
from sms_aaa.node.journal import Appended, Dropped, Stream, Writer
from sms_aaa.node.records import pack_decision
from sms_aaa.radius.faults import PacketFault
from sms_aaa.radius.packet import Code
from sms_aaa.rules.reasons import Reason
from sms_aaa.server.dispatch import SILENCE, Answer, Asked, Deferred
from sms_aaa.server.udp import UdpWorker
from sms_aaa.server.worker import Child, run_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.node.replica import ReplicaFault
    from sms_aaa.server.sockets import Endpoint

BATCH_MAX = 64


class AccessWay:
    """Decide, reserve, answer, journal the decisions; then the outcomes go to the dispatcher."""

    batch_max = BATCH_MAX

    def __init__(self, worker: UdpWorker) -> None:
        child = worker.child
        self._worker = worker
        self._counters = child.counters
        self._live = child.live_set()
        self._reject_delay = child.settings.access.reject_delay_seconds
        self._reservation_seconds = child.settings.access.reservation_seconds
        self._journal = Writer(
            child.journal_folder(Stream.DECISIONS),
            Stream.DECISIONS,
            worker.reader.meta().database_id,
            child.slot,
            synced=False,
            file_octets_max=child.settings.journal.file_octets_max,
            folder_octets_max=child.settings.journal.decisions_octets_max,
        )

    def serve(self, endpoint: Endpoint, asked: Sequence[Asked], began: float) -> None:
        now_ns = time.time_ns()
        requests = [AccessRequest(one.admitted.packet, one.admitted.nas) for one in asked]
        reader = self._worker.reader
        with reader.replica.read() as view:
            cases = decide_requests(
                requests,
                tables=reader.tables,
                vault=reader.vault,
                view=view,
                randomness=os.urandom(RANDOM_OCTETS * len(requests)),
            )
        unplaced = self._reserve([case for case in cases if type(case) is Case and case.wants_place()], now_ns)
        answers = [
            answer_request(case, now_ns) if type(case) is Case and id(case) not in unplaced else case for case in cases
        ]
        self._record([answer for answer in answers if type(answer) is AccessAnswer], now_ns)
        for one, answer in zip(asked, answers, strict=True):
            self._carry_out(endpoint, one, answer, began)
        observe(self._counters, LATENCY_AT, int((time.monotonic() - began) * 1e6), len(asked))

    def close(self) -> None:
        self._journal.close()
        self._live.close()

    def _reserve(self, cases: list[Case], now_ns: int) -> frozenset[int]:
        """Which cases found no store for their reservation: nobody may say that they were admitted."""
        if not cases:
            return frozenset()
        now = now_ns // 1_000_000_000
        with self._live.write() as change:
            reserve_places(cases, change, now=now, until=now + self._reservation_seconds)
        if change.fault is None:
            return frozenset()
        self._counters[Word.LIVE_FAULTS] += 1
        return frozenset(map(id, cases))

    def _record(self, answers: list[AccessAnswer], now_ns: int) -> None:
        """The decision stream may lose the last second, or drop when it is full: a login does not wait for it."""
        if not answers:
            return
        appended = self._journal.append([pack_decision(answer.decision) for answer in answers], now_ns)
        if isinstance(appended, Dropped):
            self._counters[Word.DECISIONS_DROPPED] += appended.count
        elif not isinstance(appended, Appended):
            self._counters[Word.DECISIONS_DROPPED] += len(answers)

    def _carry_out(
        self, endpoint: Endpoint, one: Asked, answer: AccessAnswer | Case | PacketFault | ReplicaFault, began: float
    ) -> None:
        carry_out = self._worker.dispatcher.carry_out
        if type(answer) is AccessAnswer:
            self._counters[reason_word(answer.reason)] += 1
            if answer.reason is Reason.ACCEPTED or not self._reject_delay:
                carry_out(endpoint, one, Answer(answer.reply))
            else:
                carry_out(endpoint, one, Deferred(answer.reply, began + self._reject_delay))
            return
        self._counters[fault_word(answer) if isinstance(answer, PacketFault) else Word.OUR_FAULTS] += 1
        carry_out(endpoint, one, SILENCE)


def main(child: Child) -> None:
    worker = UdpWorker(child, code=Code.ACCESS_REQUEST, duplicate_seconds=child.settings.access.duplicate_seconds)
    child.log.info("serving", sockets=len(child.order.sockets))
    worker.run(AccessWay(worker))


if __name__ == "__main__":
    run_child(main)
