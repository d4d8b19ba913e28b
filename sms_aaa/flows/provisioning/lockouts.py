"""Lockouts that an operator cleared on a node: what the audit trail keeps. The node's file is the door's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.radius.packet import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.node.lockouts import LockoutEntry


NAMED_MAX = 20
"""So many of them are named in the audit row; the rest are counted."""


def record_clearing(desk: Desk, node: str, gone: Sequence[LockoutEntry]) -> None:
    """One row for what was forgotten at once. Lockouts are no rows of the database, so the id is 0."""
    named = [
        {
            "scope": entry.scope.label,
            "user": as_text(entry.user),
            "device": as_text(entry.device),
            "failures": entry.tally.failures,
        }
        for entry in gone[:NAMED_MAX]
    ]
    desk.record("clear", "lockout", 0, before={"node": node, "count": len(gone), "entries": named}, after=None)
