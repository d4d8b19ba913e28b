"""Debian's FreeRADIUS 3.2, set up for a measurement beside ours: users in memory, and users in PostgreSQL.

The configuration is written whole into a folder of the caller's; of the installed one only the schema and the queries
of rlm_sql are used, as Debian ships them. Reject delay is 0, what is answered is kept for 2 s, nothing is logged.
Each user has what ours has: a password, an address and the rights of a plan.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

# Debian keeps the program where only root looks.
PROGRAM = shutil.which("freeradius") or shutil.which("radiusd") or shutil.which("freeradius", path="/usr/sbin")
QUERY_FOLDERS = [Path(root) / "mods-config/sql/main/postgresql" for root in ("/etc/freeradius/3.0", "/etc/raddb")]
READY_SECONDS_MAX = 120.0

CONFIGURATION = """
prefix = /usr
logdir = {folder}
raddbdir = {folder}
run_dir = {folder}
libdir = /usr/lib/freeradius
cleanup_delay = 2
max_requests = 65536
proxy_requests = no
log {{
	destination = files
	file = {folder}/radius.log
	auth = no
}}
security {{
	max_attributes = 200
	reject_delay = 0
	status_server = no
}}
thread pool {{
	start_servers = {servers_start}
	max_servers = {servers_max}
	min_spare_servers = 1
	max_spare_servers = {servers_max}
	max_requests_per_server = 0
	max_queue_size = 65536
}}
client loopback {{
	ipaddr = 127.0.0.0/8
	secret = {secret}
	require_message_authenticator = no
}}
modules {{
	pap {{
	}}
	chap {{
	}}
	mschap {{
	}}
	expr {{
	}}
	files {{
		key = "%{{User-Name}}"
		usersfile = {folder}/users
	}}
	{sql}
}}
server memory {{
	listen {{
		type = auth
		ipaddr = 127.0.0.1
		port = {memory_port}
		recv_buff = 16777216
	}}
	authorize {{
		chap
		mschap
		files
		pap
	}}
	{authenticate}
}}
"""

AUTHENTICATE = """authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type CHAP {
			chap
		}
		Auth-Type MS-CHAP {
			mschap
		}
	}"""

SQL_SERVER = """
server database {{
	listen {{
		type = auth
		ipaddr = 127.0.0.1
		port = {sql_port}
		recv_buff = 16777216
	}}
	listen {{
		type = acct
		ipaddr = 127.0.0.1
		port = {sql_accounting_port}
		recv_buff = 16777216
	}}
	authorize {{
		chap
		mschap
		sql
		pap
	}}
	{authenticate}
	preacct {{
		update request {{
			&Acct-Unique-Session-Id := "%{{md5:%{{User-Name}},%{{Acct-Session-Id}},%{{NAS-IP-Address}},%{{NAS-Port}}}}"
		}}
	}}
	accounting {{
		sql
	}}
	post-auth {{
		sql
	}}
}}
"""

SQL_MODULE = """sql {{
		dialect = "postgresql"
		driver = "rlm_sql_postgresql"
		radius_db = "{conninfo}"
		acct_table1 = "radacct"
		acct_table2 = "radacct"
		postauth_table = "radpostauth"
		authcheck_table = "radcheck"
		groupcheck_table = "radgroupcheck"
		authreply_table = "radreply"
		groupreply_table = "radgroupreply"
		usergroup_table = "radusergroup"
		client_table = "nas"
		group_attribute = "SQL-Group"
		read_groups = yes
		delete_stale_sessions = yes
		pool {{
			start = {servers_start}
			min = {servers_start}
			max = {servers_max}
			spare = {servers_start}
			uses = 0
			retry_delay = 30
			lifetime = 0
			idle_timeout = 600
		}}
		$INCLUDE {queries}/queries.conf
	}}"""

USER = """user{number:07d} Cleartext-Password := "pw{number:07d}"
	Framed-Protocol := PPP,
	Framed-IP-Address := 10.{high}.{middle}.{low},
	Mikrotik-Rate-Limit := "20M/100M",
	Acct-Interim-Interval := 300,
	Session-Timeout := 86400

"""

ROWS = """
insert into radcheck (username, attribute, op, value)
    select 'user' || lpad(n::text, 7, '0'), 'Cleartext-Password', ':=', 'pw' || lpad(n::text, 7, '0') from {numbers};
insert into radusergroup (username, groupname, priority)
    select 'user' || lpad(n::text, 7, '0'), 'gold', 1 from {numbers};
insert into radreply (username, attribute, op, value)
    select 'user' || lpad(n::text, 7, '0'), 'Framed-IP-Address', ':=', host('10.0.0.0'::inet + n) from {numbers};
insert into radgroupreply (groupname, attribute, op, value) values
    ('gold', 'Framed-Protocol', ':=', 'PPP'), ('gold', 'Mikrotik-Rate-Limit', ':=', '20M/100M'),
    ('gold', 'Acct-Interim-Interval', ':=', '300'), ('gold', 'Session-Timeout', ':=', '86400');
"""


@dataclass(frozen=True, slots=True)
class FreeRadius:
    """One that runs. `sql_port`, `sql_accounting_port` are 0 without rlm_sql."""

    memory_port: int
    sql_port: int
    sql_accounting_port: int


def find_queries() -> Path | None:
    """The folder of rlm_sql's schema and queries for PostgreSQL; None when this user may not read it."""
    return next((folder for folder in QUERY_FOLDERS if _is_readable(folder / "queries.conf")), None)


def _is_readable(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return False


def fill_database(connection: Connection, queries: Path, users: int) -> None:
    """rlm_sql's own tables with `users` numbers; committed."""
    connection.execute("set statement_timeout = 0")
    connection.execute((queries / "schema.sql").read_text())
    connection.execute(ROWS.format(numbers=f"generate_series(0, {users - 1}) n"))
    connection.commit()
    connection.autocommit = True
    connection.execute("vacuum analyze")


@contextmanager
def running(
    folder: Path, *, secret: bytes, users: int, threads: int, conninfo: str | None, queries: Path | None
) -> Iterator[FreeRadius]:
    """FreeRADIUS with up to `threads`, for as long as the block; with rlm_sql when there is a `conninfo`."""
    assert PROGRAM is not None
    folder.mkdir()
    with_sql = conninfo is not None and queries is not None
    ports = FreeRadius(free_port(), free_port() if with_sql else 0, free_port() if with_sql else 0)
    values = {
        "folder": folder,
        "secret": secret.decode(),
        "servers_start": max(1, threads // 2),
        "servers_max": threads,
        "memory_port": ports.memory_port,
        "sql_port": ports.sql_port,
        "sql_accounting_port": ports.sql_accounting_port,
        "conninfo": conninfo,
        "queries": queries,
        "authenticate": AUTHENTICATE,
    }
    sql = SQL_MODULE.format(**values) if with_sql else ""
    text = CONFIGURATION.format(**values, sql=sql) + (SQL_SERVER.format(**values) if with_sql else "")
    (folder / "radiusd.conf").write_text(text)
    with (folder / "users").open("w") as file:
        file.writelines(
            USER.format(number=n, high=n >> 16 & 255, middle=n >> 8 & 255, low=n & 255) for n in range(users)
        )
    out = folder / "out"
    with out.open("wb") as said:
        command = [PROGRAM, "-d", str(folder), "-f", "-l", str(folder / "radius.log")]
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        _wait_until_ready(process, folder / "radius.log", out)
        yield ports
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path, out: Path) -> None:
    until = time.monotonic() + READY_SECONDS_MAX
    while not (log.is_file() and "Ready to process" in log.read_text()):
        if process.poll() is not None or time.monotonic() > until:
            told = (log.read_text() if log.is_file() else "") + out.read_text()
            raise RuntimeError(f"FreeRADIUS does not start: {told[-2000:]}")
        time.sleep(0.1)
