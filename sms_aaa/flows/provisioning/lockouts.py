"""Lockouts that an operator cleared on a node: what the audit trail keeps. The node's file is the door's affair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.radius.packet import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.node.lockouts import LockoutEntry


def record_clearing(desk: Desk, node: str, gone: Sequence[LockoutEntry]) -> None:
    """A row for each entry that was forgotten. A lockout is no row of the database, so its id is 0."""
    for entry in gone:
        before = {
            "node": node,
            "scope": entry.scope.label,
            "user": as_text(entry.user),
            "device": as_text(entry.device),
            "failures": entry.tally.failures,
        }
        desk.record("clear", "lockout", 0, before=before, after=None)
