"""Many subscribers at once for measurements: rows straight into the tables, credentials really sealed.

Subscriber number n (from 0) is `user%07d` with the password `pw%07d`: what tests/bench/radload/load.c logs in. Triggers
are off meanwhile, so the change feed stays empty and no billing cycle is opened: the replica is to be filled after it,
and the rater has nothing to do beside what is measured.
"""

from __future__ import annotations

import os
import time
from itertools import islice
from typing import TYPE_CHECKING

from make import make_nas, make_plan

from sms_aaa.flows.vault import NONCE_OCTETS
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.flows.vault import Vault

SECRET = b"testing123"
NONCES_AT_ONCE = 10_000
LOOK_SECONDS = 0.2

TABLES = """
insert into subscriber (id, name) overriding system value select n + 1, 'user' || lpad(n::text, 7, '0') from {numbers};
insert into account (id, subscriber_id, currency, zone, anchor_day) overriding system value
    select n + 1, n + 1, 'EUR', 'UTC', 1 from {numbers};
insert into service (id, subscriber_id, identity_kind, identity, state, static_ipv4) overriding system value
    select n + 1, n + 1, 1, 'user' || lpad(n::text, 7, '0'), 1, '10.0.0.0'::inet + n from {numbers};
insert into service_state (service_id, state, reason, during)
    select n + 1, 1, '', tstzrange(now(), null) from {numbers};
insert into assignment (service_id, account_id, during) select n + 1, n + 1, tstzrange(now(), null) from {numbers};
insert into subscription (id, service_id, plan_version_id, during) overriding system value
    select n + 1, n + 1, (select max(id) from plan_version), tstzrange(now(), null) from {numbers};
"""

EXCLUSIONS = """
select conrelid::regclass, conname, pg_get_constraintdef(oid) from pg_constraint
where contype = 'x' and conrelid in ('service_state'::regclass, 'assignment'::regclass, 'subscription'::regclass)
"""


def provision(desk: Desk, vault: Vault, count: int, *, sessions: int = 1) -> float:
    """A NAS on loopback, a plan, `count` subscribers on it; how many seconds it took. Commits."""
    began = time.perf_counter()
    connection = desk.connection
    connection.execute("set statement_timeout = 0")
    make_nas(desk, name="bench", prefix="127.0.0.0/8", secret=SECRET)
    make_plan(desk, sessions=sessions)
    connection.execute("set session_replication_role = replica")
    exclusions = connection.execute(EXCLUSIONS).fetchall()
    for table, name, _ in exclusions:
        connection.execute(f"alter table {table} drop constraint {name}")
    connection.execute(TABLES.format(numbers=f"generate_series(0, {count - 1}) n"))
    with connection.cursor().copy("copy credential (service_id, form, sealed) from stdin (format binary)") as copy:
        copy.set_types(["int8", "int2", "bytea"])
        for row in _credentials(vault, count):
            copy.write_row(row)
    for table, name, definition in exclusions:  # built at once, they cost a tenth
        connection.execute(f"alter table {table} add constraint {name} {definition}")
    for table in ("subscriber", "account", "service", "subscription"):
        connection.execute(f"select setval(pg_get_serial_sequence('{table}', 'id'), {count})")
    connection.execute("set session_replication_role = origin")
    connection.commit()
    _analyze(connection)
    return time.perf_counter() - began


def open_cycles(connection: Connection) -> None:
    """Tells the rater of every subscription, as the trigger would have, and waits until it has opened their cycles."""
    connection.execute(
        """insert into cycle_due (subscription_id, due_at) select id, lower(during) from subscription
           on conflict do nothing"""
    )
    connection.commit()
    while connection.execute("select 1 from cycle_due where due_at <= now() limit 1").fetchone():
        connection.commit()
        time.sleep(LOOK_SECONDS)


def _credentials(vault: Vault, count: int) -> Iterator[tuple[int, int, bytes]]:
    numbers = iter(range(count))
    while chunk := list(islice(numbers, NONCES_AT_ONCE)):
        nonces = os.urandom(NONCE_OCTETS * len(chunk))
        for at, number in enumerate(chunk):
            nonce = nonces[NONCE_OCTETS * at : NONCE_OCTETS * (at + 1)]
            yield number + 1, 1, vault.seal_password(Secret(b"pw%07d" % number), number + 1, nonce=nonce)


def _analyze(connection: Connection) -> None:
    connection.autocommit = True
    connection.execute("vacuum analyze")
    connection.autocommit = False
