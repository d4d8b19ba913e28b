"""An accounting worker: the record's way. Everything that is there, one fdatasync, then the answers.

Nothing is answered that is not on disk (RFC 2866 section 4.1), and nothing enters the duplicate cache as answered
before that (J6). When the journal cannot be written, because its disk is full or it takes all that it may, the NAS
hears nothing, keeps the record and tries again; /healthz, the metrics and `status` say so; the worker tries again each
second and goes on by itself. Logins go on in their own processes.

There is no thread that receives while a batch syncs: it could win no more than the sync's share of the time, which
tests/bench/bench_record.py tells, and a second worker wins that without one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sms_aaa.flows.accounting import (
    AccountingRequest,
    apply_to_live_set,
    find_logins,
    leave_out_known,
    pack_requests,
    reply_to,
)
from sms_aaa.metrics import LATENCY_AT, SYNC_AT, Word, observe, set_journal_fault
from sms_aaa.node.journal import Appended, JournalFault, JournalFaultKind, Stream, Writer
from sms_aaa.node.live import ENTRIES_PER_CHANGE
from sms_aaa.radius.packet import Code
from sms_aaa.rules.session import silence_seconds
from sms_aaa.server.dispatch import SILENCE, Asked
from sms_aaa.server.udp import UdpWorker
from sms_aaa.server.worker import Child, run_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.server.gate import Admitted
    from sms_aaa.server.sockets import Endpoint

BATCH_MAX = 1024
PACE_SECONDS = 0.002
"""Each batch has its price, however small it is: a sync, and calls of the kernel. Without a pace a worker that could
answer several times as many records spends its time on small batches, and settling has the less."""

RETRY_SECONDS = 1.0
"""After a fault of the journal, how long until it is tried again: a full disk is not hammered."""

AHEAD = 0.5
"""Of the time that a session may be silent: by so much longer it is put down as online, so that not each Interim has to
be written. The settler gives the place of a silent session back in time; while there is none it is held longer."""


class AccountingWay:
    """Journal, sync, tell the live set what the records mean, answer."""

    batch_max = BATCH_MAX
    pace_seconds = PACE_SECONDS
    bells = ()

    def __init__(self, worker: UdpWorker) -> None:
        child = worker.child
        self._worker = worker
        self._child = child
        self._counters = child.counters
        self._live = child.live_set()
        self._journal = Writer(
            child.journal_folder(Stream.ACCOUNTING),
            Stream.ACCOUNTING,
            worker.reader.meta().database_id,
            child.slot,
            synced=True,
            file_octets_max=child.settings.journal.file_octets_max,
            folder_octets_max=child.settings.journal.accounting_octets_max or None,
        )
        set_journal_fault(self._counters, None)
        self._not_before = 0.0  # not 0: there was a fault, and the journal is not tried before
        self._fault: JournalFaultKind | None = None

    def serve(self, endpoint: Endpoint, asked: Sequence[Asked], began: float) -> None:
        now_ns = time.time_ns()
        requests = [_request(one.admitted) for one in asked]
        if not self._make_durable(requests, now_ns, began):
            for one in asked:
                self._worker.dispatcher.carry_out(endpoint, one, SILENCE)
            return
        # Before the answer: a NAS that has its Stop confirmed may log the next device in at once.
        self._update_live_set(requests, now_ns // 1_000_000_000)
        replies = [(one, reply_to(request)) for one, request in zip(asked, requests, strict=True)]
        self._worker.dispatcher.answer_all(endpoint, replies)
        observe(self._counters, LATENCY_AT, int((time.monotonic() - began) * 1e6), len(asked))

    def collect(self) -> None:
        """Nothing is done beside this way."""

    def keep_house(self, now: float) -> None:
        """After a fault: whether a file can be begun is tried without waiting for the next record."""
        if self._not_before and now >= self._not_before:
            self._note_fault(self._journal.open(time.time_ns()), now)

    def close(self) -> None:
        self._journal.close()
        self._live.close()

    def _make_durable(self, requests: Sequence[AccountingRequest], now_ns: int, began: float) -> bool:
        if began < self._not_before:
            return False
        payloads = pack_requests(requests, now_ns=now_ns)
        writing = time.monotonic()
        appended = self._journal.append(payloads, now_ns)
        if isinstance(appended, Appended):
            self._counters[Word.RECORDS_JOURNALED] += len(requests)
            observe(self._counters, SYNC_AT, int((time.monotonic() - writing) * 1e6), 1)
            self._note_fault(None, began)
            return True
        assert isinstance(appended, JournalFault)  # what is synced is never dropped
        self._note_fault(appended, began)
        return False

    def _note_fault(self, fault: JournalFault | None, now: float) -> None:
        """What /healthz and `status` say of the journal; it is logged when it changes."""
        if fault is None:
            if self._not_before:
                self._not_before, self._fault = 0.0, None
                set_journal_fault(self._counters, None)
                self._child.log.warning("journal-writable", accounting="answered again")
            return
        self._counters[Word.JOURNAL_FAULTS] += 1
        self._not_before = now + RETRY_SECONDS
        set_journal_fault(self._counters, fault.kind)
        if fault.kind is not self._fault:
            self._fault = fault.kind
            self._child.log.error("journal-fault", fault=fault.detail, remedy=fault.kind.remedy)

    def _update_live_set(self, requests: Sequence[AccountingRequest], now: int) -> None:
        logins = find_logins(requests)
        if not logins:
            return
        longest = self._worker.reader.tables.interim_seconds_max
        silence = silence_seconds(longest, self._child.settings.session.stale_multiple)
        with self._live.look() as view:
            logins = leave_out_known(logins, view, until=now + silence)
        until = now + silence + int(silence * AHEAD)
        for start in range(0, len(logins), ENTRIES_PER_CHANGE):
            with self._live.write() as change:
                apply_to_live_set(logins[start : start + ENTRIES_PER_CHANGE], change, until=until)
            if change.fault is not None:
                # The records are safe; a place that is not given back runs out by itself.
                self._counters[Word.LIVE_FAULTS] += 1


def _request(admitted: Admitted) -> AccountingRequest:
    source, source_port, _ = admitted.entry.key
    return AccountingRequest(admitted.packet, admitted.nas, admitted.digests, source, source_port)


def main(child: Child) -> None:
    worker = UdpWorker(
        child, code=Code.ACCOUNTING_REQUEST, duplicate_seconds=child.settings.accounting.duplicate_seconds
    )
    child.log.info("serving", sockets=len(child.order.sockets))
    worker.run(AccountingWay(worker))


if __name__ == "__main__":
    run_child(main)
