"""Every metric, declared once: what each word of a board slot counts, and how Prometheus gets it.

Workers add to plain words of their slot (node/board.py): no lock, no object, no call per packet. The supervisor's
collector sums the slots when it is scraped. Labels come from enums or provisioned names, never from what a packet said.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sms_aaa.node import nas_rows
from sms_aaa.node.journal import JournalFaultKind
from sms_aaa.node.nas_rows import NasWord
from sms_aaa.radius.faults import PacketFault
from sms_aaa.rules.reasons import Reason
from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sms_aaa.node.board import Board, Slot


class Word(IntEnum):
    """Single words of a slot. A GAUGE is set, everything else only grows."""

    REPLIES = 0  # sent, without repeats
    DUPLICATES_ANSWERED = 1
    DUPLICATES_PENDING = 2
    STATUS_SERVER = 3
    RECORDS_JOURNALED = 4
    JOURNAL_FAULTS = 5
    DECISIONS_DROPPED = 6
    SHED = 7
    OUR_FAULTS = 8
    LIVE_FAULTS = 9
    RECEIVE_BUFFER_OCTETS = 10  # gauge
    REPLICA_REFRESHED_NS = 11  # gauge: when the replicator last agreed with PostgreSQL
    REPLICA_REBUILDS = 12
    RECORDS_SETTLED = 13
    DELTAS_SETTLED = 14
    QUARANTINED = 16
    BACKLOG_OCTETS = 17  # gauge: journal not settled yet, accounting
    SETTLE_LAG_MS = 18  # gauge: age of the oldest record that is not settled
    SETTLE_FAULTS = 19
    DELTAS_RATED = 20
    RATING_QUEUE = 21  # gauge
    RATING_LAG_MS = 22  # gauge: age of the oldest queued delta
    RATE_FAULTS = 23
    SUSPENSE = 24
    DATABASE_UP = 25  # gauge
    SEND_FAULTS = 26
    BACKLOG_DECISIONS_OCTETS = 27  # gauge
    NAS_UNREADABLE = 28  # gauge: NASes with a secret that the key does not open
    DECISIONS_RECORDED = 29
    SHED_WORK = 30
    LIVE_REBUILT = 50  # gauge: 1 when the live set is whole since the boot
    NEIGHBOUR_CHANGES = 51
    STRICT_CLAIMS = 52
    STRICT_AWAY = 53
    SHED_PLACES = 54
    REPLICA_FILL_DONE = 31  # gauge: services in the generation that is being filled; 0 when none is
    REPLICA_FILL_OF = 32  # gauge: of how many
    REPLICA_PENDING = 33  # gauge: services that changed and are not in the replica yet
    REPLICA_SCRUBBED_NS = 34  # gauge: when the last whole look for damage ended
    REPLICA_DAMAGES = 35
    REPLICA_TOUCHED = 36  # not for people: set while the replicator is inside the replica, which may kill it
    REPLICA_READ_FAULTS = 37
    REPLICA_TOO_OLD = 38
    NAS_WEAK = 40  # gauge: NASes whose secret can be guessed
    PASSWORD_CHECKS = 41
    PASSWORD_CACHE_HITS = 42
    SHED_NAS = 43
    SHED_INTERIMS = 44
    SHED_STALE = 45
    KERNEL_DROPS = 46  # of a worker's sockets, which outlive it: set, and only grows
    DECISIONS_UNTOLD = 47
    LOCKOUTS = 48
    LOCKOUTS_USER = 49
    LOCKOUTS_DEVICE = 55
    JOURNAL_UNWRITABLE = 56  # gauge of an accounting worker: 0, or 1 + the place of its fault among JournalFaultKind's
    JOURNAL_OCTETS = 57  # gauge: what the accounting journal's files take
    JOURNAL_ROOM_OCTETS = 58  # gauge: how much more they may take
    JOURNAL_EARLY = 59
    LAPSED_SILENCE = 60
    LAPSED_REBOOT = 61
    DELTAS_RATED_IN_BULK = 62


FAULTS_AT = 64
REASONS_AT = FAULTS_AT + 64
LATENCY_AT = REASONS_AT + 64
SYNC_AT = LATENCY_AT + 32
ANOMALIES_AT = SYNC_AT + 32
PLANS_AT = 512
PLAN_ROWS_MAX = 512
assert PLANS_AT + 2 * PLAN_ROWS_MAX <= nas_rows.ROWS_AT  # the NASes' rows end a slot

_REASONS = list(Reason)
_JOURNAL_FAULTS = list(JournalFaultKind)
_FAULTS = list(PacketFault)
_REASON_WORD = {reason: REASONS_AT + index for index, reason in enumerate(_REASONS)}
assert len(_REASONS) <= 64
_ANOMALY_WORD = {kind: ANOMALIES_AT + index for index, kind in enumerate(AnomalyKind)}
assert len(_FAULTS) <= 64
assert len(AnomalyKind) <= 32

LATENCY_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
_SUM, _BUCKETS = 0, 1


def reason_word(reason: Reason) -> int:
    return _REASON_WORD[reason]


def fault_word(fault: PacketFault) -> int:
    return FAULTS_AT + fault.index


def anomaly_word(kind: AnomalyKind) -> int:
    return _ANOMALY_WORD[kind]


def observe(counters: memoryview, at: int, duration_us: int, times: int) -> None:
    """Adds `times` observations of one duration to the histogram at LATENCY_AT or SYNC_AT: once a batch."""
    counters[at + _SUM] += duration_us * times
    counters[at + _BUCKETS + bisect_left(LATENCY_BOUNDS_US, duration_us)] += times


def set_plan_rows(counters: memoryview, sessions_by_plan: Sequence[tuple[int, int]]) -> None:
    """(plan version id, open sessions); rows that are not needed any more are emptied."""
    rows = list(sessions_by_plan[:PLAN_ROWS_MAX])
    rows += [(0, 0)] * (PLAN_ROWS_MAX - len(rows))
    for index, (plan_version_id, sessions) in enumerate(rows):
        counters[PLANS_AT + 2 * index] = plan_version_id
        counters[PLANS_AT + 2 * index + 1] = sessions


def count_online(slots: Iterable[memoryview]) -> int:
    """Open sessions of all plans, as the settler last counted them."""
    return sum(counters[PLANS_AT + 2 * row + 1] for counters in slots for row in range(PLAN_ROWS_MAX))


@dataclass(frozen=True, slots=True)
class ProcessView:
    """A child as the supervisor sees it."""

    name: str
    slot: int
    is_up: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class Names:
    """Provisioned names for labels: NAS by id, plan by version id (from the replica)."""

    nas: Mapping[int, str]
    plans: Mapping[int, str]


_COUNTERS: tuple[tuple[Word, str, str], ...] = (
    (Word.REPLIES, "replies", "Replies sent, without repeats"),
    (Word.DUPLICATES_ANSWERED, "duplicates_answered", "Retransmissions answered from the cache"),
    (Word.DUPLICATES_PENDING, "duplicates_pending", "Retransmissions that came while the first was being worked on"),
    (Word.STATUS_SERVER, "status_server", "Status-Server requests answered"),
    (Word.RECORDS_JOURNALED, "journal_records", "Accounting records made durable"),
    (Word.JOURNAL_FAULTS, "journal_faults", "Batches that could not be made durable and were not answered"),
    (Word.JOURNAL_EARLY, "journal_files_deleted_early", "Settled files deleted before retention_days, to make room"),
    (Word.DECISIONS_DROPPED, "decisions_dropped", "Decisions that found the decision stream full"),
    (Word.DECISIONS_RECORDED, "decisions_recorded", "Decisions stored in PostgreSQL"),
    (Word.PASSWORD_CHECKS, "password_checks", "Slow password hashes computed, for one or more logins"),
    (Word.PASSWORD_CACHE_HITS, "password_cache_hits", "Logins with a slow hash whose password was known to be right"),
    (Word.STRICT_CLAIMS, "strict_claims", "Logins under a strict limit that PostgreSQL decided"),
    (Word.STRICT_AWAY, "strict_away", "Logins under a strict limit that PostgreSQL did not decide in time"),
    (Word.NEIGHBOUR_CHANGES, "neighbour_changes", "Sessions that began, ended or moved at other nodes, brought in"),
    (Word.DECISIONS_UNTOLD, "decisions_untold", "Refusals by a limit that were counted and not recorded one by one"),
    (Word.OUR_FAULTS, "our_faults", "Requests that were not answered because of a fault of ours"),
    (Word.LIVE_FAULTS, "live_set_faults", "Batches whose reservations could not be stored"),
    (Word.SEND_FAULTS, "send_faults", "Replies that the kernel did not take"),
    (Word.REPLICA_REBUILDS, "replica_rebuilds", "Times the replica was built anew"),
    (Word.REPLICA_DAMAGES, "replica_damages", "Times the replica was found damaged, and so built anew"),
    (Word.REPLICA_READ_FAULTS, "replica_read_faults", "Logins that met a damaged record, and silence"),
    (Word.REPLICA_TOO_OLD, "replica_too_old", "Logins refused, or met with silence, because of the replica's age"),
    (Word.RECORDS_SETTLED, "records_settled", "Accounting records settled into sessions"),
    (Word.DELTAS_SETTLED, "deltas_settled", "Usage deltas stored"),
    (Word.QUARANTINED, "quarantined", "Records that could not be settled and were put aside"),
    (Word.SETTLE_FAULTS, "settle_faults", "Settling batches that failed and were tried again"),
    (Word.DELTAS_RATED, "deltas_rated", "Usage deltas rated"),
    (Word.DELTAS_RATED_IN_BULK, "deltas_rated_in_bulk", "Of these, the ones rated set-wise, in PostgreSQL"),
    (Word.SUSPENSE, "suspense", "Usage deltas that no tariff could rate"),
    (Word.RATE_FAULTS, "rate_faults", "Rating batches that failed and were tried again"),
)

SHED_WORDS: dict[int, str] = {
    Word.SHED_INTERIMS: "interim",  # the queue was too full
    Word.SHED_STALE: "stale-login",  # the queue was too full, and it had lain there too long
    Word.SHED_NAS: "nas-rate",
    Word.SHED_WORK: "work",  # too much slow work waited
    Word.SHED_PLACES: "places",  # nobody could say whether a place was free
    Word.SHED: "refusal",  # too many refusals waited for the reject delay
}
LAPSED_WORDS: dict[int, str] = {Word.LAPSED_SILENCE: "silence", Word.LAPSED_REBOOT: "nas-reboot"}
_LOCKOUT_WORDS: dict[int, str] = {
    Word.LOCKOUTS: "user-and-device",
    Word.LOCKOUTS_USER: "user",
    Word.LOCKOUTS_DEVICE: "device",
}

_LABELLED: tuple[tuple[dict[int, str], str, str, str], ...] = (
    (SHED_WORDS, "shed", "kind", "Requests dropped because of overload or a limit, by kind"),
    (
        {word: kind.value for kind, word in _ANOMALY_WORD.items()},
        "anomalies",
        "kind",
        "Oddities of records that were named, by kind",
    ),
    (LAPSED_WORDS, "sessions_lapsed", "cause", "Sessions that were ended without a Stop, by cause"),
    (_LOCKOUT_WORDS, "lockouts", "scope", "Lockouts that set in after failed logins, by whom they keep out"),
)

_GAUGES: tuple[tuple[Word, str, str, float], ...] = (
    (Word.BACKLOG_OCTETS, "journal_backlog_octets", "Accounting journal that is not settled yet", 1),
    (Word.JOURNAL_OCTETS, "journal_octets", "What the accounting journal's files take of their disk", 1),
    (Word.JOURNAL_ROOM_OCTETS, "journal_room_octets", "How much more they may take until nothing is answered", 1),
    (Word.BACKLOG_DECISIONS_OCTETS, "decisions_backlog_octets", "Decision stream that is not settled yet", 1),
    (Word.SETTLE_LAG_MS, "settle_lag_seconds", "Age of the oldest record that is not settled", 1000),
    (Word.LIVE_REBUILT, "live_set_rebuilt", "1 when the live set is whole since the boot, else 0", 1),
    (
        Word.REPLICA_FILL_DONE,
        "replica_fill_services",
        "Services in the generation that is being filled",
        1,
    ),
    (Word.REPLICA_FILL_OF, "replica_fill_of_services", "How many services that generation is to have", 1),
    (Word.REPLICA_PENDING, "replica_pending_services", "Services that changed and are not in the replica yet", 1),
    (Word.REPLICA_SCRUBBED_NS, "replica_scrubbed_seconds", "When a look through the whole replica last ended", 1e9),
    (Word.RATING_QUEUE, "rating_queue_deltas", "Usage deltas that wait for the rater", 1),
    (Word.RATING_LAG_MS, "rating_lag_seconds", "Age of the oldest delta that waits for the rater", 1000),
    (Word.NAS_UNREADABLE, "nas_unreadable_secrets", "NASes with a secret that this node's key does not open", 1),
    (Word.NAS_WEAK, "nas_weak_secrets", "NASes whose newest secret is short or easily guessed", 1),
)


class Collector:
    """What /metrics answers: read from the board at each scrape."""

    def __init__(
        self,
        board: Board,
        processes: Callable[[], Sequence[ProcessView]],
        names: Callable[[], Names],
        now_ns: Callable[[], int],
    ) -> None:
        self._board = board
        self._processes = processes
        self._names = names
        self._now_ns = now_ns

    def collect(self) -> Iterator[Metric]:
        processes = self._processes()
        slots = {process.slot: self._board.slot(process.slot) for process in processes}
        names = self._names()
        yield from _process_metrics(processes)
        for word, name, help_text in _COUNTERS:
            counter = CounterMetricFamily(f"sms_aaa_{name}", help_text)
            counter.add_metric([], sum(slot.counters[word] for slot in slots.values()))
            yield counter
        for words, name, label, help_text in _LABELLED:
            labelled = CounterMetricFamily(f"sms_aaa_{name}", help_text, labels=[label])
            for at, value in words.items():
                labelled.add_metric([value], sum(slot.counters[at] for slot in slots.values()))
            yield labelled
        yield _kernel_drops(processes, slots)
        for word, name, help_text, divisor in _GAUGES:
            highest = max((slot.counters[word] for slot in slots.values()), default=0)
            yield GaugeMetricFamily(f"sms_aaa_{name}", help_text, value=highest / divisor)
        yield _journal_unwritable(processes, slots)
        yield self._replica_age(slots.values())
        yield _replies_by_reason(slots.values())
        yield _drops_by_fault(slots.values())
        yield from _histograms(processes, slots)
        yield from _nas_metrics(slots.values(), names.nas)
        yield _sessions_by_plan(slots.values(), names.plans)

    def _replica_age(self, slots: Iterable[Slot]) -> Metric:
        refreshed = max((slot.counters[Word.REPLICA_REFRESHED_NS] for slot in slots), default=0)
        age = (self._now_ns() - refreshed) / 1e9 if refreshed else float("inf")
        return GaugeMetricFamily("sms_aaa_replica_age_seconds", "Since the replica last agreed with PostgreSQL", age)


def _process_metrics(processes: Sequence[ProcessView]) -> Iterator[Metric]:
    up = GaugeMetricFamily("sms_aaa_process_up", "1 while the process runs", labels=["process"])
    restarts = CounterMetricFamily("sms_aaa_process_restarts", "Times it had to be started again", labels=["process"])
    for process in processes:
        up.add_metric([process.name], int(process.is_up))
        restarts.add_metric([process.name], process.restarts)
    yield up
    yield restarts


def _kernel_drops(processes: Sequence[ProcessView], slots: Mapping[int, Slot]) -> Metric:
    family = CounterMetricFamily(
        "sms_aaa_kernel_drops", "Datagrams that found no room in a worker's sockets", labels=["process"]
    )
    for process in processes:
        if process.name.startswith(("access", "accounting")):
            family.add_metric([process.name], slots[process.slot].counters[Word.KERNEL_DROPS])
    return family


def _journal_unwritable(processes: Sequence[ProcessView], slots: Mapping[int, Slot]) -> Metric:
    family = GaugeMetricFamily(
        "sms_aaa_journal_unwritable",
        "1 while the worker answers no accounting because it cannot write its journal",
        labels=["process"],
    )
    for process in processes:
        if process.name.startswith("accounting"):
            family.add_metric([process.name], int(slots[process.slot].counters[Word.JOURNAL_UNWRITABLE] != 0))
    return family


def journal_fault(counters: memoryview) -> JournalFaultKind | None:
    """Why an accounting worker cannot write its journal just now; None: it can."""
    at = counters[Word.JOURNAL_UNWRITABLE]
    return _JOURNAL_FAULTS[at - 1] if 0 < at <= len(_JOURNAL_FAULTS) else None


def set_journal_fault(counters: memoryview, kind: JournalFaultKind | None) -> None:
    counters[Word.JOURNAL_UNWRITABLE] = 0 if kind is None else 1 + _JOURNAL_FAULTS.index(kind)


def _replies_by_reason(slots: Iterable[Slot]) -> Metric:
    family = CounterMetricFamily("sms_aaa_access_decisions", "Access decisions by reason", labels=["reason"])
    slots = list(slots)
    for reason in _REASONS:
        family.add_metric([reason.label], sum(slot.counters[reason_word(reason)] for slot in slots))
    return family


def _drops_by_fault(slots: Iterable[Slot]) -> Metric:
    family = CounterMetricFamily(
        "sms_aaa_packet_drops", "Packets dropped without an answer, by fault", labels=["fault"]
    )
    slots = list(slots)
    for fault in _FAULTS:
        family.add_metric([fault.label], sum(slot.counters[fault_word(fault)] for slot in slots))
    return family


def _histograms(processes: Sequence[ProcessView], slots: Mapping[int, Slot]) -> Iterator[Metric]:
    latency = HistogramMetricFamily(
        "sms_aaa_request_duration_seconds", "From the receipt of a batch to its last reply", labels=["process"]
    )
    sync = HistogramMetricFamily("sms_aaa_journal_sync_seconds", "Write and fdatasync of a batch", labels=["process"])
    for process in processes:
        counters = slots[process.slot].counters
        if process.name.startswith(("access", "accounting")):
            latency.add_metric([process.name], _buckets(counters, LATENCY_AT), counters[LATENCY_AT + _SUM] / 1e6)
        if process.name.startswith("accounting"):
            sync.add_metric([process.name], _buckets(counters, SYNC_AT), counters[SYNC_AT + _SUM] / 1e6)
    yield latency
    yield sync


def _buckets(counters: memoryview, at: int) -> list[tuple[str, float]]:
    total = 0
    buckets = []
    for index, bound in enumerate((*LATENCY_BOUNDS_US, None)):
        total += counters[at + _BUCKETS + index]
        buckets.append(("+Inf" if bound is None else str(bound / 1e6), float(total)))
    return buckets


_REQUESTS_BY_NAS: Mapping[str, tuple[NasWord, ...]] = {
    "access": (NasWord.SIGNED, NasWord.UNSIGNED, NasWord.EAP),
    "accounting": (NasWord.ACCOUNTING,),
    "duplicates": (NasWord.DUPLICATES,),
}
_SIGNATURES: Mapping[str, tuple[NasWord, ...]] = {
    "signed": (NasWord.SIGNED,),
    "unsigned": (NasWord.UNSIGNED, NasWord.MISSING),
    "eap": (NasWord.EAP,),
}
_SECRETS: Mapping[str, tuple[NasWord, ...]] = {"old": (NasWord.OLD_SECRET,), "new": (NasWord.NEW_SECRET,)}
_NAS_FAMILIES: tuple[tuple[str, str, str, Mapping[str, tuple[NasWord, ...]]], ...] = (
    ("requests", "Verified requests by NAS and kind", "kind", _REQUESTS_BY_NAS),
    ("nas_access_requests", "Access-Requests by NAS and Message-Authenticator", "signature", _SIGNATURES),
    ("nas_secret_proofs", "Packets that proved one of two secrets in rotation", "secret", _SECRETS),
    ("nas_drops", "Packets from a NAS's address dropped without an answer", "", {"": (NasWord.DROPS,)}),
)


def _nas_metrics(slots: Iterable[Slot], names: Mapping[int, str]) -> Iterator[Metric]:
    """Of NASes that are provisioned; what came from anywhere else is counted by fault alone."""
    rows = [row for slot in slots for row in nas_rows.list_rows(slot.counters)]
    for name, help_text, label, kinds in _NAS_FAMILIES:
        family = CounterMetricFamily(f"sms_aaa_{name}", help_text, labels=["nas", label] if label else ["nas"])
        totals: dict[tuple[str, str], int] = {}
        for row in rows:
            nas_id = row[NasWord.ID]
            nas = names.get(nas_id, "removed") if nas_id else "other"
            for kind, words in kinds.items():
                totals[nas, kind] = totals.get((nas, kind), 0) + sum(row[word] for word in words)
        for (nas, kind), total in sorted(totals.items()):
            if nas != "other" or total:
                family.add_metric([nas, kind] if label else [nas], total)
        yield family


def _sessions_by_plan(slots: Iterable[Slot], names: Mapping[int, str]) -> Metric:
    family = GaugeMetricFamily("sms_aaa_sessions_online", "Open sessions by plan", labels=["plan"])
    totals: dict[str, int] = {}
    for slot in slots:
        for row in range(PLAN_ROWS_MAX):
            plan_version_id, sessions = slot.counters[PLANS_AT + 2 * row : PLANS_AT + 2 * row + 2]
            if sessions:
                name = names.get(plan_version_id, "none")
                totals[name] = totals.get(name, 0) + sessions
    for name, total in sorted(totals.items()):
        family.add_metric([name], total)
    return family
