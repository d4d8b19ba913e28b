"""What stories begin with: a NAS, a plan, a subscriber, a record; plain functions with keyword arguments."""

from __future__ import annotations

import itertools
import os
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from sms_aaa.db.engine import begin_snapshot
from sms_aaa.db.feed import covers
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.rating_queue import claim_shard
from sms_aaa.db.usage import UsageDelta
from sms_aaa.flows import history
from sms_aaa.flows.access import encode_class
from sms_aaa.flows.meters import RaterMemory
from sms_aaa.flows.provisioning.desk import Desk
from sms_aaa.flows.provisioning.nas import add_nas
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.provisioning.subscribers import NewSubscriber, add_subscriber
from sms_aaa.flows.rating import rate_batch
from sms_aaa.flows.replicating import Follower, Step, fill
from sms_aaa.flows.settling import Settled, settle_accounting
from sms_aaa.flows.vault import NONCE_OCTETS, Vault
from sms_aaa.node.records import AccountingRecord
from sms_aaa.node.replica_filler import ReplicaFiller
from sms_aaa.node.replica_writer import ReplicaWriter
from sms_aaa.radius import dictionary
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer, ipv4
from sms_aaa.radius.request import accounting_request
from sms_aaa.rules.actor import Actor, Door
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy
from sms_aaa.rules.secret import Secret
from sms_aaa.rules.session import Delta, Place

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.shelf import PlanShelf

SECRET = b"a secret of the tests"
ACTOR = Actor("tester", Door.CLI, "T-1")
STATUS = {"start": 1, "stop": 2, "interim": 3, "on": 7, "off": 8}

PLAN = """
name = "{name}"
[policy]
rate_up = "20 Mbit/s"
rate_down = "100 Mbit/s"
session_timeout = "24h"
idle_timeout = "10m"
interim = "{interim}"
sessions = {sessions}
sessions_strict = {strict}
[tariff]
currency = "EUR"
[[tariff.recurring]]
name = "monthly-fee"
amount = "29.90"
period = "month"
[[tariff.usage]]
name = "data"
measure = "total"
included = "{included}"
price = "0.50"
per = "GB"
"""


def make_vault(key: bytes = bytes(32)) -> Vault:
    return Vault(key)


def make_desk(connection: Connection, vault: Vault | None = None) -> Desk:
    return Desk(connection, ACTOR, vault or make_vault(), lambda: os.urandom(NONCE_OCTETS))


def make_nas(desk: Desk, *, name: str = "bng1", prefix: str = "127.0.0.1", secret: bytes = SECRET) -> int:
    return add_nas(
        desk,
        name=name,
        prefix=prefix,
        secret=Secret(secret),
        dialect=Dialect.MIKROTIK,
        message_authenticator=MessageAuthenticatorPolicy.AUTO,
        coa_port=3799,
    )


def make_plan(
    desk: Desk,
    *,
    name: str = "home-100",
    sessions: int = 1,
    included: str = "50 GB",
    interim: str = "5m",
    strict: bool = False,
    effective_at: datetime | None = None,
) -> str:
    text = PLAN.format(name=name, sessions=sessions, included=included, interim=interim, strict=str(strict).lower())
    add_plan(desk, tomllib.loads(text, parse_float=Decimal), default_currency="EUR", effective_at=effective_at)
    return name


def make_subscriber(
    desk: Desk,
    *,
    name: str = "alice",
    plan: str = "home-100",
    password: bytes | None = b"wonderland",
    mac: str | None = None,
    static_ipv4: str | None = None,
    zone: str = "Europe/Berlin",
) -> int:
    """The service's id."""
    add_subscriber(
        desk,
        NewSubscriber(
            name=name,
            plan=plan,
            password=Secret(password) if password is not None else None,
            mac=mac,
            static_ipv4=static_ipv4,
            zone=zone,
            anchor_day=1,
        ),
    )
    row = desk.connection.execute("select max(id) from service").fetchone()
    assert row is not None
    return int(row[0])


def make_usage(
    number: int, account_id: int, service_id: int, *, at: datetime, octets_out: int, octets_in: int = 0
) -> UsageDelta:
    """Five minutes' usage that ends at an instant: the only delta of session `number` + 1."""
    delta = Delta(
        seq=1,
        from_at=at - timedelta(minutes=5),
        to_at=at,
        octets_in=octets_in,
        octets_out=octets_out,
        seconds=300,
        run=1,
        wrapped=False,
        before_in=0,
        before_out=0,
        after_in=octets_in,
        after_out=octets_out,
        before_place=None,
        after_place=Place("node1", 1, 64),
    )
    return UsageDelta(number + 1, account_id, service_id, delta)


def rate_all(connection: Connection, shelf: PlanShelf, *, now: datetime) -> int:
    """Rates whatever is queued; how many deltas that were."""
    memory, deltas = RaterMemory(shelf), 0
    while (claimed := claim_shard(connection, after=-1)) is not None:
        done = rate_batch(connection, memory, claimed, now=now, limit=1000)
        memory.keep(claimed.shard, done.kept, done.run_id, now)
        deltas += done.deltas
    return deltas


def move_ended(connection: Connection, *, now: datetime, limit: int = 100) -> int:
    """Moves sessions to the history a week after their end, as if every node had heard of that end by now."""
    connection.execute("delete from place_change where session_id <> 0")
    return history.move_ended(connection, now=now, grace_days=7, limit=limit)


def make_replica(connection: Connection, folder: Path, *, database_id: bytes = bytes(16)) -> ReplicaWriter:
    """A replica of what is committed, current; its writer is to be closed. Takes the connection's transaction."""
    filler = ReplicaFiller.begin(folder, database_id=database_id, schema_version=1)
    assert isinstance(filler, ReplicaFiller), filler
    connection.commit()
    begin_snapshot(connection)
    writer = fill(connection, filler, now_ns=time.time_ns(), progress=lambda _done, _of: None)
    connection.commit()
    assert isinstance(writer, ReplicaWriter), writer
    assert writer.make_current() is None
    return writer


def follow(connection: Connection, follower: Follower) -> int:
    """Brings the replica to what is committed; how many objects that were."""
    changed, pending = 0, 1
    while pending:
        connection.commit()
        begin_snapshot(connection)
        assert covers(connection, follower.cursor)
        now_ns = time.time_ns()
        changes = follower.read(connection, now_ns=now_ns)
        connection.commit()
        step = follower.apply(changes, now_ns=now_ns)
        assert isinstance(step, Step), step
        changed, pending = changed + step.changed, step.pending
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An accounting record as a NAS would send it. Counters None: without the attributes."""

    status: str
    at: datetime
    session: str = "s-1"
    username: bytes = b"alice"
    seconds: int | None = None
    octets_in: int | None = None
    octets_out: int | None = None
    service_id: int | None = None
    token: bytes = b"token-01"
    delay: int = 0
    stamped: bool = True
    identifier: int = 1
    framed_ip: int = 0x0A000007
    extra: bytes = b""


def packet_of(said: Said) -> bytes:
    key = dictionary
    parts = [
        attribute(key.USER_NAME, said.username),
        attribute(key.NAS_IP_ADDRESS, ipv4(0x7F000001)),
        attribute(key.NAS_PORT, integer(7)),
        attribute(key.CALLING_STATION_ID, b"02-00-00-00-00-07"),
        attribute(key.FRAMED_IP_ADDRESS, ipv4(said.framed_ip)),
        attribute(key.ACCT_STATUS_TYPE, integer(STATUS[said.status])),
        attribute(key.ACCT_DELAY_TIME, integer(said.delay)),
    ]
    if said.session:
        parts.append(attribute(key.ACCT_SESSION_ID, said.session.encode()))
    if said.stamped:
        parts.append(attribute(key.EVENT_TIMESTAMP, integer(int(said.at.timestamp()))))
    if said.seconds is not None:
        parts.append(attribute(key.ACCT_SESSION_TIME, integer(said.seconds)))
    for value, octets, gigawords in (
        (said.octets_in, key.ACCT_INPUT_OCTETS, key.ACCT_INPUT_GIGAWORDS),
        (said.octets_out, key.ACCT_OUTPUT_OCTETS, key.ACCT_OUTPUT_GIGAWORDS),
    ):
        if value is not None:
            parts.append(attribute(octets, integer(value & 0xFFFFFFFF)))
            parts.append(attribute(gigawords, integer(value >> 32)))
    if said.service_id is not None:
        parts.append(attribute(key.CLASS, encode_class(said.service_id, said.token)))
    if said.status == "stop":
        parts.append(attribute(key.ACCT_TERMINATE_CAUSE, integer(1)))
    return accounting_request(said.identifier, b"".join(parts) + said.extra, SecretDigests(SECRET))


def record_of(
    said: Said, *, nas_id: int, offset: int, received_at: datetime | None = None
) -> tuple[Place, AccountingRecord]:
    received_ns = int((received_at or said.at).timestamp() * 1_000_000) * 1000
    return Place("node1", 1, offset), AccountingRecord(received_ns, nas_id, "127.0.0.1", 40_000, packet_of(said))


class Site:
    """A NAS and a subscriber, alice, on an open connection; what the NAS says is settled there."""

    def __init__(self, connection: Connection, begins: datetime) -> None:
        """`begins`: the months around it have their partitions."""
        self.connection = connection
        desk = make_desk(connection)
        self.nas_id = make_nas(desk)
        make_plan(desk)
        self.service_id = make_subscriber(desk)
        create_ahead(connection, begins)
        self.offsets = itertools.count(64, 8)

    def settle(self, *said: Said, on: Connection | None = None, received_after: int = 0) -> Settled:
        """A batch; `on` another connection, received so many seconds after its event times."""
        later = timedelta(seconds=received_after)
        records = [
            record_of(one, nas_id=self.nas_id, offset=next(self.offsets), received_at=one.at + later) for one in said
        ]
        return settle_accounting(on or self.connection, records, single_nas={self.nas_id: True})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
