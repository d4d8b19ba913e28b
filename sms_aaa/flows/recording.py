"""Decisions of the journal -> PostgreSQL, and what is learnt from them: a batch in one transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sms_aaa.db import decisions as db_decisions
from sms_aaa.db.decisions import DecisionRow
from sms_aaa.flows.learning import learn_devices
from sms_aaa.radius.packet import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.node.records import DecisionBatch
    from sms_aaa.rules.session import Place

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def settle_decisions(connection: Connection, batches: Sequence[tuple[Place, DecisionBatch]]) -> int:
    """Stores decisions as they were made, and binds services to devices that are to learn them; how many decisions."""
    rows = (fields for place, batch in batches for fields in _decision_fields(place, batch))
    db_decisions.insert_decisions(connection, rows)
    learn_devices(connection, (batch for _, batch in batches))
    return sum(len(batch.decisions) for _, batch in batches)


def decision_rows(place: Place, batch: DecisionBatch) -> list[DecisionRow]:
    """Decisions as the database, and so `why`, has them; also for those that `why` reads from the journal itself."""
    names = DecisionRow.__struct_fields__
    return [DecisionRow(**dict(zip(names, fields, strict=True))) for fields in _decision_fields(place, batch)]


def _decision_fields(place: Place, batch: DecisionBatch) -> Iterator[tuple[Any, ...]]:
    """The fields of a DecisionRow for each decision of a batch."""
    at = _EPOCH + timedelta(microseconds=batch.at_ns // 1000)
    node, sequence, offset = place.node, place.sequence, place.offset
    for item, record in enumerate(batch.decisions):
        yield (
            at,
            node,
            sequence,
            offset,
            item,
            record.nas_id,
            record.service_id or None,
            record.plan_version_id or None,
            record.reason_code,
            record.method,
            as_text(record.username),
            as_text(record.calling_station_id),
            as_text(record.nas_port),
            record.token or None,
            record.sessions_seen,
            record.sessions_max,
            batch.duration_us,
            as_text(record.saw),
        )
