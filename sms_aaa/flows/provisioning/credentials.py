"""Credentials: what a service that logs in by user name is proved by, in whatever form it came.

A credential is read and judged before anything is stored: one that no login could ever match is refused here. It is
sealed as it came; no command and no listing brings it out again, only its form, its age and what it can serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.db import subscribers as db_subscribers
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.radius.hashes import Form
from sms_aaa.radius.slow_text import TextFault
from sms_aaa.radius.stored_text import parse_stored
from sms_aaa.rules.entitlement import IdentityKind

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.radius.credentials import Method, StoredPassword
    from sms_aaa.rules.secret import Secret


@dataclass(frozen=True, slots=True)
class KnownCredential:
    """What may be said of a credential. `stored` None: this node's key does not open it."""

    identity: str
    form: Form
    changed_at: datetime
    stored: StoredPassword | None

    @property
    def methods(self) -> tuple[Method, ...]:
        return () if self.stored is None else self.stored.methods

    @property
    def cost(self) -> str:
        """Of a slow hash: its method and parameters."""
        return self.stored.hashed.cost if self.stored is not None and self.stored.hashed is not None else ""

    @property
    def is_slow(self) -> bool:
        return self.stored is not None and self.stored.is_slow


def read_credential(text: Secret, form: Form | None) -> StoredPassword:
    """What is to be stored for a text; `form` None: as its header or its beginning tells. Invalid when it is wrong."""
    found = parse_stored(text.reveal(), form)
    if isinstance(found, TextFault):
        raise Invalid("password" if form is Form.CLEARTEXT else "credential", found.reason, found.remedy)
    return found


def set_credential(desk: Desk, name: str, stored: StoredPassword) -> None:
    """Replaces the credential of a subscriber's services that log in by user name."""
    for service_id in _services_by_username(desk.connection, name):
        store_credential(desk, service_id, stored)
        desk.record("credential-set", "service", service_id, before=None, after={"form": stored.form.name.lower()})


def set_password(desk: Desk, name: str, password: Secret) -> None:
    """Replaces it by a password in the clear."""
    set_credential(desk, name, read_credential(password, Form.CLEARTEXT))


def store_credential(desk: Desk, service_id: int, stored: StoredPassword) -> None:
    sealed = desk.vault.seal_stored(stored, service_id, nonce=desk.nonce())
    db_subscribers.upsert_credential(desk.connection, service_id, form=stored.form, sealed=sealed)


def find_credentials(desk: Desk, name: str) -> list[KnownCredential]:
    """What is known of a subscriber's credentials, a service each."""
    rows = db_subscribers.list_credentials(desk.connection, _services_by_username(desk.connection, name))
    return [
        KnownCredential(
            row.identity, Form(row.form), row.changed_at, desk.vault.open_password(bytes(row.sealed), row.service_id)
        )
        for row in rows
    ]


def _services_by_username(connection: Connection, name: str) -> list[int]:
    rows = db_subscribers.find_by_name(connection, name)
    if not rows:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no subscriber {name}", "see `sms-aaa subscriber list`")
    services = [
        row.service_id for row in rows if row.service_id is not None and row.identity_kind == int(IdentityKind.USERNAME)
    ]
    if not services:
        raise Refused(
            RefusedKind.CONFLICT, f"{name} has no service that logs in by user name", "its device is its credential"
        )
    return services
