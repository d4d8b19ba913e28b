"""The replica at its size: how long it takes to fill, and that no change waits for it. Run by name, on a quiet machine:

    pytest -n 0 -s -m campaign tests/server/test_replica_campaign.py     (REPLICA_SERVICES=1000000 for more)

It times, which the suite never does, and prints what it measured.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
from daemon import Daemon, FakeNas, wait_until
from make import make_nas, make_plan, make_subscriber

from sms_aaa.flows.provisioning.credentials import set_password
from sms_aaa.flows.provisioning.nas import set_nas
from sms_aaa.flows.provisioning.subscribers import set_state
from sms_aaa.node.replica import Replica, read_current
from sms_aaa.radius.dictionary import MIKROTIK_RATE_LIMIT
from sms_aaa.radius.packet import Code
from sms_aaa.rules.entitlement import ServiceState
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.campaign

SERVICES = int(os.environ.get("REPLICA_SERVICES", "200000"))
BULK = 50_000
LIVE_SECONDS_MAX = 2.0
FILL_SECONDS_MAX = 60.0 * max(1.0, SERVICES / 1_000_000)
ROUNDS = 5

CROWD = """
insert into subscriber (name) select 'crowd' || i from generate_series(1, %s) i;
insert into account (subscriber_id, currency, zone, anchor_day)
    select id, 'EUR', 'UTC', 1 from subscriber where name like 'crowd%';
insert into service (subscriber_id, identity_kind, identity, state)
    select id, 1, name || '@example.net', 1 from subscriber where name like 'crowd%' order by id;
insert into credential (service_id, form, sealed)
    select id, 1, decode('01' || repeat(md5(id::text), 5), 'hex') from service where identity like 'crowd%';
insert into assignment (service_id, account_id, during)
    select s.id, a.id, tstzrange(now(), null) from service s join account a using (subscriber_id)
    where s.identity like 'crowd%';
insert into subscription (service_id, plan_version_id, during)
    select s.id, (select max(id) from plan_version), tstzrange(now(), null) from service s
    where s.identity like 'crowd%'
"""


@pytest.fixture(scope="module")
def daemon(postgres, _templates, tmp_path_factory) -> Iterator[Daemon]:
    import psycopg

    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"create database replica_campaign template {_templates.with_months()}")
    made = Daemon(tmp_path_factory.mktemp("campaign") / "state", dsn=postgres.dsn_for("replica_campaign"))
    with made.desk() as desk:
        make_nas(desk)
        make_plan(desk, sessions=0)
        make_plan(desk, name="slow", sessions=0)
        make_subscriber(desk, name="alice", password=b"wonderland")
        make_subscriber(desk, name="bob", password=b"builder")
        desk.connection.execute("set local statement_timeout = 0")
        for statement in CROWD.split(";"):
            desk.connection.execute(statement, (SERVICES,) if "%s" in statement else None)
    made.execute("analyze")
    yield made
    made.stop()


@contextmanager
def logins(daemon: Daemon) -> Iterator[list[float]]:
    """How long each login of bob took, one after the other; infinity for one that was not answered."""
    taken: list[float] = []
    stop = threading.Event()

    def knock() -> None:
        with FakeNas(daemon) as nas:
            while not stop.is_set():
                began = time.monotonic()
                reply = nas.login(b"alice", b"wonderland")
                taken.append(time.monotonic() - began if reply is not None else float("inf"))
                time.sleep(0.002)

    knocking = threading.Thread(target=knock)
    knocking.start()
    yield taken
    stop.set()
    knocking.join()
    shown = sorted(taken)
    print(
        f"  {len(taken)} logins meanwhile: median {statistics.median(taken) * 1e3:.1f} ms, "
        f"p99 {shown[int(len(shown) * 0.99)] * 1e3:.1f} ms, longest {shown[-1] * 1e3:.1f} ms"
    )


def timed(what: str, condition: Callable[[], object]) -> float:
    began = time.monotonic()
    wait_until(condition, what)
    seconds = time.monotonic() - began
    print(f"  {what}: {seconds:.2f} s")
    return seconds


def changes(daemon: Daemon, nas: FakeNas, round_: int) -> dict[str, float]:
    """How long each kind of change took from its commit to the first login that shows it."""
    seconds = {}
    password = b"builder-%d" % round_
    with daemon.desk() as desk:
        set_password(desk, "bob", Secret(password))
    seconds["credential"] = timed("a password is live", lambda: code(nas, password) == Code.ACCESS_ACCEPT)
    with daemon.desk() as desk:
        set_state(desk, "bob", ServiceState.SUSPENDED, "unpaid")
    seconds["state"] = timed("a suspension is live", lambda: code(nas, password) == Code.ACCESS_REJECT)
    with daemon.desk() as desk:
        set_state(desk, "bob", ServiceState.ACTIVE, "paid")
    timed("its end is live", lambda: code(nas, password) == Code.ACCESS_ACCEPT)
    rate = f"{round_ + 1}M/{round_ + 2}M".encode()
    daemon.execute(
        f"""with made as (
              insert into plan_version (plan_id, version, document, digest)
              select plan_id, version + {round_ + 1}, jsonb_set(jsonb_set(document, '{{policy,rate_up_kbps}}',
                     '{round_ + 1}000'), '{{policy,rate_down_kbps}}', '{round_ + 2}000'), 'x'
              from plan_version where version = 1 limit 1 returning id)
            update subscription u set plan_version_id = made.id
            from made, service s where s.id = u.service_id and s.identity = 'bob'"""
    )
    seconds["plan"] = timed("a plan is live", lambda: rate_of(nas, password) == rate)
    secret = b"another secret of the tests %d" % round_
    with daemon.desk() as desk:
        set_nas(desk, "bng1", secret=Secret(secret))
    with FakeNas(daemon, secret=secret, patience=0.1) as other:
        seconds["secret"] = timed("a secret is live", lambda: code(other, password) == Code.ACCESS_ACCEPT)
    with daemon.desk() as desk:
        set_nas(desk, "bng1", secret=Secret(b"a secret of the tests"))
    timed("the secret before it is live again", lambda: code(nas, password) == Code.ACCESS_ACCEPT)
    return seconds


def code(nas: FakeNas, password: bytes) -> int | None:
    reply = nas.login(b"bob", password)
    return None if reply is None else reply.code


def rate_of(nas: FakeNas, password: bytes) -> bytes | None:
    reply = nas.login(b"bob", password)
    return None if reply is None else reply.attributes.get(MIKROTIK_RATE_LIMIT)


def size_of(folder: Path) -> str:
    replica = Replica.open(folder)
    assert isinstance(replica, Replica)
    size = replica.size()
    replica.close()
    return f"{size.services:,} services, {size.disk_octets / 1e6:.0f} MB"


def test_it_is_filled_within_a_minute_a_million(daemon: Daemon) -> None:
    print()
    began = time.monotonic()
    daemon.start(healthy=False)
    wait_until(lambda: isinstance(read_current(daemon.folder), str), "a replica", FILL_SECONDS_MAX + 30)
    seconds = time.monotonic() - began
    print(f"  filled: {seconds:.1f} s from the start, {size_of(daemon.folder)}")
    daemon.wait_healthy()
    assert seconds < FILL_SECONDS_MAX


def test_each_kind_of_change_is_live_within_two_seconds_during_a_bulk_change(daemon: Daemon) -> None:
    print()
    daemon.wait_healthy()
    with FakeNas(daemon, patience=0.1) as nas:
        for round_ in range(ROUNDS):
            daemon.execute(
                f"""update service set state = 3 - state where id in (
                      select id from service where identity like 'crowd%' order by id limit {BULK})"""
            )
            seconds = changes(daemon, nas, round_)
            assert max(seconds.values()) < LIVE_SECONDS_MAX, seconds
    timed("the bulk change is whole", lambda: not pending(daemon))


def pending(daemon: Daemon) -> float:
    return daemon.metrics()["sms_aaa_replica_pending_services"]


def test_logins_go_on_during_a_bulk_change_and_a_rebuild_and_changes_are_live_in_it(daemon: Daemon) -> None:
    print()
    before = read_current(daemon.folder)
    with logins(daemon) as taken:
        daemon.execute("update service set state_reason = 'bulk' where identity like 'crowd%'")
        (daemon.folder / "replica" / "REBUILD").write_text("{}")
        with FakeNas(daemon, patience=0.1) as nas:
            states = cycle((ServiceState.SUSPENDED, ServiceState.ACTIVE))
            while read_current(daemon.folder) == before:
                assert seconds_to_be_in(daemon, nas, next(states)) < LIVE_SECONDS_MAX
    assert max(taken) < 1.0


def seconds_to_be_in(daemon: Daemon, nas: FakeNas, state: ServiceState) -> float:
    expected = Code.ACCESS_ACCEPT if state is ServiceState.ACTIVE else Code.ACCESS_REJECT
    password = b"builder-%d" % (ROUNDS - 1)
    with daemon.desk() as desk:
        set_state(desk, "bob", state, "")
    return timed(f"{state.name.lower()} is live", lambda: code(nas, password) == expected)


def test_what_is_due_at_one_instant_is_live_soon_after_it(daemon: Daemon) -> None:
    print()
    daemon.execute(
        f"""update subscription set during = tstzrange(lower(during), now() + interval '15 s') where service_id in (
              select id from service where identity like 'crowd%' order by id limit {BULK})
              or service_id = (select id from service where identity = 'alice')"""
    )
    due = time.monotonic() + 15
    wait_until(lambda: not pending(daemon), "the change of the dates itself", 15)
    time.sleep(max(0.0, due - time.monotonic() - 0.2))
    with FakeNas(daemon, patience=0.1) as nas:
        wait_until(lambda: nas.login(b"alice", b"wonderland").code == Code.ACCESS_REJECT, "the end")
        print(f"  {BULK:,} subscriptions end at one instant; alice's {time.monotonic() - due:.1f} s after it")
        timed("all of them have ended", lambda: not pending(daemon))
