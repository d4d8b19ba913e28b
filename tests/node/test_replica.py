"""The replica: readers see whole change sets, a rebuild is switched to under them, and damage is a value."""

from __future__ import annotations

import multiprocessing
import os
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from sms_aaa.node.environment import StoreFaultKind
from sms_aaa.node.replica import IDENTITY_OCTETS_MAX, Replica, ReplicaFault, ReplicaMeta
from sms_aaa.node.replica_digest import seal
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_scrub import Scrubber
from sms_aaa.node.replica_writer import CHANGES_MAX, Applied, EntitlementChange, ReplicaChanges, ReplicaWriter
from sms_aaa.rules.entitlement import (
    Dialect,
    Entitlement,
    IdentityKind,
    MessageAuthenticatorPolicy,
    NodeNas,
    NodePlan,
    Policy,
    ServiceState,
)

if TYPE_CHECKING:
    from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")
DATABASE_ID = bytes(range(16))
USERNAME, MAC = IdentityKind.USERNAME, IdentityKind.MAC
PLAN = NodePlan(5, "Fibre 100", 2, Policy(rate_up_kbps=20_000, rate_down_kbps=100_000))
NAS = NodeNas(3, "bng-1", "192.0.2.1/32", [b"new", b"old"], Dialect.MIKROTIK, MessageAuthenticatorPolicy.AUTO, 3799)
SECOND = 1_000_000_000


def rights(service_id: int, *, state: ServiceState = ServiceState.ACTIVE) -> Entitlement:
    return Entitlement(service_id, service_id + 100, 5, state, b"sealed", 0xC0000207)


def change(service_id: int, identity: bytes, *, kind: IdentityKind = USERNAME) -> EntitlementChange:
    return EntitlementChange(kind, identity, rights(service_id))


def changes(**parts) -> ReplicaChanges:
    return ReplicaChanges(**({"cursor": "10:20:", "refreshed_ns": 7, "dated_us": 8} | parts))


def fill(
    root: Path,
    entitlements=(),
    plans=(),
    nases=(),
    realms=(),
    *,
    database_id: bytes = DATABASE_ID,
    schema_version: int = 4,
) -> ReplicaWriter:
    """A new generation with these parts, not current yet."""
    filler = ReplicaFiller.begin(root, database_id=database_id, schema_version=schema_version)
    assert isinstance(filler, ReplicaFiller), filler
    ordered = sorted(entitlements, key=lambda one: (one.kind, one.identity))
    assert filler.put_tables(plans, nases, realms) is None
    assert filler.put_records(ordered) is None
    keys = sorted((one.entitlement.service_id, one.kind, one.identity) for one in ordered)
    assert filler.put_keys(keys) is None
    writer = filler.finish(cursor="10:20:", refreshed_ns=7, dated_us=8)
    assert isinstance(writer, ReplicaWriter), writer
    return writer


def build(root: Path, *, database_id: bytes = DATABASE_ID, **parts) -> None:
    """A new generation with these parts, current and closed: one process opens an environment once."""
    writer = fill(root, database_id=database_id, **parts)
    assert writer.make_current() is None
    writer.close()


def apply(root: Path, **parts) -> Applied | ReplicaFault:
    writer = ReplicaWriter.open(root, database_id=DATABASE_ID)
    applied = writer.apply(changes(**parts))
    assert isinstance(scrub(writer), list)
    writer.close()
    return applied


def scrub(writer: ReplicaWriter, buckets_max: int = 1) -> list[int] | ReplicaFault:
    """How many services each slice of a whole pass had."""
    scrubber, services = Scrubber(writer.databases), []
    while not isinstance(looked := scrubber.look(buckets_max), ReplicaFault):
        services.append(looked.services)
        if looked.ends_pass:
            return services
    return looked


def apply_in_another_process(root: Path, **parts) -> None:
    worker = SPAWN.Process(target=apply, args=(root,), kwargs=parts)
    worker.start()
    worker.join()
    assert worker.exitcode == 0


def found(root: Path, identity: bytes, kind: IdentityKind = USERNAME) -> int | None:
    """The service id behind an identity."""
    replica = Replica.open(root)
    with replica.read() as view:
        entitlement = view.entitlement(kind, identity)
    replica.close()
    return None if entitlement is None else entitlement.service_id


@pytest.fixture
def open_replica(tmp_path):
    opened = []

    def make() -> Replica:
        opened.append(Replica.open(tmp_path))
        assert isinstance(opened[-1], Replica), opened[-1]
        return opened[-1]

    yield make
    for replica in opened:
        replica.close()


# What is written is read


def test_what_the_replicator_wrote_a_worker_reads(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada"), change(2, b"001122334455", kind=MAC)], plans=[PLAN], nases=[NAS])
    replica = open_replica()
    with replica.read() as view:
        assert view.entitlement(USERNAME, b"ada") == rights(1)
        assert view.entitlement(MAC, b"001122334455") == rights(2)
        assert view.entitlement(MAC, b"ada") is None
        assert view.entitlement(USERNAME, b"Ada") is None
        assert view.entitlement(USERNAME, b"") is None
        assert view.tables_version() == 1
    assert replica.plans() == [PLAN]
    assert replica.nas_list() == [NAS]
    assert replica.meta() == ReplicaMeta("10:20:", 7, DATABASE_ID, 4, 8)


def test_a_view_sees_one_instant_and_the_next_view_the_next(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada")])
    replica = open_replica()
    with replica.read() as view:
        apply_in_another_process(tmp_path, entitlements=[change(2, b"bob")], cursor="11:20:", plans=[PLAN])
        assert view.entitlement(USERNAME, b"bob") is None
        assert view.tables_version() == 1
    with replica.read() as view:
        assert view.entitlement(USERNAME, b"bob") == rights(2)
        assert view.tables_version() == 2
    assert replica.meta().cursor == "11:20:"
    assert not replica.switched(0)


def test_a_service_that_changes_its_identity_leaves_the_old_one(tmp_path):
    build(tmp_path, entitlements=[change(1, b"ada")])
    apply(tmp_path, entitlements=[change(1, b"ada.lovelace")])
    assert (found(tmp_path, b"ada"), found(tmp_path, b"ada.lovelace")) == (None, 1)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_services_that_swap_their_identities_in_one_change_set_both_have_one(tmp_path, order):
    build(tmp_path, entitlements=[change(1, b"ada"), change(2, b"bob")])
    swapped = {1: change(1, b"bob"), 2: change(2, b"ada")}
    apply(tmp_path, entitlements=[swapped[service_id] for service_id in order])
    assert (found(tmp_path, b"ada"), found(tmp_path, b"bob")) == (2, 1)


def test_a_removed_service_is_gone_and_its_identity_is_free(tmp_path):
    build(tmp_path, entitlements=[change(1, b"ada")])
    apply(tmp_path, removed_services=[1, 99], entitlements=[change(2, b"ada")])
    assert found(tmp_path, b"ada") == 2
    apply(tmp_path, removed_services=[1])
    assert found(tmp_path, b"ada") == 2
    apply(tmp_path, removed_services=[2])
    assert found(tmp_path, b"ada") is None


def test_a_removed_nas_is_gone(tmp_path, open_replica):
    build(tmp_path, nases=[NAS, msgspec.structs.replace(NAS, nas_id=4)])
    apply(tmp_path, removed_nases=[3])
    assert [nas.nas_id for nas in open_replica().nas_list()] == [4]


def test_only_plans_and_nases_make_workers_load_their_tables_again(tmp_path):
    build(tmp_path, plans=[PLAN])
    versions = []
    for parts in ({"entitlements": [change(1, b"a")]}, {"nases": [NAS]}, {"removed_nases": [3]}, {"plans": [PLAN]}):
        apply(tmp_path, **parts)
        writer = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
        versions.append(writer.tables_version())
        writer.close()
    assert versions == [1, 2, 3, 4]


def test_an_identity_that_no_login_can_bring_is_refused_and_the_others_are_stored(tmp_path):
    longest, too_long = b"x" * IDENTITY_OCTETS_MAX, b"x" * (IDENTITY_OCTETS_MAX + 1)
    build(tmp_path, entitlements=[change(2, b"bob")])
    applied = apply(tmp_path, entitlements=[change(1, too_long), change(2, b""), change(3, longest)])
    assert applied == Applied((1, 2))
    assert (found(tmp_path, too_long), found(tmp_path, longest), found(tmp_path, b"bob")) == (None, 3, None)


def test_a_change_set_beyond_its_bound_is_refused_whole(tmp_path):
    build(tmp_path)
    fault = apply(tmp_path, removed_services=range(CHANGES_MAX + 1), entitlements=[change(1, b"ada")])
    assert fault.kind is StoreFaultKind.TOO_MANY
    assert found(tmp_path, b"ada") is None


def test_a_cursor_is_stored_with_its_changes_or_not_at_all(tmp_path, open_replica):
    build(tmp_path)
    writer = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
    with pytest.raises(AttributeError):  # a bug of ours in the middle of a change set
        writer.apply(changes(cursor="99:99:", entitlements=[change(1, b"ada"), None]))
    writer.close()
    replica = open_replica()
    assert replica.meta().cursor == "10:20:"
    with replica.read() as view:
        assert view.entitlement(USERNAME, b"ada") is None


# Rebuild and switch


def test_a_rebuild_is_seen_when_it_is_whole_and_not_before(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada")])
    old = open_replica()
    writer = fill(tmp_path, [change(2, b"bob")], schema_version=5)
    assert not old.switched(0)
    with old.read() as view:
        assert writer.make_current() is None
        assert view.entitlement(USERNAME, b"ada") == rights(1)
    writer.close()
    assert old.switched(SECOND)
    with old.read() as view:  # its folder is gone, its pages are not
        assert view.entitlement(USERNAME, b"ada") == rights(1)
    new = open_replica()
    assert not new.switched(0)
    assert new.generation != old.generation
    assert new.meta().schema_version == 5
    with new.read() as view:
        assert view.entitlement(USERNAME, b"ada") is None
        assert view.entitlement(USERNAME, b"bob") == rights(2)


def test_a_switch_is_looked_for_once_a_second(tmp_path, open_replica):
    build(tmp_path)
    replica = open_replica()
    assert not replica.switched(10 * SECOND)
    build(tmp_path)
    assert not replica.switched(11 * SECOND - 1)
    assert replica.switched(11 * SECOND)


def test_old_and_unfinished_generations_are_removed(tmp_path):
    build(tmp_path)
    ReplicaFiller.begin(tmp_path, database_id=DATABASE_ID, schema_version=4).close()
    build(tmp_path)
    names = sorted(path.name for path in (tmp_path / "replica").iterdir())
    assert names == ["CURRENT", "generation-0000000003"]


def test_a_generation_that_is_given_up_leaves_the_disk(tmp_path):
    filler = ReplicaFiller.begin(tmp_path, database_id=DATABASE_ID, schema_version=4)
    filler.put_records([change(1, b"ada")])
    filler.discard()
    assert list((tmp_path / "replica").iterdir()) == []


def test_a_writer_goes_on_with_the_current_generation_after_a_restart(tmp_path):
    build(tmp_path, entitlements=[change(1, b"ada")])
    writer = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
    assert writer.meta() == ReplicaMeta("10:20:", 7, DATABASE_ID, 4, 8)
    writer.close()


# Damage


ID = b"\0\0\0\0\0\0\0%c"


def damage(record: bytes, at: int = 2) -> bytes:
    """With one bit flipped."""
    return record[:at] + bytes([record[at] ^ 0x10]) + record[at + 1 :]


def assert_fault(got: object, kind: StoreFaultKind, place: Path) -> None:
    assert isinstance(got, ReplicaFault)
    assert got.kind is kind
    assert str(place) in got.detail


def test_a_node_without_a_replica_says_so(tmp_path):
    assert_fault(Replica.open(tmp_path), StoreFaultKind.MISSING, tmp_path)
    assert_fault(ReplicaWriter.open(tmp_path, database_id=DATABASE_ID), StoreFaultKind.MISSING, tmp_path)


@pytest.mark.parametrize("octets", [b"", b"\xff" * 900, b"generation-0000000099\n", b"../../etc"])
def test_a_damaged_current_is_a_fault_and_a_rebuild_mends_it(tmp_path, octets):
    build(tmp_path, entitlements=[change(1, b"ada")])
    (tmp_path / "replica" / "CURRENT").write_bytes(octets)
    assert_fault(Replica.open(tmp_path), StoreFaultKind.DAMAGED, tmp_path)
    build(tmp_path, entitlements=[change(1, b"ada")])
    assert found(tmp_path, b"ada") == 1


def test_a_reader_keeps_what_it_has_when_current_is_damaged(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada")])
    replica = open_replica()
    (tmp_path / "replica" / "CURRENT").write_bytes(b"?")
    assert not replica.switched(0)
    with replica.read() as view:
        assert view.entitlement(USERNAME, b"ada") == rights(1)


def test_an_environment_cut_short_is_a_fault_and_not_the_end_of_the_reader(tmp_path):
    build(tmp_path, entitlements=[change(number, b"user%d" % number) for number in range(2_000)])
    data = next((tmp_path / "replica").glob("*/data.mdb"))
    os.truncate(data, data.stat().st_size // 2)
    assert_fault(Replica.open(tmp_path), StoreFaultKind.DAMAGED, data.parent)
    assert_fault(ReplicaWriter.open(tmp_path, database_id=DATABASE_ID), StoreFaultKind.DAMAGED, data.parent)


def test_an_environment_of_other_octets_is_a_fault(tmp_path):
    build(tmp_path)
    data = next((tmp_path / "replica").glob("*/data.mdb"))
    data.write_bytes(b"x" * 20_000)
    assert_fault(Replica.open(tmp_path), StoreFaultKind.DAMAGED, data.parent)


def test_a_damaged_record_is_a_fault_and_not_an_unknown_user(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada")], plans=[PLAN], nases=[NAS])
    writer = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
    tables = writer.databases
    with tables.env.begin(write=True) as transaction:
        for key, table in ((b"\x01ada", tables.identities), (ID % 5, tables.plans), (ID % 3, tables.nases)):
            transaction.put(key, damage(transaction.get(key, db=table)), db=table)
    writer.close()
    replica = open_replica()
    with replica.read() as view:
        assert_fault(view.entitlement(USERNAME, b"ada"), StoreFaultKind.DAMAGED, tmp_path)
    assert_fault(replica.plans(), StoreFaultKind.DAMAGED, tmp_path)
    assert_fault(replica.nas_list(), StoreFaultKind.DAMAGED, tmp_path)


@pytest.mark.parametrize("at", range(0, 90, 7))
def test_a_flipped_bit_anywhere_in_a_record_is_a_fault(tmp_path, open_replica, at):
    build(tmp_path, entitlements=[change(1, b"ada" * 30)])
    writer = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
    key, tables = b"\x01" + b"ada" * 30, writer.databases
    with tables.env.begin(write=True) as transaction:
        record = transaction.get(key, db=tables.identities)
        transaction.put(key, damage(record, at % len(record)), db=tables.identities)
    assert_fault(scrub(writer), StoreFaultKind.DAMAGED, tmp_path)
    assert_fault(writer.apply(changes(removed_services=[1])), StoreFaultKind.DAMAGED, tmp_path)
    writer.close()
    with open_replica().read() as view:
        assert_fault(view.entitlement(USERNAME, b"ada" * 30), StoreFaultKind.DAMAGED, tmp_path)


def spoil_digest(transaction, tables) -> None:
    transaction.put(ID % 0, bytes(12), db=tables.digests)


def lose_digest(transaction, tables) -> None:
    transaction.delete(ID % 1, db=tables.digests)


def lose_record(transaction, tables) -> None:
    transaction.delete(b"\x01user7", db=tables.identities)


def lose_service(transaction, tables) -> None:
    transaction.delete(ID % 7, db=tables.services)


def lose_both(transaction, tables) -> None:
    lose_record(transaction, tables)
    lose_service(transaction, tables)


def swap_records(transaction, tables) -> None:
    """Each whole by itself, and under the other's name."""
    for key, other in ((b"\x01user7", b"user8"), (b"\x01user8", b"user7")):
        record = seal(key, msgspec.msgpack.encode(rights(int(other[4:]))))
        transaction.put(key, record, db=tables.identities)


def add_record(transaction, tables) -> None:
    key = b"\x01mallory"
    transaction.put(key, seal(key, msgspec.msgpack.encode(rights(9_999))), db=tables.identities)


def lose_plan(transaction, tables) -> None:
    transaction.delete(ID % 5, db=tables.plans)


def damage_nas(transaction, tables) -> None:
    transaction.put(ID % 3, damage(transaction.get(ID % 3, db=tables.nases)), db=tables.nases)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_digest,
        lose_digest,
        lose_record,
        lose_service,
        lose_both,
        swap_records,
        add_record,
        lose_plan,
        damage_nas,
    ],
)
def test_whatever_is_not_what_was_written_is_found_by_a_pass(tmp_path, spoil):
    writer = fill(tmp_path, [change(number, b"user%d" % number) for number in range(1, 3_000)], [PLAN], [NAS])
    assert scrub(writer) == [1023, 1024, 952]
    assert scrub(writer, 16) == [2999]
    with writer.databases.env.begin(write=True) as transaction:
        spoil(transaction, writer.databases)
    assert_fault(scrub(writer), StoreFaultKind.DAMAGED, tmp_path)
    writer.close()


def test_after_random_changes_a_pass_finds_nothing_amiss(tmp_path):
    dice = random.Random(3)
    writer = fill(tmp_path, [change(number, b"user%d" % number) for number in range(500)], [PLAN])
    for _ in range(60):
        moved = {dice.randrange(4_000): b"user%d" % dice.randrange(1_500) for _ in range(dice.randrange(80))}
        taken = {identity: service_id for service_id, identity in moved.items()}
        entitlements = [change(service_id, identity) for identity, service_id in taken.items()]
        removed = [dice.randrange(4_000) for _ in range(dice.randrange(40))]
        assert isinstance(writer.apply(changes(entitlements=entitlements, removed_services=removed)), Applied)
        assert isinstance(scrub(writer), list)
    assert sum(scrub(writer)) == writer.size().services > 100
    writer.close()


def test_records_that_come_in_another_order_are_stored_all_the_same(tmp_path):
    """As from a database whose encoding sorts otherwise than UTF-8."""
    filler = ReplicaFiller.begin(tmp_path, database_id=DATABASE_ID, schema_version=4)
    names = [(3, b"c"), (1, b"a"), (2, b"b")]
    assert filler.put_records([change(*one) for one in names]) is None
    assert filler.put_keys([(number, USERNAME, name) for number, name in names]) is None
    writer = filler.finish(cursor="1:1:", refreshed_ns=1, dated_us=1)
    assert scrub(writer) == [3]
    assert writer.make_current() is None
    writer.close()
    assert [found(tmp_path, name) for _, name in names] == [3, 1, 2]


def test_an_identity_that_no_login_can_bring_does_not_stop_a_rebuild(tmp_path):
    build(tmp_path, entitlements=[change(1, b"x" * (IDENTITY_OCTETS_MAX + 1)), change(2, b"bob")])
    assert found(tmp_path, b"bob") == 2


def test_a_writer_sees_that_its_file_was_cut_before_it_touches_it(tmp_path):
    writer = fill(tmp_path, [change(number, b"user%d" % number) for number in range(2_000)])
    assert writer.find_cut() is None
    data = next((tmp_path / "replica").glob("*/data.mdb"))
    os.truncate(data, data.stat().st_size // 2)
    assert_fault(writer.find_cut(), StoreFaultKind.DAMAGED, data)
    data.unlink()
    assert_fault(writer.find_cut(), StoreFaultKind.DAMAGED, data)
    writer.close()


def test_a_replica_of_another_format_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("sms_aaa.node.replica_writer.FORMAT_VERSION", b"1")
    build(tmp_path)
    assert_fault(Replica.open(tmp_path), StoreFaultKind.FORMAT, tmp_path)
    assert_fault(ReplicaWriter.open(tmp_path, database_id=DATABASE_ID), StoreFaultKind.FORMAT, tmp_path)


def test_a_generation_that_was_made_current_empty_is_a_fault(tmp_path):
    ReplicaFiller.begin(tmp_path, database_id=DATABASE_ID, schema_version=4).close()
    (tmp_path / "replica" / "CURRENT").write_text("generation-0000000001\n")
    assert_fault(Replica.open(tmp_path), StoreFaultKind.MISSING, tmp_path)


def test_j8_a_replica_of_another_database_is_not_written_to(tmp_path):
    build(tmp_path, database_id=bytes(16))
    fault = ReplicaWriter.open(tmp_path, database_id=DATABASE_ID)
    assert_fault(fault, StoreFaultKind.FOREIGN_DATABASE, tmp_path)
    assert bytes(16).hex() in fault.detail


def read_until_killed(root: Path, reading) -> None:
    replica = Replica.open(root)
    with replica.read() as view:
        view.entitlement(USERNAME, b"ada")
        reading.set()
        multiprocessing.Event().wait()


def test_the_slot_of_a_reader_that_was_killed_is_freed(tmp_path, open_replica):
    build(tmp_path, entitlements=[change(1, b"ada")])
    replica = open_replica()
    reading = SPAWN.Event()
    worker = SPAWN.Process(target=read_until_killed, args=(tmp_path, reading))
    worker.start()
    assert reading.wait(60)
    assert replica.reader_check() == 0
    worker.kill()
    worker.join()
    assert replica.reader_check() == 1
    assert replica.reader_check() == 0
