"""Realms: whose services they name, how a name of theirs is looked up, and what a new service gets by default."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sms_aaa.db import nas as db_nas
from sms_aaa.db import plans as db_plans
from sms_aaa.db import realms as db_realms
from sms_aaa.db.engine import UniqueViolation
from sms_aaa.flows.provisioning.desk import Desk, Invalid, Refused, RefusedKind
from sms_aaa.rules.realms import Realms, split_realm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.realms import RealmRow

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}")


def add_realm(desk: Desk, name: str, *, is_stripped: bool, plan: str | None, nases: Sequence[str]) -> int:
    """The id of a new realm. `plan`: for services that are added in it without one; `nases`: () for any."""
    name = name.lower()
    if not _NAME.fullmatch(name):
        raise Invalid("realm", f"{name!r} is not a realm", "write it as isp-a.example: letters, digits, `.`, `-`, `_`")
    _check_plan(desk.connection, plan)
    try:
        realm_id = db_realms.insert_realm(desk.connection, name, is_stripped=is_stripped, plan=plan)
    except UniqueViolation as taken:
        raise Refused(RefusedKind.CONFLICT, f"a realm {name} exists", "see `sms-aaa realm show`") from taken
    db_realms.replace_nases(desk.connection, realm_id, _nas_ids(desk.connection, nases))
    after = {"name": name, **_terms(is_stripped, plan, nases)}
    desk.record("added", "realm", realm_id, before=None, after=after)
    return realm_id


def set_realm(
    desk: Desk,
    name: str,
    *,
    is_stripped: bool | None = None,
    plan: str | None = None,
    nases: Sequence[str] | None = None,
) -> None:
    """Changes what is given and leaves the rest. `plan` "": none; `nases` (): any."""
    realm = get_realm(desk.connection, name)
    before = _terms(realm.is_stripped, realm.plan, realm.nases)
    after = _terms(
        realm.is_stripped if is_stripped is None else is_stripped,
        realm.plan if plan is None else plan or None,
        realm.nases if nases is None else nases,
    )
    _check_plan(desk.connection, plan or None)
    db_realms.update_realm(
        desk.connection,
        realm.id,
        is_stripped=realm.is_stripped if is_stripped is None else is_stripped,
        plan=realm.plan if plan is None else plan or None,
    )
    if nases is not None:
        db_realms.replace_nases(desk.connection, realm.id, _nas_ids(desk.connection, nases))
    desk.record("changed", "realm", realm.id, before=before, after=after)


def remove_realm(desk: Desk, name: str) -> None:
    """Its names are those of an unknown realm from now on; its services stay."""
    realm = get_realm(desk.connection, name)
    db_realms.delete_realm(desk.connection, realm.id)
    before = {"name": realm.name, **_terms(realm.is_stripped, realm.plan, realm.nases)}
    desk.record("removed", "realm", realm.id, before=before, after=None)


def get_realm(connection: Connection, name: str) -> RealmRow:
    realm = db_realms.find_realm(connection, name.lower())
    if realm is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no realm {name}", "see `sms-aaa realm list`")
    return realm


def name_service(connection: Connection, username: str) -> tuple[str, str | None]:
    """(identity, default plan) of a new service that goes by this user name, as its realm has them.

    So a service is stored under the name that a login is looked up by, however the realm is written.
    """
    parts = split_realm(username.encode())
    realm = db_realms.find_realm(connection, parts[1].decode()) if parts is not None else None
    if realm is None:
        return username, None
    named = Realms(db_realms.list_node_realms(connection, [realm.id])).find(username.encode())
    assert named is not None
    return named.identity.decode(), realm.plan


def _terms(is_stripped: bool, plan: str | None, nases: Sequence[str]) -> dict[str, object]:
    return {"stripped": is_stripped, "plan": plan, "nases": sorted(nases)}


def _check_plan(connection: Connection, plan: str | None) -> None:
    if plan is not None and db_plans.find_latest(connection, plan) is None:
        raise Refused(RefusedKind.NOT_FOUND, f"there is no plan {plan}", "see `sms-aaa plan list`")


def _nas_ids(connection: Connection, names: Sequence[str]) -> list[int]:
    found = []
    for name in dict.fromkeys(names):
        nas = db_nas.find_nas(connection, name)
        if nas is None:
            raise Refused(RefusedKind.NOT_FOUND, f"there is no NAS {name}", "see `sms-aaa nas list`")
        found.append(nas.id)
    return found
