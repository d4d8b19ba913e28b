"""Whoever typed the command, and what stands at their disposal: settings, database, vault. Each is had when asked for.

With no DSN configured the database is the embedded one of the daemon that runs on this machine; the run file in the
state folder says where it listens.
"""

from __future__ import annotations

import os
import pwd
import re
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.config import Settings
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.schema import SchemaStatus
    from sms_aaa.flows.provisioning.desk import Desk
    from sms_aaa.flows.vault import Vault
    from sms_aaa.rules.actor import Actor

_QUOTED = re.compile(r"[\"']([^\"']*)[\"']")
_ADDRESS_OR_SOCKET = re.compile(r"[0-9.]+|[0-9a-f:]+|/.*/\.s\.PGSQL\.[0-9]+")


class Caller:
    """`config`: the settings' file as named on the command line."""

    def __init__(self, config: str | None) -> None:
        self._config = config

    def load_settings(self) -> Settings:
        """The settings as they are now: `serve` reads them again when it is told to."""
        from sms_aaa.config import load_settings

        return load_settings(self._config, os.environ)

    @cached_property
    def settings(self) -> Settings:
        return self.load_settings()

    @property
    def state_folder(self) -> Path:
        return Path(self.settings.node.state_folder)

    @property
    def journal_folder(self) -> Path:
        return self.state_folder / "journal"

    def dsn(self) -> str:
        """Of the configured database, else of the running daemon's own; Failure when there is neither."""
        from sms_aaa.server.runfile import find_running

        if not self.settings.database.embedded:
            return self.settings.database.dsn.reveal().decode()
        running = find_running(self.state_folder)
        if running is None or not running.embedded_dsn:
            raise Failure(
                Exit.UNAVAILABLE,
                "the embedded database runs while `sms-aaa serve` does",
                "start it (as the same user, with the same state folder), or set database.dsn",
            )
        return running.embedded_dsn

    def connect(self, *, statement_timeout_seconds: int | None = None) -> Connection:
        """To a database with the schema that this program needs. `with` commits at its end, and closes."""
        from sms_aaa.db.schema import SchemaState, find_status

        connection = self.connect_anyhow(statement_timeout_seconds=statement_timeout_seconds)
        status = find_status(connection)
        connection.commit()
        if status.state is not SchemaState.CURRENT:
            connection.close()
            raise Failure(Exit.UNAVAILABLE, *schema_problem(status))
        return connection

    def connect_anyhow(self, *, statement_timeout_seconds: int | None = None) -> Connection:
        """To the database, whatever its schema is."""
        from sms_aaa.db.engine import Misfit, Unavailable, connect

        dsn = self.dsn()
        timeout = statement_timeout_seconds or self.settings.database.statement_timeout_seconds
        try:
            return connect(dsn, name="cli", statement_timeout_seconds=timeout)
        except Misfit:
            # Its text quotes what it stumbled over, which may be a piece of the password.
            raise Failure(
                Exit.INVALID, "database.dsn cannot be read", "write it as postgresql://user@host/name"
            ) from None
        except Unavailable as away:
            raise Failure(
                Exit.UNAVAILABLE,
                f"the database: {_without_secrets(str(away), dsn)}",
                "see that it runs, and that database.dsn is right",
            ) from None

    def actor(self, ticket: str | None) -> Actor:
        from sms_aaa.rules.actor import Actor, Door

        return Actor(_login_name(), Door.CLI, ticket)

    def desk(self, connection: Connection, ticket: str | None) -> Desk:
        """What a provisioning flow works with, in the connection's transaction."""
        from sms_aaa.flows.provisioning.desk import Desk
        from sms_aaa.flows.vault import NONCE_OCTETS

        return Desk(connection, self.actor(ticket), self._vault(connection), lambda: os.urandom(NONCE_OCTETS))

    def load_vault(self) -> Vault:
        """Under the key that is there; Failure when it is not."""
        from sms_aaa.config import key_path
        from sms_aaa.flows.vault import Vault
        from sms_aaa.node.key import KeyFault, read_or_create_key

        path = key_path(self.settings)
        if not path.exists():
            raise Failure(Exit.INVALID, f"{path}: the key is missing", "run it on a node, as the daemon's user")
        key = read_or_create_key(path, fresh=b"")
        if isinstance(key, KeyFault):
            raise Failure(Exit.INVALID, key.reason, key.remedy)
        return Vault(key)

    def _vault(self, connection: Connection) -> Vault:
        from sms_aaa.config import key_path
        from sms_aaa.db.nas import list_nas
        from sms_aaa.db.subscribers import count_services
        from sms_aaa.flows.vault import Vault
        from sms_aaa.node.key import KeyFault, read_or_create_key

        path = key_path(self.settings)
        if not path.exists() and (list_nas(connection) or count_services(connection)):
            # A fresh key would seal what no node can open, and could not open what is there.
            raise Failure(
                Exit.INVALID, f"{path}: the key is missing, and the database has secrets under it", "restore it there"
            )
        key = read_or_create_key(path, fresh=os.urandom(32))
        if isinstance(key, KeyFault):
            raise Failure(Exit.INVALID, key.reason, key.remedy)
        return Vault(key)


def schema_problem(status: SchemaStatus) -> tuple[str, str]:
    """(reason, remedy) for a schema that is not the one needed."""
    from sms_aaa.db.schema import SchemaState

    if status.state is SchemaState.UNKNOWN:
        reason = f"the database has schema {status.revision}, which this program does not know"
        return reason, f"run the program that goes with it (this one needs {status.needed})"
    has = "no schema" if status.state is SchemaState.EMPTY else f"schema {status.revision}"
    return f"the database has {has}, needed is {status.needed}", "run `sms-aaa db upgrade`"


def _without_secrets(said: str, dsn: str) -> str:
    """The first line of what libpq says, without what it quotes of a password that it took for a host or a port."""
    from sms_aaa.db.dsn import masked_dsn

    shown = masked_dsn(dsn)

    def quoted(match: re.Match[str]) -> str:
        is_harmless = match[1] in shown or _ADDRESS_OR_SOCKET.fullmatch(match[1])
        return match[0] if is_harmless else "***"

    return _QUOTED.sub(quoted, said.strip().partition("\n")[0])


def _login_name() -> str:
    """Who is at the terminal: behind sudo, the one who called it."""
    if caller := os.environ.get("SUDO_USER"):
        return caller
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def pass_caller(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the command its Caller first.

    Not click's own decorator: that goes through a context manager, which sets attributes on what is raised, and the
    outcomes of flows are frozen.
    """

    @wraps(command)
    def with_caller(*args: Any, **kwargs: Any) -> Any:
        return command(click.get_current_context().find_object(Caller), *args, **kwargs)

    return with_caller
