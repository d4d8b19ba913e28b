"""What the nodes saw of a NAS, in words: whether a Message-Authenticator can be required, a secret retired."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, Shown

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.evidence import EvidenceTotals
    from sms_aaa.db.nas import NasRow
    from sms_aaa.flows.provisioning.nas_secrets import Rotation


def evidence_cells(connection: Connection, nas: NasRow) -> dict[str, Cell]:
    """By column: the sentences for people, and what they are made of."""
    from sms_aaa.db.evidence import get_evidence
    from sms_aaa.flows.provisioning.nas_secrets import find_rotation

    now = datetime.now(UTC)
    seen = get_evidence(connection, nas.id, nas.secret_id)
    rotation = find_rotation(connection, nas)
    is_safe = seen.signed > 0 and not seen.unsigned
    verdict = ": safe to require" if is_safe else ""
    return {
        "signs_since": nas.signs_since,
        "signature_evidence": Shown("safe" if is_safe else "not safe", signature_sentence(seen) + verdict),
        "signed_requests": seen.signed,
        "unsigned_requests": seen.unsigned,
        "last_unsigned_at": seen.last_unsigned_at,
        "last_unsigned_port": seen.last_unsigned_port,
        "evidence_since": seen.since,
        "secret_since": nas.secret_since,
        "rotation": Shown(
            None if rotation.since is None else "safe" if rotation.is_safe_to_finish(now) else "not safe",
            rotation_sentence(rotation, now),
        ),
        "old_secret_packets": rotation.old_packets if nas.is_rotating else None,
        "new_secret_packets": rotation.new_packets if nas.is_rotating else None,
        "last_old_secret_at": rotation.last_old_at if nas.is_rotating else None,
    }


def signature_sentence(seen: EvidenceTotals) -> str:
    of = seen.signed + seen.unsigned
    if seen.since is None or not of:
        return "seen in no Access-Request yet"
    if not seen.unsigned:
        return f"sent in {seen.signed} of {of} Access-Requests since {_at(seen.since)}"
    last = f", last at {_at(seen.last_unsigned_at)}" if seen.last_unsigned_at is not None else ""
    port = f" from port {seen.last_unsigned_port}" if seen.last_unsigned_port else ""
    return f"missing in {seen.unsigned} of {of} Access-Requests since {_at(seen.since)}{last}{port}"


def rotation_sentence(rotation: Rotation, now: datetime) -> str:
    if rotation.since is None:
        return "none under way"
    of = rotation.old_packets + rotation.new_packets
    since = f"since {_at(rotation.since)}"
    if not of:
        return f"no packet {since} proved a secret"
    used = f"{rotation.new_packets} of {of} packets {since} used the new secret"
    if rotation.is_safe_to_finish(now):
        return f"{used}: safe to finish"
    return f"{used}, the old one was used at {_at(rotation.last_old_at)}" if rotation.last_old_at else used


def _at(instant: datetime | None) -> str:
    return "-" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"
