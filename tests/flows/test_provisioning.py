"""Provisioning flows: what they store, what they refuse, and the trace that each leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from make import Said, make_desk, make_nas, make_plan, make_subscriber, make_vault, record_of, utc

from sms_aaa.db import audit as db_audit
from sms_aaa.db.engine import connect
from sms_aaa.db.nas import list_node_nas
from sms_aaa.db.plans import find_in_force, list_plans
from sms_aaa.db.subscribers import find_by_name, list_entitlements
from sms_aaa.flows.provisioning.credentials import set_password
from sms_aaa.flows.provisioning.desk import Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.nas import remove_nas, set_nas
from sms_aaa.flows.provisioning.plan_changes import change_plan
from sms_aaa.flows.provisioning.subscribers import remove_subscriber, set_state
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.rules.entitlement import Dialect, ServiceState
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.flows.provisioning.desk import Desk

MARK = b"MARKED-SECRET-4711"


@pytest.fixture
def desk(database_dsn: str) -> Iterator[Desk]:
    with connect(database_dsn, name="test") as connection:
        yield make_desk(connection)
        connection.rollback()


def test_a_nas_secret_is_sealed_and_opens_for_that_nas_only(desk: Desk) -> None:
    nas_id = make_nas(desk, secret=MARK)
    [node_nas] = list_node_nas(desk.connection, None)
    assert MARK not in node_nas.secrets[0]
    opened = desk.vault.open_nas_secret(node_nas.secrets[0], nas_id)
    assert opened is not None
    assert opened.reveal() == MARK
    assert desk.vault.open_nas_secret(node_nas.secrets[0], nas_id + 1) is None
    assert make_vault(b"k" * 32).open_nas_secret(node_nas.secrets[0], nas_id) is None


def test_a_credential_is_sealed_with_its_nt_hash_and_bound_to_its_service(desk: Desk) -> None:
    make_plan(desk)
    service_id = make_subscriber(desk, password=MARK)
    [(_, identity, entitlement)] = list_entitlements(desk.connection, [service_id])
    assert identity == b"alice"
    assert MARK not in entitlement.credential
    stored = desk.vault.open_password(entitlement.credential, service_id)
    assert stored is not None
    assert stored.cleartext == MARK
    assert stored.nt_hash is not None
    assert desk.vault.open_password(entitlement.credential, service_id + 1) is None


def test_every_change_leaves_an_audit_row_and_an_event_and_no_secret(desk: Desk) -> None:
    make_nas(desk, secret=MARK)
    set_nas(desk, "bng1", dialect=Dialect.GENERIC, secret=Secret(MARK))
    make_plan(desk)
    service_id = make_subscriber(desk, password=MARK)
    set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid")
    set_state(desk, "alice", ServiceState.ACTIVE, "")
    set_password(desk, "alice", Secret(MARK))
    remove_subscriber(desk, "alice")
    remove_nas(desk, "bng1")
    actions = desk.connection.execute("select object_kind || '.' || action from audit order by id").fetchall()
    assert [row[0] for row in actions] == [
        "nas.added", "nas.changed", "plan.added", "subscriber.added", "service.suspended", "service.restored",
        "service.credential-set", "subscriber.removed", "nas.removed",
    ]  # fmt: skip
    assert desk.connection.execute("select kind from event order by id").fetchall() == actions
    assert {row[0] for row in desk.connection.execute("select distinct actor || door || ticket from audit")} == {
        "testercliT-1"
    }
    changes = db_audit.list_changes(desk.connection, "service", service_id)
    assert (changes[0].before, changes[0].after) == (
        {"state": "active", "reason": ""},
        {"state": "suspended", "reason": "unpaid"},
    )
    for table in ("audit", "event", "nas", "subscriber", "service"):
        for row in desk.connection.execute(f"select t::text from {table} t").fetchall():
            assert MARK.decode() not in row[0]


def test_states_keep_their_dates(desk: Desk) -> None:
    make_plan(desk)
    make_subscriber(desk)
    assert set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid") == 1
    assert set_state(desk, "alice", ServiceState.SUSPENDED, "unpaid") == 0
    set_state(desk, "alice", ServiceState.ACTIVE, "")
    rows = desk.connection.execute(
        "select state, upper_inf(during) from service_state order by lower(during)"
    ).fetchall()
    assert rows == [(1, False), (2, False), (1, True)]


def test_a_plan_that_did_not_change_makes_no_new_version(desk: Desk) -> None:
    make_plan(desk)
    make_plan(desk)
    make_plan(desk, sessions=2)
    rows = desk.connection.execute("select version from plan_version order by version").fetchall()
    assert rows == [(1,), (2,)]


def test_of_the_versions_whose_day_has_come_the_one_that_came_last_is_sold(desk: Desk) -> None:
    days = [utc("2024-01-01"), utc("2099-01-01"), utc("2025-01-01"), utc("2024-06-01"), utc("2025-01-01")]
    for number, day in enumerate(days):
        make_plan(desk, sessions=number, effective_at=day)
    in_force = find_in_force(desk.connection, "home-100")
    assert in_force is not None
    assert (in_force.version, in_force.is_in_force) == (5, True)
    found = [find_in_force(desk.connection, "home-100", at) for at in (utc("2023-01-01"), utc("2024-07-01"), days[1])]
    assert [row and row.version for row in found] == [None, 4, 2]
    assert [row.version for row in list_plans(desk.connection)] == [2, 5]
    assert [row.version for row in list_plans(desk.connection, is_all=True)] == [1, 2, 3, 4, 5]


def test_a_change_of_plan_gets_the_version_in_force_on_its_day(desk: Desk) -> None:
    make_plan(desk)
    make_plan(desk, name="later", effective_at=utc("2099-01-01"))
    make_plan(desk, name="later", sessions=2, effective_at=utc("2099-06-01"))
    make_subscriber(desk)
    with pytest.raises(Refused, match="not yet in force is plan later"):
        change_plan(desk, "alice", "later")
    assert change_plan(desk, "alice", "later", at=utc("2099-03-01")) == 1
    query = """select p.name, v.version from subscription s join plan_version v on v.id = s.plan_version_id
               join plan p on p.id = v.plan_id order by lower(s.during)"""
    assert desk.connection.execute(query).fetchall() == [("home-100", 1), ("later", 1)]


def test_a_removed_subscriber_frees_name_identity_and_address(desk: Desk) -> None:
    make_plan(desk)
    make_subscriber(desk, static_ipv4="198.51.100.7")
    remove_subscriber(desk, "alice")
    assert find_by_name(desk.connection, "alice") == []
    make_subscriber(desk, static_ipv4="198.51.100.7")
    assert len(find_by_name(desk.connection, "alice")) == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"name": "alice"}, "a subscriber alice exists"),
        ({"name": "bob", "static_ipv4": "198.51.100.7"}, "another service has the address"),
        ({"name": "bob", "mac": "02:00:00:00:00:01", "password": None}, "a service 020000000001 exists"),
    ],
)
def test_what_is_taken_is_refused_with_what_it_is(desk: Desk, how: dict[str, str], words: str) -> None:
    make_plan(desk)
    make_subscriber(desk, static_ipv4="198.51.100.7")
    make_subscriber(desk, name="camera", mac="02-00-00-00-00-01", password=None)
    desk.connection.commit()
    with pytest.raises(Refused, match=words) as refused:
        make_subscriber(desk, **how)  # type: ignore[arg-type] # the cases above
    assert refused.value.kind is RefusedKind.CONFLICT


@pytest.mark.parametrize(
    ("how", "place"),
    [
        ({"password": None}, "password"),
        ({"password": b"x" * 129}, "password"),
        ({"mac": "not a mac"}, "mac"),
        ({"static_ipv4": "2001:db8::1"}, "static address"),
        ({"name": " alice"}, "name"),
        ({"zone": "Atlantis/Poseidonis"}, "zone"),
        ({"name": "ali\x00ce"}, "name"),
    ],
)
def test_a_wrong_value_names_its_place(desk: Desk, how: dict[str, object], place: str) -> None:
    make_plan(desk)
    with pytest.raises(Invalid) as invalid:
        make_subscriber(desk, **how)  # type: ignore[arg-type] # the cases above
    assert invalid.value.place == place


def test_a_nas_wants_a_secret_of_some_length_and_a_real_prefix(desk: Desk) -> None:
    with pytest.raises(Invalid, match="secret"):
        make_nas(desk, secret=b"short")
    with pytest.raises(Invalid, match="has host bits set"):
        make_nas(desk, prefix="192.0.2.1/24")


@pytest.mark.parametrize("name", ["nobody"])
def test_what_is_not_there_is_refused_as_not_found(desk: Desk, name: str) -> None:
    for flow in (
        lambda: set_state(desk, name, ServiceState.ACTIVE, ""),
        lambda: remove_subscriber(desk, name),
        lambda: remove_nas(desk, name),
        lambda: set_nas(desk, name),
        lambda: set_password(desk, name, Secret(b"x")),
        lambda: make_subscriber(desk, plan=name),
    ):
        with pytest.raises(Refused) as refused:
            flow()
        assert refused.value.kind is RefusedKind.NOT_FOUND


def test_a_nas_that_comes_back_is_the_same_one_so_that_its_sessions_go_on(desk: Desk) -> None:
    first = make_nas(desk)
    remove_nas(desk, "bng1")
    assert make_nas(desk, name="bng1-again") == first
    assert make_nas(desk, name="other", prefix="127.0.0.2") != first


def test_a_nas_with_live_sessions_does_not_become_a_prefix(desk: Desk) -> None:
    nas_id = make_nas(desk)
    set_nas(desk, "bng1", prefix="127.0.0.0/30")
    set_nas(desk, "bng1", prefix="127.0.0.1")
    place, record = record_of(Said(status="start", at=utc("2026-11-10 12:00:00")), nas_id=nas_id, offset=64)
    settle_accounting(desk.connection, [(place, record)], single_nas={nas_id: True})
    with pytest.raises(Refused, match="has 1 live sessions"):
        set_nas(desk, "bng1", prefix="127.0.0.0/30")
