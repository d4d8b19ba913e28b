"""Blocks, dates, bindings and realms: what they store and refuse, the trace they leave, what the replica gets."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from make import follow, make_desk, make_nas, make_plan, make_replica, make_subscriber, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.subscribers import find_by_name, list_entitlements, stream_entitlements
from sms_aaa.db.terms import list_bindings
from sms_aaa.flows.provisioning.desk import Invalid, Refused, RefusedKind
from sms_aaa.flows.provisioning.realms import add_realm, get_realm, remove_realm, set_realm
from sms_aaa.flows.provisioning.subscribers import NewSubscriber, add_subscriber, set_state
from sms_aaa.flows.provisioning.terms import (
    BINDINGS_MAX,
    Bonds,
    bind,
    set_learning,
    set_validity,
    unbind,
    unbind_all,
    unblock,
)
from sms_aaa.flows.recording import settle_decisions
from sms_aaa.flows.replicating import Follower
from sms_aaa.node.records import DecisionBatch, DecisionRecord
from sms_aaa.node.replica import Replica
from sms_aaa.rules.entitlement import BindingKind, NodeRealm, ServiceState, Terms
from sms_aaa.rules.secret import Secret
from sms_aaa.rules.session import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sms_aaa.flows.provisioning.desk import Desk

SINCE, UNTIL = utc("2026-12-01 00:00:00"), utc("2027-01-01 00:00:00")
SUSPENDED, ACTIVE, BLOCKED = ServiceState.SUSPENDED, ServiceState.ACTIVE, ServiceState.BLOCKED


@pytest.fixture
def desk(database_dsn: str) -> Iterator[Desk]:
    with connect(database_dsn, name="test") as connection:
        desk = make_desk(connection)
        make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        yield desk
        connection.rollback()


def state_of(desk: Desk) -> tuple[int | None, str | None]:
    [row] = find_by_name(desk.connection, "alice")
    return row.state, row.state_reason


def terms_of(desk: Desk) -> Terms | None:
    [row] = find_by_name(desk.connection, "alice")
    assert row.service_id is not None
    [(_, _, entitlement)] = list_entitlements(desk.connection, [row.service_id])
    assert [(entitlement.service_id, entitlement.terms)] == [
        (one[2].service_id, one[2].terms) for page in stream_entitlements(desk.connection, page=9) for one in page
    ]
    return entitlement.terms


def actions(desk: Desk) -> list[tuple[str, object, object]]:
    rows = desk.connection.execute("select action, before, after from audit where object_kind = 'service' order by id")
    return [(row[0], row[1], row[2]) for row in rows.fetchall()]


def test_a_block_is_neither_suspended_nor_restored_away(desk: Desk) -> None:
    set_state(desk, "alice", BLOCKED, "spam")
    for state in (SUSPENDED, ACTIVE):
        with pytest.raises(Refused, match=r"alice is blocked \(spam\); `sms-aaa subscriber unblock`") as refused:
            set_state(desk, "alice", state, "")
        assert refused.value.kind is RefusedKind.CONFLICT
    assert state_of(desk) == (BLOCKED, "spam")
    assert unblock(desk, "alice") is ACTIVE
    assert unblock(desk, "alice") is None
    assert [action for action, _, _ in actions(desk)] == ["blocked", "unblocked"]


def test_unblocking_leaves_a_service_as_it_was_before_the_block(desk: Desk) -> None:
    set_state(desk, "alice", SUSPENDED, "unpaid")
    set_state(desk, "alice", BLOCKED, "spam")
    assert unblock(desk, "alice") is SUSPENDED
    assert state_of(desk) == (SUSPENDED, "unpaid")
    set_state(desk, "alice", ACTIVE, "")
    assert state_of(desk) == (ACTIVE, "")


def test_a_service_without_terms_has_none(desk: Desk) -> None:
    assert terms_of(desk) is None


def test_dates_reach_the_entitlement_as_epoch_seconds_and_are_cleared(desk: Desk) -> None:
    assert set_validity(desk, "alice", valid_from=SINCE, valid_until=UNTIL) == 1
    assert set_validity(desk, "alice", valid_from=SINCE, valid_until=UNTIL) == 0
    assert terms_of(desk) == Terms(valid_from=int(SINCE.timestamp()), valid_until=int(UNTIL.timestamp()))
    assert set_validity(desk, "alice", valid_from=None, valid_until=UNTIL) == 1
    assert terms_of(desk) == Terms(valid_until=int(UNTIL.timestamp()))
    assert set_validity(desk, "alice", valid_from=None, valid_until=None) == 1
    assert terms_of(desk) is None
    assert actions(desk)[0] == (
        "validity-set",
        {"valid_from": None, "valid_until": None},
        {"valid_from": "2026-12-01T00:00:00+00:00", "valid_until": "2027-01-01T00:00:00+00:00"},
    )


def test_a_service_does_not_end_before_it_begins(desk: Desk) -> None:
    with pytest.raises(Invalid, match="not after the beginning"):
        set_validity(desk, "alice", valid_from=UNTIL, valid_until=UNTIL)


def test_bindings_are_canonical_come_once_and_go(desk: Desk) -> None:
    nas_id = make_nas(desk, name="bng2", prefix="127.0.0.2")
    bonds = Bonds(macs=["02-00-00-00-00-AB", "0200.0000.00ab"], nases=["bng2"], ports=["ge-0/0/1", "0x0004AB"])
    assert bind(desk, "alice", bonds) == 4
    assert bind(desk, "alice", bonds) == 0
    assert terms_of(desk) == Terms(nas_ids=(nas_id,), ports=(b"0x0004ab", b"ge-0/0/1"), macs=(b"0200000000ab",))
    [row] = find_by_name(desk.connection, "alice")
    assert row.service_id is not None
    shown = [
        (binding.kind, binding.nas or binding.value) for binding in list_bindings(desk.connection, [row.service_id])
    ]
    assert shown == [(1, "0200000000ab"), (2, "bng2"), (3, "0x0004ab"), (3, "ge-0/0/1")]
    assert unbind(desk, "alice", Bonds(macs=["02:00:00:00:00:ab"], ports=["0X0004AB", "never bound"])) == 2
    assert unbind_all(desk, "alice", [BindingKind.MAC]) == 0
    assert unbind_all(desk, "alice", list(BindingKind)) == 2
    assert terms_of(desk) is None
    assert [(action, before, after) for action, before, after in actions(desk)][:2] == [
        ("bound", None, {"mac": "0200000000ab"}), ("bound", None, {"nas": "bng2"})
    ]  # fmt: skip
    assert actions(desk)[-1] == ("unbound", {"port": "ge-0/0/1"}, None)


@pytest.mark.parametrize(
    ("bonds", "outcome", "said"),
    [
        (Bonds(macs=["00:11"]), Invalid, "is not a hardware address"),
        (Bonds(nases=["nosuch"]), Refused, "there is no NAS nosuch"),
        (Bonds(ports=[""]), Invalid, "port"),
        (Bonds(ports=["x" * 254]), Invalid, "port"),
        (Bonds(ports=[f"port {n}" for n in range(BINDINGS_MAX + 1)]), Refused, "32 is the most"),
    ],
)
def test_what_cannot_be_bound_is_refused_with_its_place(
    desk: Desk, bonds: Bonds, outcome: type[Exception], said: str
) -> None:
    with pytest.raises(outcome, match=said):
        bind(desk, "alice", bonds)


def decided(service_id: int, station: bytes, *, after: float, accepted: bool = True) -> tuple[Place, DecisionBatch]:
    """A login `after` seconds from now."""
    record = DecisionRecord(1, service_id, 1, 0 if accepted else 28, 1, b"alice", station, b"", b"t" * accepted, 0, 1)
    return Place("node1", 1, 64), DecisionBatch(time.time_ns() + int(after * 1e9), 0, [record])


def macs_of(desk: Desk) -> tuple[bytes, ...]:
    terms = terms_of(desk)
    return terms.macs if terms is not None else ()


def test_a_service_that_learns_is_bound_to_the_device_of_its_first_login_from_then_on(desk: Desk) -> None:
    create_ahead(desk.connection, datetime.now(UTC))
    [row] = find_by_name(desk.connection, "alice")
    assert row.service_id is not None
    first, second = b"02-00-00-00-00-01", b"02-00-00-00-00-02"
    settle_decisions(desk.connection, [decided(row.service_id, first, after=0)])
    assert macs_of(desk) == ()
    assert set_learning(desk, "alice", learns=True) == 1
    assert set_learning(desk, "alice", learns=True) == 0
    logins = [
        decided(row.service_id, first, after=-60),
        decided(row.service_id, first, after=1, accepted=False),
        decided(row.service_id, b"no hardware address", after=2),
        decided(row.service_id, second, after=3),
        decided(row.service_id, first, after=4),
    ]
    settle_decisions(desk.connection, logins)
    assert macs_of(desk) == (b"020000000002",)
    settle_decisions(desk.connection, [decided(row.service_id, first, after=5)])
    assert macs_of(desk) == (b"020000000002",)
    learned = desk.connection.execute("select actor, door, after from audit where actor <> 'tester'").fetchall()
    assert learned == [("first-login", "server", {"mac": "020000000002"})]


def test_after_an_exchange_of_the_modem_a_late_decision_does_not_bring_the_old_one_back(desk: Desk) -> None:
    create_ahead(desk.connection, datetime.now(UTC))
    [row] = find_by_name(desk.connection, "alice")
    assert row.service_id is not None
    set_learning(desk, "alice", learns=True)
    late = decided(row.service_id, b"02-00-00-00-00-01", after=0)
    bind(desk, "alice", Bonds(macs=["02:00:00:00:00:01"]))
    assert unbind_all(desk, "alice", [BindingKind.MAC]) == 1
    settle_decisions(desk.connection, [late])
    assert macs_of(desk) == ()
    settle_decisions(desk.connection, [decided(row.service_id, b"02-00-00-00-00-02", after=1)])
    assert macs_of(desk) == (b"020000000002",)
    assert unbind(desk, "alice", Bonds(macs=["02:00:00:00:00:02"])) == 1
    assert set_learning(desk, "alice", learns=False) == 1
    settle_decisions(desk.connection, [decided(row.service_id, b"02-00-00-00-00-02", after=2)])
    assert macs_of(desk) == ()


def test_a_realm_names_services_gives_a_plan_and_changes(desk: Desk) -> None:
    make_plan(desk, name="wholesale")
    realm_id = add_realm(desk, "ISP-A.example", is_stripped=False, plan="wholesale", nases=["bng1"])
    add_subscriber(desk, newcomer("bob", username="ISP-A.Example\\bob"))
    add_subscriber(desk, newcomer("carol", username="carol@ISP-A.EXAMPLE", plan="home-100"))
    assert [(row.identity, row.plan) for name in ("bob", "carol") for row in find_by_name(desk.connection, name)] == [
        ("bob@isp-a.example", "wholesale"),
        ("carol@isp-a.example", "home-100"),
    ]
    set_realm(desk, "isp-a.example", is_stripped=True, plan="", nases=())
    realm = get_realm(desk.connection, "ISP-A.EXAMPLE")
    assert (realm.is_stripped, realm.plan, realm.nases) == (True, None, [])
    add_subscriber(desk, newcomer("dave@isp-a.example", plan="home-100"))
    assert [row.identity for row in find_by_name(desk.connection, "dave@isp-a.example")] == ["dave"]
    with pytest.raises(Invalid, match="plan: none is given"):
        add_subscriber(desk, newcomer("erin@isp-a.example"))
    remove_realm(desk, "isp-a.example")
    with pytest.raises(Refused, match="there is no realm isp-a"):
        get_realm(desk.connection, "isp-a.example")
    rows = desk.connection.execute("select action, object_id from audit where object_kind = 'realm' order by id")
    assert rows.fetchall() == [("added", realm_id), ("changed", realm_id), ("removed", realm_id)]


@pytest.mark.parametrize(
    ("name", "plan", "nases", "outcome"),
    [
        ("", None, (), Invalid), ("isp a", None, (), Invalid), ("@isp", None, (), Invalid),
        ("x" * 128, None, (), Invalid),
        ("isp-a", "nosuch", (), Refused), ("isp-a", None, ("nosuch",), Refused), ("taken", None, (), Refused),
    ],
)  # fmt: skip
def test_what_cannot_be_a_realm_is_refused(
    desk: Desk, name: str, plan: str | None, nases: tuple[str, ...], outcome: type[Exception]
) -> None:
    add_realm(desk, "taken", is_stripped=False, plan=None, nases=())
    with pytest.raises(outcome):
        add_realm(desk, name, is_stripped=False, plan=plan, nases=nases)


def test_the_replica_gets_terms_and_realms_and_loses_them(database_dsn: str, tmp_path: Path) -> None:
    with connect(database_dsn, name="test") as connection:
        desk = make_desk(connection)
        nas_id = make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        realm_id = add_realm(desk, "isp-a", is_stripped=True, plan=None, nases=["bng1"])
        bind(desk, "alice", Bonds(nases=["bng1"]))
        connection.commit()
        writer = make_replica(connection, tmp_path)
        follower = Follower(writer, writer.meta())
        found = read(tmp_path)
        assert found == (Terms(nas_ids=(nas_id,)), [NodeRealm(realm_id, "isp-a", True, (nas_id,))])
        for change, expected in (
            (lambda: set_validity(desk, "alice", valid_from=None, valid_until=UNTIL), 1),
            (lambda: unbind(desk, "alice", Bonds(nases=["bng1"])), 1),
            (lambda: set_realm(desk, "isp-a", nases=()), 1),
        ):
            change()
            connection.commit()
            assert follow(connection, follower) == expected
        until = int(UNTIL.timestamp())
        assert read(tmp_path) == (Terms(valid_until=until), [NodeRealm(realm_id, "isp-a", True, ())])
        remove_realm(desk, "isp-a")
        connection.commit()
        follow(connection, follower)
        assert read(tmp_path) == (Terms(valid_until=until), [])
        writer.close()


def test_the_schema_refuses_an_end_before_the_beginning_and_a_mac_that_is_none(desk: Desk) -> None:
    import psycopg

    for statement in (
        "update service set valid_from = now(), valid_until = now() - interval '1 day'",
        "insert into service_binding (service_id, kind, value) select id, 1, '00:11:22:33:44:55' from service",
        "insert into service_binding (service_id, kind, value) select id, 2, 'bng1' from service",
        "insert into realm (name, is_stripped) values ('ISP', false)",
    ):
        with pytest.raises(psycopg.errors.CheckViolation), desk.connection.transaction():
            desk.connection.execute(statement)


def newcomer(name: str, *, username: str | None = None, plan: str | None = None) -> NewSubscriber:
    return NewSubscriber(name=name, username=username, plan=plan, password=Secret(b"x"), zone="UTC", anchor_day=1)


def read(folder: Path) -> tuple[Terms | None, list[NodeRealm]]:
    replica = Replica.open(folder)
    assert isinstance(replica, Replica)
    with replica.read() as view:
        found = view.entitlement(1, b"alice")
    realms = replica.realms()
    replica.close()
    return found.terms, realms
