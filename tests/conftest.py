"""Real PostgreSQL for the tests: one server per pytest worker, one database per test.

A server of one's own costs a worker half a second, once, and spares the workers a lock and a count of users. Each
test's database is a copy of a migrated template: 10 ms in memory, where the cluster lies if there is room, and up to
0.3 s on a disk. To make the partitions of a test's months takes ten times that: `pytestmark = pytest.mark.months(NOON)`
copies a template that has those around NOON already.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from sms_aaa.server.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

# Containers like to set it. A daemon is nine processes, and without bytecode each would compile all of our modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A test's database need not survive a power cut, and little of its log has to fit into memory.
# Fifty at once race for a bucket, each over a connection.
FAST_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_wal_size": "128MB",
    "shared_buffers": "64MB",  # looked through at each CREATE and DROP DATABASE
    "max_connections": "70",
}

MEMORY_FOLDER = Path("/dev/shm")
MEMORY_OCTETS_MIN = 2_147_483_648  # a container may have as little as 64 MiB there

_numbers = itertools.count(1)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores: half of the suite's time goes by in waiting for daemons."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The worker's server. Its own database is empty; take `database_dsn` for a migrated one."""
    roomy = MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free >= MEMORY_OCTETS_MIN
    # Not under tmp_path: pytest keeps the folders of three runs, and a cluster has 40 MB.
    with tempfile.TemporaryDirectory(prefix="sms-aaa-test-", dir=MEMORY_FOLDER if roomy else None) as folder:
        server = EmbeddedPostgres.start(Path(folder) / "postgres", options=FAST_OPTIONS)
        try:
            yield server
        finally:
            server.stop()


class Templates:
    """Migrated databases to copy: a bare one, and those with the partitions around some moments; made when needed."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._made: set[str] = set()

    def with_months(self, *moments: datetime) -> str:
        """The template's name."""
        name = "_".join(["template", *dict.fromkeys(f"{moment:%Y%m}" for moment in moments)])
        if name not in self._made:
            self._make(name, moments)
            self._made.add(name)
        return name

    def _make(self, name: str, moments: tuple[datetime, ...]) -> None:
        from sms_aaa.db.engine import connect
        from sms_aaa.db.partitions import create_ahead
        from sms_aaa.db.schema import upgrade

        if not moments:
            _execute(self._server, f"CREATE DATABASE {name}")
            upgrade(self._server.dsn_for(name))
            return
        _execute(self._server, f"CREATE DATABASE {name} TEMPLATE {self.with_months()} STRATEGY file_copy")
        with connect(self._server.dsn_for(name), name="template") as connection:
            for moment in moments:
                create_ahead(connection, moment)


@pytest.fixture(scope="session")
def _templates(postgres: EmbeddedPostgres) -> Templates:
    return Templates(postgres)


@pytest.fixture
def database_dsn(request: pytest.FixtureRequest, postgres: EmbeddedPostgres, _templates: Templates) -> Iterator[str]:
    """A freshly migrated database, dropped after the test with whoever is still connected."""
    months = request.node.get_closest_marker("months")
    with _database(postgres, _templates.with_months(*(months.args if months else ()))) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def new_database(postgres: EmbeddedPostgres, _templates: Templates) -> Iterator[Callable[[], str]]:
    """Makes such databases for daemons that the tests of a module share: to start one costs more than most tests."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(_database(postgres, _templates.with_months()))


@contextmanager
def _database(postgres: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield postgres.dsn_for(name)
    _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)
