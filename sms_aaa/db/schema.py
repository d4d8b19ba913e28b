"""The schema's version: upgrade, check, status. Alembic is imported here only, and only when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

    from sms_aaa.db.engine import Connection

KNOWN_REVISIONS = ("0001", "0002", "0003", "0004")
"""Oldest first; the last is what this program needs. A test holds this against migrations/versions."""

LOCK_TIMEOUT_SECONDS = 4
STATEMENT_TIMEOUT_SECONDS = 60
_UPGRADE_LOCK = 0x736D7361  # "smsa": one upgrade at a time


class SchemaState(StrEnum):
    CURRENT = "current"
    EMPTY = "empty"
    OLD = "old"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    state: SchemaState
    revision: str
    needed: str


def migrations_folder() -> Path:
    """Beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def find_status(connection: Connection) -> SchemaStatus:
    """Which schema the database has, without Alembic: asked at every start."""
    needed = KNOWN_REVISIONS[-1]
    exists = connection.execute("select to_regclass('alembic_version') is not null").fetchone()
    row = connection.execute("select version_num from alembic_version").fetchone() if exists and exists[0] else None
    if row is None:
        return SchemaStatus(SchemaState.EMPTY, "", needed)
    revision = str(row[0])
    if revision == needed:
        return SchemaStatus(SchemaState.CURRENT, revision, needed)
    state = SchemaState.OLD if revision in KNOWN_REVISIONS else SchemaState.UNKNOWN
    return SchemaStatus(state, revision, needed)


def upgrade(dsn: str) -> None:
    """Brings the schema to what this program needs: under an advisory lock, with lock and statement timeouts.

    Raises psycopg or SQLAlchemy errors; a failed migration leaves the revision before it.
    """
    from alembic import command
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    from sms_aaa.db.engine import connect

    engine = create_engine("postgresql+psycopg://", poolclass=NullPool, creator=lambda: connect(dsn, name="upgrade"))
    with engine.connect() as connection:
        connection.execute(text(f"set lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        connection.execute(text(f"set statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'"))
        connection.execute(text("select pg_advisory_lock(:key)"), {"key": _UPGRADE_LOCK})
        connection.commit()
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    config.set_main_option("path_separator", "os")
    return config
