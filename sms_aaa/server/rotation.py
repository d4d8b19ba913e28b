"""While two secrets of a NAS are valid: which one each source proved last.

A Message-Authenticator or an accounting Request Authenticator proves a secret. A login without one may prove it by a
password that is right under one of them alone; else nothing in it tells, and it is answered under the secret that its
source proved last, in whichever worker. Before the first proof that is the older one, which everybody had. A NAS that
does not believe a reply asks again: it is then answered under the other one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.node.nas_rows import NasWord, last_proofs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.flows.tables import Nas

SOURCES_MAX = 65_536
"""Beyond it all are forgotten, and learned again by their next proof."""


class Proofs:
    """One worker's. What it learns is counted in the NAS's row, where the other workers see it."""

    __slots__ = ("_counters", "_proved_new")

    def __init__(self, counters: memoryview) -> None:
        self._counters = counters
        self._proved_new: dict[str, int] = {}
        """By address: id of the newer secret that it proved last. Any other id: it proved the older one, or nothing."""

    def proved_new(self, nas: Nas, address: str) -> bool:
        return self._proved_new.get(address) == nas.secret_id

    def note(self, nas: Nas, address: str, *, is_new: bool, now_ns: int) -> None:
        """A packet from `address` proved a secret."""
        self._keep(nas, address, is_new=is_new)
        count, last = (NasWord.NEW_SECRET, NasWord.LAST_NEW_NS) if is_new else (NasWord.OLD_SECRET, NasWord.LAST_OLD_NS)
        self._counters[nas.row + count] += 1
        self._counters[nas.row + last] = now_ns

    def guess(self, nas: Nas, address: str, *, is_new: bool) -> None:
        """Nothing was proved, but the other one was not believed: this one, until something is."""
        self._keep(nas, address, is_new=is_new)

    def learn_from(self, others: Sequence[memoryview], nases: Iterable[Nas]) -> None:
        """What the other workers saw. A prefix has many sources, and its row does not tell which of them it was."""
        rotating = {nas.nas_id: nas for nas in nases if nas.older is not None and nas.single}
        if not rotating:
            return
        secret_ids = {nas_id: nas.secret_id for nas_id, nas in rotating.items()}
        mine = last_proofs(self._counters, secret_ids)
        theirs = [last_proofs(other, secret_ids) for other in others]
        for nas_id, nas in rotating.items():
            proofs = [proof[nas_id] for proof in theirs if nas_id in proof]
            older = max((proof[0] for proof in proofs), default=0)
            newer = max((proof[1] for proof in proofs), default=0)
            if max(older, newer) > max(mine.get(nas_id, (0, 0))):
                self._keep(nas, nas.address, is_new=newer > older)

    def _keep(self, nas: Nas, address: str, *, is_new: bool) -> None:
        if is_new:
            if len(self._proved_new) >= SOURCES_MAX:
                self._proved_new.clear()
            self._proved_new[address] = nas.secret_id
        else:
            self._proved_new.pop(address, None)
