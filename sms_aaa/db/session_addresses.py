"""Addresses that a session had before those in its row: written only when one changes in mid-session."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection


class FormerAddress(Struct, frozen=True, gc=False):
    """`kind`: the column of `session` that it stood in; held from `from_at` to `heard_at`, at most to `to_at`."""

    kind: str
    address: str
    from_at: datetime
    heard_at: datetime
    to_at: datetime


def insert_former(connection: Connection, former: Sequence[tuple[int, FormerAddress]]) -> None:
    """(session id, address) each. What is covered by one that is there already adds nothing."""
    connection.cursor().executemany(
        """insert into session_address (session_id, kind, address, from_at, heard_at, to_at)
           select %(session)s, %(kind)s, %(address)s::inet, %(from_at)s, %(heard_at)s, %(to_at)s
           where not exists (select from session_address
                             where session_id = %(session)s and kind = %(kind)s and address = %(address)s::inet
                               and from_at <= %(from_at)s and to_at >= %(to_at)s)
           on conflict do nothing""",
        [
            {
                "session": session_id,
                "kind": one.kind,
                "address": one.address,
                "from_at": one.from_at,
                "heard_at": one.heard_at,
                "to_at": one.to_at,
            }
            for session_id, one in former
        ],
    )
