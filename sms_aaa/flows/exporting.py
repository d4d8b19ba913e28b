"""Exporting subscribers: what is stored, row by row, in the form that an import reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db import imports as db_imports
from sms_aaa.flows.roster import SECRET_COLUMNS, Column, write_password, write_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.imports import StoredSubscriber
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.flows.roster import Row
    from sms_aaa.flows.vault import Vault


def columns(*, with_passwords: bool) -> list[Column]:
    """Of an export, in its order. Without passwords there is no column for them: an update then leaves them alone."""
    return [column for column in Column if with_passwords or column not in SECRET_COLUMNS]


def record_export(desk: Desk, *, to: str) -> None:
    """Leaves on record who takes every password out. To be committed before the first is read."""
    desk.record("exported", "passwords", 0, before=None, after={"to": to})


def export_rows(connection: Connection, vault: Vault | None) -> Iterator[Row]:
    """Every living subscriber as of one instant (begin_snapshot), by a cursor; with passwords if there is a vault.

    A credential that does not open under the vault's key has an empty cell.
    """
    for stored in db_imports.iterate_stored(connection):
        row = write_row(stored)
        if vault is not None:
            row |= _password(stored, vault)
        yield row


def _password(stored: StoredSubscriber, vault: Vault) -> Row:
    opened = None
    if stored.sealed is not None and stored.service_id is not None:
        opened = vault.open_password(stored.sealed, stored.service_id)
    return write_password(opened) if opened is not None else dict.fromkeys(SECRET_COLUMNS, "")
