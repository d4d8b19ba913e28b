"""The schema: migrations, versions, partitions, and the constraints that carry the invariants."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from sms_aaa.db.decisions import list_decisions, list_spelled_decisions
from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import PARTITIONED, create_ahead, drop_decisions_before
from sms_aaa.db.positions import insert_position, list_positions, move_position
from sms_aaa.db.schema import KNOWN_REVISIONS, SchemaState, find_status, migrations_folder, upgrade

if TYPE_CHECKING:
    from sms_aaa.server.postgres import EmbeddedPostgres

NOVEMBER = datetime(2026, 11, 23, tzinfo=UTC)


def test_the_known_revisions_are_those_of_the_migrations_folder() -> None:
    files = sorted(Path(migrations_folder() / "versions").glob("*.py"))
    assert tuple(file.name.partition("_")[0] for file in files) == KNOWN_REVISIONS


def test_an_empty_an_upgraded_and_a_foreign_schema_are_told_apart(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("create database schema_test")
    dsn = postgres.dsn_for("schema_test")
    with connect(dsn, name="test") as connection:
        assert find_status(connection).state is SchemaState.EMPTY
        connection.commit()
        upgrade(dsn)
        assert find_status(connection).state is SchemaState.CURRENT
        upgrade(dsn)
        connection.execute("update alembic_version set version_num = '9999'")
        assert find_status(connection).state is SchemaState.UNKNOWN
        connection.rollback()
    with psycopg.connect(postgres.dsn, autocommit=True) as admin:
        admin.execute("drop database schema_test with (force)")


def test_partitions_are_made_ahead_once_and_old_decisions_go_with_theirs(database_dsn: str) -> None:
    with connect(database_dsn, name="test") as connection:
        assert create_ahead(connection, NOVEMBER) == 4 * len(PARTITIONED)
        assert create_ahead(connection, NOVEMBER) == 0
        names = [
            row[0] for row in connection.execute("select relname from pg_class where relname ~ '^decision_[0-9]{6}$'")
        ]
        assert sorted(names) == ["decision_202610", "decision_202611", "decision_202612", "decision_202701"]
        for at in ("1970-01-01", "2026-10-31", "2026-11-01", "2026-11-30"):
            connection.execute(
                """insert into decision (at, node, sequence, record_offset, nas_id, reason, method, username,
                                         calling_station_id, nas_port, sessions_seen, sessions_max, duration_us)
                   values (%s, 'node1', 1, 64, 1, 0, 1, 'alice', '', '', 0, 0, 0)""",
                (at,),
            )
        assert drop_decisions_before(connection, NOVEMBER) == ["decision_202610"]
        left = connection.execute("select at::date::text from decision order by at").fetchall()
        assert left == [("2026-11-01",), ("2026-11-30",)]


def test_a_position_moves_only_from_where_it_stands(database_dsn: str) -> None:
    with connect(database_dsn, name="test") as connection:
        insert_position(connection, "node1", 1, 7, 0)
        insert_position(connection, "node1", 1, 7, 0)
        assert move_position(connection, "node1", 1, 7, old=0, new=100, finished=False)
        assert not move_position(connection, "node1", 1, 7, old=0, new=200, finished=False)
        assert list_positions(connection, "node1", 1) == {7: (100, False)}


@pytest.mark.parametrize(
    "statement",
    [
        (
            "insert into cycle (account_id, starts_at, ends_at) values (1, '2026-11-01', '2026-12-01'), "
            "(1, '2026-11-15', '2026-12-15')"
        ),
        (
            "insert into subscription (service_id, plan_version_id, during) values (1, 1, '[2026-01-01,)'), "
            "(1, 1, '[2026-06-01,)')"
        ),
    ],
)
def test_cycles_tile_and_a_service_is_on_one_plan_at_a_time(database_dsn: str, statement: str) -> None:
    with connect(database_dsn, name="test") as connection:
        connection.execute("insert into subscriber (name) values ('x')")
        connection.execute(
            "insert into account (subscriber_id, currency, zone, anchor_day) values (1, 'EUR', 'UTC', 1)"
        )
        connection.execute("insert into service (subscriber_id, identity_kind, identity, state) values (1, 1, 'x', 1)")
        connection.execute("insert into plan (name) values ('p')")
        connection.execute("insert into plan_version (plan_id, version, document, digest) values (1, 1, '{}', '')")
        with pytest.raises(psycopg.errors.ExclusionViolation):
            connection.execute(statement)


def test_plan_versions_and_audit_rows_are_never_changed(database_dsn: str) -> None:
    with connect(database_dsn, name="test") as connection:
        connection.execute("insert into plan (name) values ('p')")
        connection.execute("insert into plan_version (plan_id, version, document, digest) values (1, 1, '{}', '')")
        with pytest.raises(psycopg.errors.RestrictViolation, match="a correction is a new row"):
            connection.execute("update plan_version set digest = 'x'")


@pytest.mark.parametrize(
    ("look", "index"),
    [
        (lambda c: list_decisions(c, "alice", limit=3), "202611_username_at"),
        (lambda c: list_spelled_decisions(c, 7, limit=3), "202611_service_id_at"),
    ],
)
def test_decisions_are_looked_up_by_an_index_of_their_partition(database_dsn: str, look, index: str) -> None:
    with connect(database_dsn, name="test") as connection:
        create_ahead(connection, NOVEMBER)
        connection.execute("set enable_seqscan = off")
        connection.commit()
        assert look(connection) == []
        connection.execute("select pg_stat_force_next_flush()")
        connection.commit()
        used = connection.execute(
            "select sum(idx_scan) from pg_stat_user_indexes where relname = 'decision_202611' and indexrelname ~ %s",
            (index,),
        ).fetchone()
        assert used is not None
        assert used[0] > 0
