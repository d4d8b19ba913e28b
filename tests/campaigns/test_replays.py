"""Some worlds of the simulation are settled and replayed; more of them by name, see replays.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pure import BASE
from replays import replay_world

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead


@pytest.mark.parametrize("seed", [1, 2, 4, 19, 44, 117])
def test_a_replay_of_a_bad_nights_records_would_settle_none_of_them_again(database_dsn, tmp_path, seed):
    with connect(database_dsn, name="test") as connection:
        create_ahead(connection, datetime.fromtimestamp(BASE, UTC))
        found = replay_world(connection, tmp_path, seed)
    assert found.new == 0
    assert found.known > 0
