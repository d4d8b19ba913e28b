"""The history as the running server keeps it: ended sessions go there, months past their retention are dropped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from daemon import started, wait_until
from make import Said, make_desk, make_nas, make_plan, make_subscriber, record_of

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import Month, create_ahead, list_months
from sms_aaa.flows.settling import settle_accounting

if TYPE_CHECKING:
    from pathlib import Path

LONG_AGO = datetime.now(UTC).replace(microsecond=0) - timedelta(days=300)
LAST_MONTH = datetime.now(UTC).replace(microsecond=0) - timedelta(days=20)


def test_the_server_moves_what_has_ended_and_drops_what_is_too_old(tmp_path: Path, database_dsn: str) -> None:
    with connect(database_dsn, name="test") as connection:
        desk = make_desk(connection)
        nas_id = make_nas(desk)
        make_plan(desk)
        make_subscriber(desk)
        create_ahead(connection, LONG_AGO)
        ended = [Said(status="stop", at=LAST_MONTH, session="ended", seconds=60)]
        running = [Said(status="start", at=datetime.now(UTC), session="running")]
        records = [record_of(one, nas_id=nas_id, offset=64 + n) for n, one in enumerate(ended + running)]
        settle_accounting(connection, records, single_nas={nas_id: True})
        connection.execute("delete from place_change where session_id <> 0")
    with connect(database_dsn, name="test") as connection:

        def moved() -> list[str]:
            rows = connection.execute("select acct_session_id from session_history").fetchall()
            connection.rollback()
            return [row[0] for row in rows]

        def hours_of_long_ago() -> bool:
            months = list_months(connection, "usage_hour")
            connection.rollback()
            return Month.of(LONG_AGO) in months

        assert hours_of_long_ago()
        for _ in started(tmp_path / "state", database_dsn):
            wait_until(lambda: moved() == ["ended"], "moved to the history")
            wait_until(lambda: not hours_of_long_ago(), "dropped")
        assert connection.execute("select acct_session_id from session").fetchall() == [("running",)]
        dropped = connection.execute("select count(*) from audit where object_kind = 'partition'").fetchone()
        assert dropped is not None
        assert dropped[0] > 0
