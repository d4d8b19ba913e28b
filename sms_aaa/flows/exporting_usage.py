"""Exporting usage: rows as they are stored, with names or with pseudonyms; who took them out stays on record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sms_aaa.db import audit as db_audit
from sms_aaa.db import usage_export as db_export
from sms_aaa.db.usage_export import COLUMNS, PERSONAL, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage_export import ExportFilter
    from sms_aaa.rules.actor import Actor


def record_usage_export(connection: Connection, actor: Actor, wanted: ExportFilter, *, pseudonyms: bool) -> None:
    """Leaves on record whose usage goes out. To be committed before the first row is read."""
    after = {
        "by": wanted.by.value,
        "from": wanted.start.isoformat(),
        "to": wanted.end.isoformat(),
        "subscriber_id": wanted.subscriber_id,
        "nas_id": wanted.nas_id,
        "pseudonyms": pseudonyms,
    }
    db_audit.insert_change(
        connection, actor, action="exported", object_kind="usage", object_id=0, before=None, after=after
    )


class UsageExport:
    """Rows of one instant (begin_snapshot), and what was given out so far. `pseudonym` makes one of a name."""

    def __init__(
        self, connection: Connection, wanted: ExportFilter, pseudonym: Callable[[str], str] | None = None
    ) -> None:
        self.columns = COLUMNS[wanted.by]
        self._connection = connection
        self._wanted = wanted
        self._pseudonym = pseudonym
        self._personal = [self.columns.index(name) for name in PERSONAL]
        self._octets_in = self.columns.index("octets_up")
        self._octets_out = self.columns.index("octets_down")
        self.given = Totals(0, 0, 0)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """In the order of `columns`; `given` is right when they have come to their end."""
        rows = octets_in = octets_out = 0
        for row in db_export.iterate_usage(self._connection, self._wanted):
            rows += 1
            octets_in += row[self._octets_in]
            octets_out += row[self._octets_out]
            yield row if self._pseudonym is None else self._hidden(row)
        self.given = Totals(rows, octets_in, octets_out)

    def counted(self) -> Totals:
        """What there was at the same instant, counted apart."""
        return db_export.get_totals(self._connection, self._wanted)

    def _hidden(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self._pseudonym is not None
        hidden = list(row)
        for at in self._personal:
            if hidden[at] is not None:
                hidden[at] = self._pseudonym(hidden[at])
        return tuple(hidden)
