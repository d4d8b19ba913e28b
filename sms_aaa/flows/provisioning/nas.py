"""NASes: who may ask, from where, with which secret."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from sms_aaa.db import nas as db_nas
from sms_aaa.db.engine import UniqueViolation
from sms_aaa.db.session_lists import count_live_of_nas
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind, check_name
from sms_aaa.flows.provisioning.nas_secrets import check_secret, check_strength, seal_secret
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.nas import NasRow
    from sms_aaa.rules.secret import Secret


def add_nas(
    desk: Desk,
    *,
    name: str,
    prefix: str,
    secret: Secret,
    dialect: Dialect,
    message_authenticator: MessageAuthenticatorPolicy,
    coa_port: int,
    allow_weak: bool = False,
) -> int:
    """The id of a new NAS. Its secret is sealed before it reaches the database."""
    check_name("name", name)
    canonical = _prefix(prefix)
    strength = check_secret(secret, canonical, allow_weak=allow_weak)
    try:
        nas_id = db_nas.insert_nas(
            desk.connection,
            name=name,
            prefix=canonical,
            dialect=dialect,
            message_authenticator=message_authenticator,
            coa_port=coa_port,
        )
    except UniqueViolation as taken:
        raise Refused(
            RefusedKind.CONFLICT,
            f"a NAS {name} or a NAS at {canonical} exists",
            "see `sms-aaa nas list`, and remove or change that one",
        ) from taken
    db_nas.replace_secret(desk.connection, nas_id, seal_secret(desk, nas_id, secret), strength)
    after = {
        "name": name,
        "prefix": canonical,
        "dialect": dialect.value,
        "message_authenticator": message_authenticator.value,
        "coa_port": coa_port,
        "secret_strength": strength.label,
    }
    desk.record("added", "nas", nas_id, before=None, after=after)
    return nas_id


def set_nas(
    desk: Desk,
    name: str,
    *,
    prefix: str | None = None,
    secret: Secret | None = None,
    dialect: Dialect | None = None,
    message_authenticator: MessageAuthenticatorPolicy | None = None,
    coa_port: int | None = None,
    zone: str | None = None,
    allow_weak: bool = False,
) -> None:
    """Changes what is given and leaves the rest. A zone of "" is none; it counts for usage that is rated from now on.

    A secret is the one valid from now on; see nas_secrets.py for the gentle way. Another prefix, or the policy `auto`
    given anew, begins a new observation: what was sent before proves nothing of it.
    """
    nas = get_nas(desk.connection, name)
    if prefix is not None:
        _check_same_kind(desk.connection, nas, _prefix(prefix))
    after = {
        "prefix": _prefix(prefix) if prefix is not None else nas.prefix,
        "dialect": (dialect or Dialect(nas.dialect)).value,
        "message_authenticator": (message_authenticator or MessageAuthenticatorPolicy(nas.message_authenticator)).value,
        "coa_port": coa_port or nas.coa_port,
        "zone": nas.zone if zone is None else zone or None,
    }
    if zone:
        check_name("zone", zone)
    try:
        db_nas.update_nas(
            desk.connection,
            nas.id,
            prefix=str(after["prefix"]),
            dialect=Dialect(str(after["dialect"])),
            message_authenticator=MessageAuthenticatorPolicy(str(after["message_authenticator"])),
            coa_port=int(after["coa_port"] or nas.coa_port),
            zone=after["zone"] if after["zone"] is None else str(after["zone"]),
        )
    except UniqueViolation as taken:
        raise Refused(RefusedKind.CONFLICT, f"another NAS is at {after['prefix']}", "see `sms-aaa nas list`") from taken
    if message_authenticator is MessageAuthenticatorPolicy.AUTO or after["prefix"] != nas.prefix:
        db_nas.begin_observation(desk.connection, nas.id)
    if secret is None:
        check_strength(nas.secret_strength, str(after["prefix"]), allow_weak=allow_weak)
    else:
        strength = check_secret(secret, str(after["prefix"]), allow_weak=allow_weak)
        db_nas.replace_secret(desk.connection, nas.id, seal_secret(desk, nas.id, secret), strength)
    before = {
        "prefix": nas.prefix,
        "dialect": nas.dialect,
        "message_authenticator": nas.message_authenticator,
        "coa_port": nas.coa_port,
        "zone": nas.zone,
    }
    desk.record("changed", "nas", nas.id, before=before, after={**after, "secret_changed": secret is not None})


def _check_same_kind(connection: Connection, nas: NasRow, prefix: str) -> None:
    """A NAS by one address and a NAS by prefix name their sessions differently: none may run while that changes."""
    before, after = ip_network(nas.prefix), ip_network(prefix)
    live = count_live_of_nas(connection, nas.id)
    if live and (before.num_addresses == 1) != (after.num_addresses == 1):
        raise Refused(
            RefusedKind.CONFLICT,
            f"{nas.name} has {live} live sessions, which would be counted anew under {prefix}",
            "add another NAS for it, or change it when none is online",
        )


def remove_nas(desk: Desk, name: str) -> None:
    """Its packets are those of a stranger from now on; its sessions stay on record."""
    nas = get_nas(desk.connection, name)
    db_nas.mark_removed(desk.connection, nas.id)
    desk.record("removed", "nas", nas.id, before={"name": nas.name, "prefix": nas.prefix}, after=None)


def get_nas(connection: Connection, name: str) -> NasRow:
    nas = db_nas.find_nas(connection, name)
    if nas is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no NAS {name}", "see `sms-aaa nas list`")
    return nas


def _prefix(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as fault:
        raise Invalid("address", str(fault), "give an address or a prefix such as 192.0.2.0/24") from fault
