"""A NAS's shared secret: how strong it has to be, and how it is replaced without refusing a packet.

A rotation makes a second secret valid beside the first. When the NAS has it, the first is retired. What the nodes saw
tells when that is safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

from sms_aaa.db import evidence as db_evidence
from sms_aaa.db import nas as db_nas
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.rules.secret import OCTETS_ADVISED, SecretStrength, strength_of

if TYPE_CHECKING:
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.nas import NasRow
    from sms_aaa.rules.secret import Secret

SECRET_OCTETS_MIN = 8
QUIET = timedelta(minutes=10)
"""A NAS that proved the old secret this lately may do so again: a prefix has several, and not all may be changed."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What the packets of a NAS proved since a second secret became valid at `since`; None: one alone is valid."""

    since: datetime | None
    old_packets: int
    new_packets: int
    last_old_at: datetime | None
    last_new_at: datetime | None

    def is_safe_to_finish(self, now: datetime) -> bool:
        """The new one is in use, and the old one is not any more."""
        return self.new_packets > 0 and (self.last_old_at is None or self.last_old_at < now - QUIET)

    def is_safe_to_cancel(self, now: datetime) -> bool:
        return self.last_new_at is None or self.last_new_at < now - QUIET


def find_rotation(connection: Connection, nas: NasRow) -> Rotation:
    seen = db_evidence.get_evidence(connection, nas.id, nas.secret_id)
    since = nas.secret_since if nas.is_rotating else None
    return Rotation(since, seen.old_secret, seen.new_secret, seen.last_old_at, seen.last_new_at)


def check_secret(secret: Secret, prefix: str, *, allow_weak: bool) -> SecretStrength:
    """How strong it is; Invalid when it is too weak to be used at `prefix`."""
    if len(secret.reveal()) < SECRET_OCTETS_MIN:
        raise Invalid(
            "secret",
            f"it has fewer than {SECRET_OCTETS_MIN} octets",
            f"a shared secret wants {OCTETS_ADVISED} random ones or more",
        )
    strength = strength_of(secret)
    check_strength(strength.label, prefix, allow_weak=allow_weak)
    return strength


def check_strength(label: str | None, prefix: str, *, allow_weak: bool) -> None:
    """Invalid when a secret of this strength (None: it was not judged) is too weak to be used at `prefix`."""
    guessable = SecretStrength.GUESSABLE
    if label == guessable.label and not allow_weak and not ip_network(prefix).is_loopback:
        raise Invalid(
            "secret",
            f"{guessable.sentence}: whoever has it lets anybody in, and reads the passwords",
            "give --generate, or --allow-weak if there is no other way",
        )


def seal_secret(desk: Desk, nas_id: int, secret: Secret) -> bytes:
    return desk.vault.seal_nas_secret(secret, nas_id, nonce=desk.nonce())


def rotate_secret(desk: Desk, nas: NasRow, secret: Secret, *, allow_weak: bool) -> SecretStrength:
    """From now on either secret will do. How strong the new one is."""
    db_nas.lock_nas(desk.connection, nas.id)
    if nas.is_rotating:
        raise Refused(
            RefusedKind.CONFLICT,
            f"{nas.name} has two secrets already, since {nas.secret_since:%Y-%m-%d %H:%M:%SZ}",
            f"end that with `sms-aaa nas rotate-secret {nas.name} --finish` or --cancel",
        )
    strength = check_secret(secret, nas.prefix, allow_weak=allow_weak)
    if desk.vault.open_nas_secret(db_nas.get_sealed(desk.connection, nas.secret_id), nas.id) == secret:
        raise Invalid("secret", f"it is the one that {nas.name} has", "give another one")
    db_nas.insert_secret(desk.connection, nas.id, seal_secret(desk, nas.id, secret), strength)
    desk.record("rotation-begun", "nas", nas.id, before=None, after={"strength": strength.label})
    return strength


def finish_rotation(desk: Desk, nas: NasRow, *, now: datetime, anyway: bool) -> Rotation:
    """The old secret is valid no more. Refused while packets come under it, unless `anyway`."""
    rotation = _open_rotation(desk, nas)
    if not anyway and not rotation.is_safe_to_finish(now):
        used = f"{rotation.new_packets} of {rotation.old_packets + rotation.new_packets} packets used the new secret"
        last = f", the last under the old came at {rotation.last_old_at:%H:%M:%SZ}" if rotation.last_old_at else ""
        raise Refused(
            RefusedKind.CONFLICT,
            f"{used}{last}: whatever has the old one would not be answered",
            f"change it there, see `sms-aaa nas show {nas.name}`, or give --force",
        )
    db_nas.retire_older_secrets(desk.connection, nas.id, nas.secret_id)
    desk.record("rotation-finished", "nas", nas.id, before=None, after=_counts(rotation))
    return rotation


def cancel_rotation(desk: Desk, nas: NasRow, *, now: datetime, anyway: bool) -> Rotation:
    """The new secret is valid no more. Refused while packets come under it, unless `anyway`."""
    rotation = _open_rotation(desk, nas)
    if not anyway and not rotation.is_safe_to_cancel(now):
        raise Refused(
            RefusedKind.CONFLICT,
            f"{rotation.new_packets} packets used the new secret, the last at {rotation.last_new_at:%H:%M:%SZ}: "
            "whatever has it would not be answered",
            "put the old one back there, or give --force",
        )
    db_nas.retire_secret(desk.connection, nas.secret_id)
    desk.record("rotation-cancelled", "nas", nas.id, before=None, after=_counts(rotation))
    return rotation


def _open_rotation(desk: Desk, nas: NasRow) -> Rotation:
    db_nas.lock_nas(desk.connection, nas.id)
    if not nas.is_rotating:
        raise Refused(
            RefusedKind.CONFLICT,
            f"{nas.name} has one secret: no rotation is under way",
            f"begin one with `sms-aaa nas rotate-secret {nas.name} --generate`",
        )
    return find_rotation(desk.connection, nas)


def _counts(rotation: Rotation) -> dict[str, object]:
    return {"old_packets": rotation.old_packets, "new_packets": rotation.new_packets}
