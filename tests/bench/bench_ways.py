"""The two ways in this process, step by step, without sockets: microseconds a login, records settled and deltas rated.

`python tests/bench/bench_ways.py`. Compare figures of one run only: a machine's speed is another the next minute.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from make import Said, make_desk, make_nas, make_plan, make_subscriber, rate_all, record_of

from sms_aaa.config import LimitsSettings
from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.schema import upgrade
from sms_aaa.flows.access import answer_case, decision_of, devices_of, reserve_places
from sms_aaa.flows.deciding import RANDOM_OCTETS, Known, decide_requests
from sms_aaa.flows.passwords import PasswordChecks
from sms_aaa.flows.settling import settle_accounting
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.flows.tables import Tables
from sms_aaa.flows.vault import Vault
from sms_aaa.node.board import COUNTERS_PER_SLOT
from sms_aaa.node.journal import Stream, Writer, make_folder
from sms_aaa.node.live import LiveSet
from sms_aaa.node.lockouts import Lockouts
from sms_aaa.node.records import DecisionBatch, pack_decisions
from sms_aaa.node.replica import Replica
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_writer import EntitlementChange, ReplicaWriter
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests, verify
from sms_aaa.radius.packet import Code, attribute, integer, parse
from sms_aaa.radius.request import access_request, pap_attributes
from sms_aaa.rules.entitlement import (
    Dialect,
    Entitlement,
    MessageAuthenticatorPolicy,
    NodeNas,
    NodePlan,
    Policy,
)
from sms_aaa.rules.secret import Secret
from sms_aaa.server.defence import Defence
from sms_aaa.server.dispatch import Asked
from sms_aaa.server.drops import DropLog
from sms_aaa.server.duplicates import DuplicateCache
from sms_aaa.server.gate import Gate
from sms_aaa.server.postgres import EmbeddedPostgres
from sms_aaa.server.signers import Signers

SECRET = b"testing123"
SERVICES, LOGINS, BATCH, ROUNDS = 10_000, 20_000, 64, 5
SESSIONS, SETTLE_BATCH = 8_000, 2_000


def fill_replica(root: Path, vault: Vault) -> None:
    filler = ReplicaFiller.begin(root, database_id=bytes(16), schema_version=1)
    assert isinstance(filler, ReplicaFiller)
    policy = Policy(rate_up_kbps=20_000, rate_down_kbps=100_000, session_timeout_seconds=86_400, sessions_max=2)
    sealed = vault.seal_nas_secret(Secret(SECRET), 1, nonce=os.urandom(12))
    nas = NodeNas(1, "bench", "127.0.0.1/32", [sealed], Dialect.MIKROTIK, MessageAuthenticatorPolicy.AUTO, 3799)
    filler.put_tables([NodePlan(1, "plan", 1, policy)], [nas], [])
    for start in range(0, SERVICES, 5_000):
        changes = []
        for number in range(start, start + 5_000):
            credential = vault.seal_password(Secret(b"pw%07d" % number), number + 1, nonce=os.urandom(12))
            entitlement = Entitlement(number + 1, 1, 1, 1, credential, 0x0A000000 + number)
            changes.append(EntitlementChange(1, b"user%07d" % number, entitlement))
        filler.put_records(changes)
        filler.put_keys([(change.entitlement.service_id, change.kind, change.identity) for change in changes])
    writer = filler.finish(cursor="", refreshed_ns=1, dated_us=1)
    assert isinstance(writer, ReplicaWriter)
    assert writer.make_current() is None
    writer.close()


def make_logins() -> list[bytes]:
    digests = SecretDigests(SECRET)
    logins = []
    for number in range(LOGINS):
        user, authenticator = random.randrange(SERVICES), os.urandom(16)
        attributes = b"".join(
            (
                attribute(dictionary.USER_NAME, b"user%07d" % user),
                pap_attributes(b"pw%07d" % user, authenticator, digests),
                attribute(dictionary.NAS_PORT, integer(user & 0xFFFF)),
                attribute(dictionary.SERVICE_TYPE, integer(2)),
                attribute(dictionary.FRAMED_PROTOCOL, integer(1)),
                attribute(dictionary.CALLING_STATION_ID, b"02-00-00-00-%02X-%02X" % (user >> 8 & 255, user & 255)),
                attribute(dictionary.NAS_IDENTIFIER, b"bench-nas"),
            )
        )
        logins.append(access_request(number & 255, authenticator, attributes, digests))
    return logins


STEPS = ("gate", "screen", "decide", "note", "reserve", "answer", "journal", "remember")


class AccessNode:
    """What an access worker has, without its process and sockets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vault = Vault(bytes(32))
        fill_replica(root, self.vault)
        replica, live = Replica.open(root), LiveSet.open(root, boot_id="bench")
        assert isinstance(replica, Replica)
        assert isinstance(live, LiveSet)
        self.replica, self.live = replica, live
        nases, plans = replica.nas_list(), replica.plans()
        assert isinstance(nases, list)
        assert isinstance(plans, list)
        self.tables = Tables(nases, plans, self.vault)
        folder = make_folder(root / "journal", Stream.DECISIONS)
        assert isinstance(folder, Path)
        self.journal = Writer(folder, Stream.DECISIONS, bytes(16), None, synced=False)
        self.counters = memoryview(bytearray(8 * COUNTERS_PER_SLOT)).cast("Q")
        table = Lockouts.open_or_create(root, fresh=os.urandom(16))
        assert isinstance(table, Lockouts)
        self.defence = Defence(LimitsSettings(), table, self.counters)
        self.passwords = PasswordChecks(key=bytes(32), remember_seconds=0)

    def new_gate(self) -> Gate:
        """With a cache that has seen nothing."""
        gate = Gate(
            code=Code.ACCESS_REQUEST,
            tables=self.tables,
            cache=DuplicateCache(10),
            counters=self.counters,
            signers=Signers(self.counters, self.root, name="bench", database_id=bytes(16)),
            drops=DropLog(self.root, name="bench", database_id=bytes(16)),
        )
        gate.use(self.tables)
        return gate

    def serve(self, gate: Gate, logins: list[bytes], start: int) -> list[float]:
        """One batch; the seconds of each of STEPS."""
        marks = [time.perf_counter()]
        admitted = [gate.admit(login, ("127.0.0.1", start)) for login in logins]
        marks.append(time.perf_counter())
        asked = [Asked(one, ()) for one in admitted]  # type: ignore[arg-type] # all are new
        marks[-1] = time.perf_counter()
        requests, refused = self.defence.screen(asked, marks[0], int(time.time()))
        assert not refused
        marks.append(time.perf_counter())
        with self.replica.read() as view:
            known = Known(self.tables, self.vault, view, self.passwords, int(time.time()))
            cases = decide_requests(requests, known, randomness=os.urandom(RANDOM_OCTETS * len(requests)))
        marks.append(time.perf_counter())
        now_ns = time.time_ns()
        self.defence.note(list(zip(asked, cases, strict=True)), now_ns // 10**9, is_late=False)  # type: ignore[arg-type] # no fault is among them
        marks.append(time.perf_counter())
        devices = devices_of(cases)
        with self.live.write() as change:
            reserve_places(cases, devices, change, now=now_ns // 10**9, until=now_ns // 10**9 + 60)
        marks.append(time.perf_counter())
        replies = [answer_case(case) for case in cases]
        marks.append(time.perf_counter())
        decisions = [decision_of(case) for case in cases]
        self.journal.append(pack_decisions(DecisionBatch(now_ns, 0, decisions)), now_ns)
        marks.append(time.perf_counter())
        for one, reply in zip(admitted, replies, strict=True):
            one.entry.reply = reply  # type: ignore[union-attr] # as above
        marks.append(time.perf_counter())
        return [ended - began for began, ended in pairwise(marks)]


def bench_access(root: Path) -> None:
    node, logins = AccessNode(root), make_logins()
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        gate = node.new_gate()
        batches = [node.serve(gate, logins[start : start + BATCH], start) for start in range(0, LOGINS, BATCH)]
        spent = dict(zip(STEPS, map(sum, zip(*batches, strict=True)), strict=True))
        for step, seconds in {**spent, "all": sum(spent.values()), **time_gate(gate, logins)}.items():
            best[step] = min(best.get(step, seconds), seconds)
    for step, seconds in best.items():
        sys.stdout.write(f"login, {step:<14} {seconds / LOGINS * 1e6:7.2f} us\n")
    node.journal.close()


def time_gate(gate: Gate, logins: list[bytes]) -> dict[str, float]:
    """What the gate is made of, and what it costs when every login comes once more."""
    digests = SecretDigests(SECRET)
    marks = [time.perf_counter()]
    packets = [parse(login) for login in logins]
    marks.append(time.perf_counter())
    faults = [verify(packet, digests, message_authenticator_required=True) for packet in packets]  # type: ignore[arg-type] # all are sound
    marks.append(time.perf_counter())
    replies = [gate.admit(login, ("127.0.0.1", at // BATCH * BATCH)) for at, login in enumerate(logins)]
    marks.append(time.perf_counter())
    assert not any(faults)
    assert all(type(reply) is bytes for reply in replies)
    steps = ("gate: parse", "gate: verify", "dedup hit")
    return {step: ended - began for step, began, ended in zip(steps, marks, marks[1:], strict=False)}


def bench_settling(root: Path) -> None:
    server = EmbeddedPostgres.start(root / "postgres")
    try:
        upgrade(server.dsn)
        with connect(server.dsn, name="bench", repeatable=True) as connection:
            desk = make_desk(connection)
            nas_id = make_nas(desk)
            make_plan(desk)
            services = [make_subscriber(desk, name=f"user{number}") for number in range(200)]
            create_ahead(connection, datetime.now(UTC))
            connection.commit()
            began_at = datetime.now(UTC) - timedelta(seconds=1000)
            records = []
            for session in range(SESSIONS):
                for status, seconds in (("start", None), ("interim", 300), ("stop", 600)):
                    said = Said(
                        status=status,
                        at=began_at + timedelta(seconds=seconds or 0),
                        session=f"s{session}",
                        seconds=seconds,
                        octets_in=seconds and seconds * 1000,
                        octets_out=seconds and seconds * 5000,
                        service_id=services[session % len(services)],
                        token=session.to_bytes(8, "big"),
                    )
                    records.append(record_of(said, nas_id=nas_id, offset=64 + 8 * len(records)))
            began = time.perf_counter()
            for start in range(0, len(records), SETTLE_BATCH):
                batch = records[start : start + SETTLE_BATCH]
                settle_accounting(connection, batch, single_nas={nas_id: True})
                connection.commit()
            sys.stdout.write(f"settled          {len(records) / (time.perf_counter() - began):7.0f} records/s\n")
            began = time.perf_counter()
            rated = rate_all(connection, PlanShelf(), now=datetime.now(UTC))
            connection.commit()
            sys.stdout.write(f"rated            {rated / (time.perf_counter() - began):7.0f} deltas/s\n")
    finally:
        server.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        bench_access(Path(folder) / "node")
        bench_settling(Path(folder))
