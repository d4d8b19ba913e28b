"""Usage in suspense goes back into the queue once what was wrong is mended, in one transaction.

The rater looks for usage whose service was put on a plan meanwhile by itself; what the database refused is tried again
when somebody says so. What is still not to be rated stays where it is, under its name.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import audit as db_audit
from sms_aaa.db import rating_queue as db_queue
from sms_aaa.db import suspense as db_suspense
from sms_aaa.db.usage import SHARDS
from sms_aaa.flows.placing import NO_SUBSCRIPTION, find_reasons

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta
    from sms_aaa.rules.actor import Actor

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Retried:
    """Deltas by reason: those that are queued again, and those that stay."""

    queued: dict[str, int]
    left: dict[str, int]


def retry_suspense(connection: Connection, *, reason: str | None, now: datetime, actor: Actor | None = None) -> Retried:
    """Queues again what can be rated by now of what is in suspense, of a reason or of all.

    `actor`: who asked for it; the rater by itself is its own trace.
    """
    queued: Counter[str] = Counter()
    left: Counter[str] = Counter()
    after = (0, 0)
    while found := db_suspense.lock_suspended(connection, reason=reason, after=after, limit=BATCH):
        deltas = [delta for delta, _ in found]
        mended: dict[int, list[QueuedDelta]] = defaultdict(list)
        for (delta, was), refused in zip(found, find_reasons(connection, deltas), strict=True):
            if refused is None:
                mended[delta.account_id % SHARDS].append(delta)
                queued[was] += 1
            else:
                left[was] += 1
        db_suspense.delete_suspended(connection, [delta for shard in mended.values() for delta in shard])
        for shard, of_shard in sorted(mended.items()):
            db_queue.insert_again(connection, shard, of_shard, now)
        after = (deltas[-1].session_id, deltas[-1].seq)
    if actor is not None and queued:
        db_audit.insert_change(
            connection, actor, action="retry", object_kind="suspense", object_id=0, before=None, after=dict(queued)
        )
    return Retried(dict(queued), dict(left))


def retry_mended(connection: Connection, *, now: datetime) -> int:
    """Of usage without a subscription, what has one by now; how many deltas were queued again."""
    return sum(retry_suspense(connection, reason=NO_SUBSCRIPTION, now=now).queued.values())
