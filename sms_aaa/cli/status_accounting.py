"""The accounting side of `status`, in words that are understood at three in the morning.

All of it comes from the board, so that it is told while PostgreSQL is away, which is when it is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, octets, seconds
from sms_aaa.metrics import LAPSED_WORDS, Word, anomaly_word
from sms_aaa.rules.session import AnomalyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sms_aaa.node.journal import JournalFaultKind

LAG_MS_MAX = 5_000
"""Up to there the settler keeps up: it settles in batches."""


@dataclass(frozen=True, slots=True)
class Accounting:
    """The board's figures of accounting, and how many records a second come in and are settled."""

    records_per_second: int
    settled_per_second: int
    backlog_octets: int
    lag_ms: int
    journal_faults: int
    quarantined: int
    rating_queue: int
    rating_lag_ms: int
    anomalies: Mapping[str, int]
    lapsed: Mapping[str, int]
    is_database_up: bool
    journal_octets: int
    journal_room_octets: int
    unwritable: tuple[JournalFaultKind, ...]
    """Why accounting is not answered just now, of whichever workers it is not."""

    @property
    def journal(self) -> str:
        """Whether the journal can be written, in words."""
        told = [f"accounting is not answered: {fault.text}; {fault.remedy}" for fault in self.unwritable]
        return "; ".join(told) or "writable"


@dataclass(frozen=True, slots=True)
class Look:
    """What only grows, at an instant."""

    at_ns: int
    journaled: int
    settled: int


def look(count: Callable[[int], int], at_ns: int) -> Look:
    """`count`: the sum of a word over the slots."""
    return Look(at_ns, count(Word.RECORDS_JOURNALED), count(Word.RECORDS_SETTLED))


def accounting_of(
    count: Callable[[int], int],
    highest: Callable[[int], int],
    unwritable: Iterable[JournalFaultKind],
    first: Look,
    second: Look,
) -> Accounting:
    """From two looks, some time apart, and what the words are now."""
    passed_ns = max(1, second.at_ns - first.at_ns)
    return Accounting(
        records_per_second=(second.journaled - first.journaled) * 10**9 // passed_ns,
        settled_per_second=(second.settled - first.settled) * 10**9 // passed_ns,
        backlog_octets=highest(Word.BACKLOG_OCTETS),
        lag_ms=highest(Word.SETTLE_LAG_MS),
        journal_faults=count(Word.JOURNAL_FAULTS),
        quarantined=count(Word.QUARANTINED),
        rating_queue=highest(Word.RATING_QUEUE),
        rating_lag_ms=highest(Word.RATING_LAG_MS),
        anomalies={kind.value: count(anomaly_word(kind)) for kind in AnomalyKind},
        lapsed={cause: count(word) for word, cause in LAPSED_WORDS.items()},
        is_database_up=bool(highest(Word.DATABASE_UP)),
        journal_octets=highest(Word.JOURNAL_OCTETS),
        journal_room_octets=highest(Word.JOURNAL_ROOM_OCTETS),
        unwritable=tuple(sorted(set(unwritable), key=lambda kind: kind.value)),
    )


def accounting_cells(told: Accounting) -> dict[str, Cell]:
    """For programs."""
    return {
        "records_per_second": told.records_per_second,
        "settled_per_second": told.settled_per_second,
        "anomalies": sum(told.anomalies.values()),
        "sessions_lapsed": sum(told.lapsed.values()),
    }


def accounting_words(told: Accounting) -> Iterator[str]:
    """For people: a line a fact, what is wrong with what to do, since the start of the server."""
    if told.unwritable:
        yield f"{told.journal}. NASes keep their records and ask again; logins go on"
    yield f"{told.records_per_second} records/s come in, {told.settled_per_second} records/s are settled"
    yield _settling(told)
    room = f", room for {octets(told.journal_room_octets).text} more" if told.journal_room_octets else ""
    yield f"the journal takes {octets(told.journal_octets).text}{room}"
    if told.journal_faults:
        yield (
            f"{told.journal_faults} times a batch was not answered because it could not be made durable: "
            "`sms-aaa journal status`"
        )
    if told.rating_queue:
        behind = seconds(told.rating_lag_ms // 1000).text
        yield f"rating: {told.rating_queue} deltas wait, the oldest for {behind}"
    if told.quarantined:
        yield f"{told.quarantined} records were put aside: `sms-aaa quarantine list` says why"
    if ended := _counted(told.lapsed):
        yield f"sessions that ended without a Stop: {ended}; `sms-aaa stale` shows where"
    if odd := _counted(told.anomalies):
        yield f"odd records: {odd}; `sms-aaa anomalies` explains them"


def _settling(told: Accounting) -> str:
    waiting = octets(told.backlog_octets).text
    behind = seconds(told.lag_ms // 1000).text
    if not told.is_database_up:
        age = f", the oldest for {behind}" if told.lag_ms else ""
        return (
            f"PostgreSQL is away: {waiting} of the journal wait{age}; records are answered and nothing is lost, "
            "they are settled when it is back"
        )
    if told.lag_ms <= LAG_MS_MAX:
        return "the settler keeps up"
    return f"the settler is {behind} behind, {waiting} of the journal wait: nothing is lost"


def _counted(counts: Mapping[str, int]) -> str:
    """The most first."""
    found = sorted(((name, count) for name, count in counts.items() if count), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{name} {count}" for name, count in found)
