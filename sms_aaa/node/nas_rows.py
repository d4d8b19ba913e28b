"""The NAS rows of a board slot: what a worker counts of each NAS, and what it has learned of it.

A worker writes the rows of its own slot and reads those of the others: so all know at once that a NAS signs its logins,
and which of two secrets it proved last. A NAS keeps its row while it is known; rows of the same NAS in two slots need
not have the same number. NASes beyond ROWS_MAX - 1 share the last row, which has no id: they are served like all the
others, but there is no evidence of each, and that they sign the other workers learn by the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from sms_aaa.node.board import COUNTERS_PER_SLOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sms_aaa.rules.entitlement import NodeNas


class NasWord(IntEnum):
    """Words of a row. Those from SIGNED to NEW_SECRET only grow until the row begins anew."""

    ID = 0
    OBSERVED_FROM = 1  # of which observation this is: see NodeNas
    ROTATION = 2  # id of the newest secret: of which rotation OLD_SECRET and NEW_SECRET are
    SIGNED = 3  # new Access-Requests with a Message-Authenticator, without EAP
    UNSIGNED = 4  # those without one, let in
    EAP = 5  # those with an EAP-Message, which is always signed: no evidence
    ACCOUNTING = 6
    DUPLICATES = 7
    DROPS = 8  # whatever the fault
    MISSING = 9  # Access-Requests dropped because they had no Message-Authenticator
    OLD_SECRET = 10  # packets that proved it, while two are valid
    NEW_SECRET = 11
    LAST_OLD_NS = 12
    LAST_NEW_NS = 13
    LAST_UNSIGNED_NS = 14
    LAST_UNSIGNED_PORT = 15
    PROVEN = 16  # epoch seconds of the first signed login, 0: none; from then on `auto` requires it


ROW_WORDS = 20
ROWS_AT = 1536
ROWS_MAX = (COUNTERS_PER_SLOT - ROWS_AT) // ROW_WORDS
LAST_ROW = ROWS_AT + (ROWS_MAX - 1) * ROW_WORDS
"""The row of all that have no row of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NasTotals:
    """A NAS's words, over all slots. Instants in nanoseconds, 0: never."""

    nas_id: int
    observed_from: int
    rotation: int
    signed: int
    unsigned: int
    last_unsigned_ns: int
    last_unsigned_port: int
    old_secret: int
    new_secret: int
    last_old_ns: int
    last_new_ns: int


def assign_rows(counters: memoryview, nases: Sequence[NodeNas]) -> dict[int, int]:
    """The first word of each NAS's row, by its id: the one that it has, else one that nobody needs any more.

    A row begins at zero when it goes to another NAS, or when its NAS's observation begins anew.
    """
    kept = {nas.nas_id for nas in nases}
    rows = {nas_id: at for nas_id, at in _rows(counters) if nas_id in kept}
    taken = set(rows.values())
    free = (at for at in range(ROWS_AT, LAST_ROW, ROW_WORDS) if at not in taken)
    for nas in nases:
        at = rows[nas.nas_id] if nas.nas_id in rows else next(free, LAST_ROW)
        rows[nas.nas_id] = at
        if at != LAST_ROW:
            _begin(counters, at, nas)
    return rows


def list_rows(counters: memoryview) -> list[list[int]]:
    """The words of each row that stands for a NAS, and of the last one, whose id is 0."""
    return [counters[at : at + ROW_WORDS].tolist() for at in [*(at for _, at in _rows(counters)), LAST_ROW]]


def list_proven(slots: Iterable[memoryview]) -> dict[int, int]:
    """When each NAS that signs was first seen to, in epoch seconds, as far as these slots know."""
    proven: dict[int, int] = {}
    for counters in slots:
        if counters[ROWS_AT]:  # the first row is given first: without it there is none
            since = _column(counters, NasWord.PROVEN)
            proven.update((nas_id, at) for nas_id, at in zip(_column(counters, NasWord.ID), since, strict=True) if at)
    return proven


def last_proofs(counters: memoryview, secret_ids: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """When packets of these NASes last proved (the old, the new) secret, in nanoseconds; 0: never.

    `secret_ids`: of which rotation, by NAS. A NAS that this slot knows in no such rotation is left out.
    """
    words = (NasWord.ID, NasWord.ROTATION, NasWord.LAST_OLD_NS, NasWord.LAST_NEW_NS)
    columns = [_column(counters, word) for word in words]
    return {
        nas_id: (last_old_ns, last_new_ns)
        for nas_id, rotation, last_old_ns, last_new_ns in zip(*columns, strict=True)
        if rotation == secret_ids.get(nas_id)
    }


def add_up(slots: Iterable[memoryview]) -> list[NasTotals]:
    """The totals of every NAS that has a row, by id. Rows of an earlier observation or rotation are not added."""
    found: dict[int, list[Sequence[int]]] = {}
    for counters in slots:
        for row in list_rows(counters)[:-1]:
            found.setdefault(row[NasWord.ID], []).append(row)
    return [_add(nas_id, rows) for nas_id, rows in sorted(found.items())]


def _add(nas_id: int, rows: Sequence[Sequence[int]]) -> NasTotals:
    observed_from = max(row[NasWord.OBSERVED_FROM] for row in rows)
    rotation = max(row[NasWord.ROTATION] for row in rows)
    rows = [row for row in rows if row[NasWord.OBSERVED_FROM] == observed_from]
    rotating = [row for row in rows if row[NasWord.ROTATION] == rotation]
    last_unsigned = max(rows, key=lambda row: row[NasWord.LAST_UNSIGNED_NS])
    return NasTotals(
        nas_id=nas_id,
        observed_from=observed_from,
        rotation=rotation,
        signed=sum(row[NasWord.SIGNED] for row in rows),
        unsigned=sum(row[NasWord.UNSIGNED] + row[NasWord.MISSING] for row in rows),
        last_unsigned_ns=last_unsigned[NasWord.LAST_UNSIGNED_NS],
        last_unsigned_port=last_unsigned[NasWord.LAST_UNSIGNED_PORT],
        old_secret=sum(row[NasWord.OLD_SECRET] for row in rotating),
        new_secret=sum(row[NasWord.NEW_SECRET] for row in rotating),
        last_old_ns=max((row[NasWord.LAST_OLD_NS] for row in rotating), default=0),
        last_new_ns=max((row[NasWord.LAST_NEW_NS] for row in rotating), default=0),
    )


def _rows(counters: memoryview) -> list[tuple[int, int]]:
    """(NAS, first word) of each row that stands for one."""
    ids = enumerate(_column(counters, NasWord.ID))
    return [(nas_id, ROWS_AT + number * ROW_WORDS) for number, nas_id in ids if nas_id]


def _column(counters: memoryview, word: NasWord) -> list[int]:
    """One word of every row but the last, read at once: a thousandth of a second for all of them."""
    return counters[ROWS_AT + word : LAST_ROW : ROW_WORDS].tolist()


def _begin(counters: memoryview, at: int, nas: NodeNas) -> None:
    if (counters[at + NasWord.ID], counters[at + NasWord.OBSERVED_FROM]) != (nas.nas_id, nas.observed_from):
        counters[at + NasWord.ID] = 0  # so that nobody takes the counts of one for another's
        for word in range(NasWord.SIGNED, ROW_WORDS):
            counters[at + word] = 0
        counters[at + NasWord.OBSERVED_FROM] = nas.observed_from
        counters[at + NasWord.ROTATION] = nas.secret_id
        counters[at + NasWord.ID] = nas.nas_id
    elif counters[at + NasWord.ROTATION] != nas.secret_id:
        for word in (NasWord.OLD_SECRET, NasWord.NEW_SECRET, NasWord.LAST_OLD_NS, NasWord.LAST_NEW_NS):
            counters[at + word] = 0
        counters[at + NasWord.ROTATION] = nas.secret_id
