"""A few worlds through a real daemon, with troubles; and the auditor of its tables finds what is there to be found.

The long campaign is `make simulate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import through_daemon
from daemon import Daemon
from faults import Fault
from network import NODES
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from pathlib import Path

    from sms_aaa.server.postgres import EmbeddedPostgres

FIRST, SEEDS = 1008, 4
TROUBLES = (Fault.WORKER_KILLED, Fault.SETTLER_KILLED, Fault.POSTGRES_STOPPED, Fault.NODE_KILLED)


def test_worlds_are_counted_right_through_kills_and_an_outage_and_planted_errors_are_found(
    postgres: EmbeddedPostgres, database_dsn: str, tmp_path: Path
) -> None:
    name = conninfo_to_dict(database_dsn)["dbname"]

    def lock(is_locked: bool) -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute(f"alter database {name} allow_connections {not is_locked}")
            if is_locked:
                connection.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")

    def stop_database():
        lock(True)
        return lambda: lock(False)

    daemon = Daemon(tmp_path / "state", dsn=database_dsn)
    stage = through_daemon.Stage({NODES[0]: daemon}, stop_database)
    try:
        run = through_daemon.play_worlds(stage, first=FIRST, seeds=SEEDS, troubles=TROUBLES, rate=400.0)
        assert run.complaints == []
        assert all(run.faults[trouble] for trouble in TROUBLES)
        assert run.answered > 100 * SEEDS, "too little to be in trouble"
        _plant_errors(daemon, run)
    finally:
        assert daemon.stop() == 0


def _plant_errors(daemon: Daemon, run: through_daemon.Run) -> None:
    ids = [row[0] for row in daemon.query("select id from session where octets_out > 1000 order by id limit 3")]
    daemon.execute(f"update session set octets_out = octets_out + 1 where id = {ids[0]}")
    daemon.execute(f"update session set service_id = null, account_id = null, excluded = 'planted' where id = {ids[1]}")
    daemon.execute(f"update session set acct_session_id = 'nobody' where id = {ids[2]}")
    daemon.execute(
        "update usage_hour set octets_in = octets_in + 1 where octets_in = (select max(octets_in) from usage_hour)"
    )
    said = through_daemon.judge(daemon, run.plays, run.base)
    for planted in ("law: ", "1 octets out too many", "not the sum of its deltas", "is of service None", "lost life",
                    "rollup: hour", "phantom"):  # fmt: skip
        assert any(planted in one for one in said), (planted, said)
