"""`replica status|verify|rebuild` as typed, over a replica that nobody follows: with the server, test_replica_story."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from make import make_replica

from sms_aaa.cli import replica as cli_replica
from sms_aaa.cli.exits import Exit
from sms_aaa.db.engine import connect
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_writer import Applied, EntitlementChange, ReplicaChanges, ReplicaWriter

if TYPE_CHECKING:
    from pathlib import Path

AWAY = {"SMS_AAA_DATABASE_DSN": "postgresql:///nowhere?host=/nonexistent"}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch):
    monkeypatch.setattr(cli_replica, "FOLLOW_SECONDS_MAX", 0.1)


@pytest.fixture
def filled(stocked, node, database_dsn):
    """The stocked terminal, and a replica of its database."""
    with connect(database_dsn, name="test") as connection:
        make_replica(connection, node.folder, database_id=node.database_id).close()
    return stocked


def read(folder: Path) -> Replica:
    replica = Replica.open(folder)
    assert isinstance(replica, Replica)
    return replica


def plant(node, **parts) -> None:
    """Writes into the replica what is not in PostgreSQL."""
    writer = ReplicaWriter.open(node.folder, database_id=node.database_id)
    assert isinstance(writer, ReplicaWriter)
    meta = writer.meta()
    changes = ReplicaChanges(cursor=meta.cursor, refreshed_ns=meta.refreshed_ns, dated_us=meta.dated_us, **parts)
    assert isinstance(writer.apply(changes), Applied)
    writer.close()


def alice(node) -> EntitlementChange:
    replica = read(node.folder)
    with replica.read() as view:
        found = view.entitlement(1, b"alice")
    replica.close()
    return EntitlementChange(1, b"alice", found)


def verified(terminal) -> list[tuple[str, str, str, str]]:
    answer = terminal.type("replica", "verify", "--json")
    said = answer.json()
    assert answer.code == (Exit.DIFFERENT if said["differences"] else Exit.OK)
    return [(one["kind"], one["name"], one["difference"], one["fields"]) for one in said["differences"]]


def test_a_replica_that_is_right_has_no_difference(filled):
    answer = filled.type("replica", "verify")
    assert answer.code == 0
    assert answer.lines == ["no difference"]
    assert "2 services compared, 0 differences" in answer.err


def test_a_service_that_is_not_here_is_named_missing(filled, node):
    plant(node, removed_services=[alice(node).entitlement.service_id])
    assert verified(filled) == [("service", "alice", "missing-here", None)]


def test_a_stale_service_is_named_with_its_fields_and_no_value(filled, node):
    held = alice(node)
    stale = msgspec.structs.replace(held.entitlement, state=2, credential=b"another", static_ipv4=7)
    plant(node, entitlements=[EntitlementChange(1, b"alice", stale)])
    assert verified(filled) == [("service", "alice", "stale", "state, credential, static_ipv4")]
    assert held.entitlement.credential.hex() not in "".join(filled.transcript)
    assert "another" not in "".join(filled.transcript)


def test_a_service_that_postgresql_has_not_is_named_wherever_it_stands_in_the_order(filled, node):
    strangers = [b"!first", b"alice2", b"zz-last"]
    rights = alice(node).entitlement
    plant(
        node,
        entitlements=[
            EntitlementChange(1, name, msgspec.structs.replace(rights, service_id=1_000 + at))
            for at, name in enumerate(strangers)
        ],
    )
    assert verified(filled) == [("service", name.decode(), "not-in-postgresql", None) for name in strangers]


def test_a_service_under_another_identity_is_missing_and_foreign(filled, node):
    plant(node, entitlements=[EntitlementChange(1, b"alicia", alice(node).entitlement)])
    assert verified(filled) == [
        ("service", "alice", "missing-here", None),
        ("service", "alicia", "not-in-postgresql", None),
    ]


def test_a_damaged_record_is_named_damaged(filled, node):
    writer = ReplicaWriter.open(node.folder, database_id=node.database_id)
    tables = writer.databases
    with tables.env.begin(write=True) as transaction:
        record = bytearray(transaction.get(b"\x01alice", db=tables.identities))
        record[3] ^= 1
        transaction.put(b"\x01alice", bytes(record), db=tables.identities)
    writer.close()
    assert verified(filled) == [("service", "alice", "damaged", None)]


def test_a_service_that_its_id_does_not_lead_to_is_damaged(filled, node):
    writer = ReplicaWriter.open(node.folder, database_id=node.database_id)
    tables = writer.databases
    with tables.env.begin(write=True) as transaction:
        transaction.delete(alice_id(tables, transaction), db=tables.services)
    writer.close()
    assert verified(filled) == [("service", "alice", "damaged", None)]


def alice_id(tables, transaction) -> bytes:
    return next(key for key, value in transaction.cursor(db=tables.services) if value == b"\x01alice")


def test_plans_and_nases_are_compared_too(filled, node):
    replica = read(node.folder)
    (plan,), (nas,) = replica.plans(), replica.nas_list()
    replica.close()
    other = msgspec.structs.replace(plan, plan_version_id=99, name="ghost", version=3)
    plant(node, plans=[other], nases=[msgspec.structs.replace(nas, coa_port=1700, secrets=[b"x"])])
    assert verified(filled) == [
        ("nas", "bng1", "stale", "secrets, coa_port"),
        ("plan", "ghost version 3", "not-in-postgresql", None),
    ]
    plant(node, removed_nases=[nas.nas_id])
    assert ("nas", "bng1", "missing-here", None) in verified(filled)


def test_differences_come_as_csv_too(filled, node):
    plant(node, removed_services=[alice(node).entitlement.service_id])
    (row,) = filled.type("replica", "verify", "--csv").csv()
    assert (row["kind"], row["name"], row["difference"]) == ("service", "alice", "missing-here")


def test_what_was_verified_last_is_in_the_status(filled, node):
    before = filled.type("replica", "status", "--json").json()
    assert (before["verified_at"], before["verified_differences"]) == (None, None)
    plant(node, removed_services=[alice(node).entitlement.service_id])
    assert filled.type("replica", "verify").code == Exit.DIFFERENT
    after = filled.type("replica", "status", "--json").json()
    assert after["verified_at"] is not None
    assert after["verified_differences"] == 1


def test_the_status_without_a_server_says_what_the_disk_knows(filled):
    said = filled.type("replica", "status", "--json").json()
    assert (said["state"], said["services"], said["plans"], said["nases"]) == ("readable", 2, 1, 1)
    assert said["generation"] == "generation-0000000001"
    assert said["disk_octets"] > 4096
    assert said["waiting_changes"] == 0
    assert said["filling"] is None
    filled.done("subscriber", "suspend", "alice", "--reason", "unpaid")
    assert filled.type("replica", "status", "--json").json()["waiting_changes"] == 1


def test_the_status_while_postgresql_is_away_says_that_it_does_not_know_what_waits(filled):
    answer = filled.type("replica", "status", **AWAY)
    assert answer.code == 0
    assert "not known: the database is away" in answer.out
    assert filled.type("replica", "verify", **AWAY).code == Exit.UNAVAILABLE


def test_without_a_replica_the_status_and_the_check_say_so(stocked):
    for verb in ("status", "verify"):
        answer = stocked.type("replica", verb)
        assert answer.code == Exit.UNAVAILABLE
        assert "there is no replica yet" in answer.err


def test_a_replica_of_another_database_is_not_compared(stocked, node, database_dsn):
    with connect(database_dsn, name="test") as connection:
        make_replica(connection, node.folder, database_id=bytes(16)).close()
    answer = stocked.type("replica", "verify")
    assert answer.code == Exit.CONFLICT
    assert "another database" in answer.err


def test_a_rebuild_needs_the_server(filled):
    answer = filled.type("replica", "rebuild", "--yes")
    assert answer.code == Exit.UNAVAILABLE
    assert "the replicator does not run" in answer.err
