"""Settings: one TOML file and the environment, read once into frozen values.

The structs below are the whole truth about a setting: its name, type, bounds and default stand on its line and
nowhere else; etc/sms-aaa.toml repeats them for people, and a test holds it equal. Each value is converted by itself,
so that a fault names the very line or variable it came from. What the program does not know it refuses: a mistyped
key that was quietly ignored would be found by the NOC at 3 a.m.

The environment wins over the file: SMS_AAA_<SECTION>_<KEY>, written as in TOML; a text may go without its quotes and
a list may be comma-separated. SMS_AAA_CONFIG names the file.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct, ValidationError

from sms_aaa.db.dsn import check_dsn, masked_dsn
from sms_aaa.rules.access import StrictAway, Unrebuilt
from sms_aaa.rules.realms import UnknownRealm
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from msgspec.structs import FieldInfo

DEFAULT_PATH = "/etc/sms-aaa/sms-aaa.toml"
ENVIRONMENT_PREFIX = "SMS_AAA_"
CONFIG_VARIABLE = "SMS_AAA_CONFIG"

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
OffOrCount = Annotated[int, Meta(ge=0, le=1_000_000)]  # 0: off
LimitSeconds = Annotated[int, Meta(ge=1, le=86_400)]
Workers = Annotated[int, Meta(ge=1, le=32)]
Listen = Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
DuplicateSeconds = Annotated[int, Meta(ge=5, le=30)]  # RFC 5080 section 2.2.2: 5 to 30 s
ReceiveBuffer = Annotated[int, Meta(ge=65_536, le=1_073_741_824)]
AGE_SECONDS_MIN = 30
JOURNAL_OCTETS_MIN = 134_217_728  # sixteen files of the smallest size: room is made by whole files
RetentionDays = Annotated[int, Meta(ge=1, le=36_500)]


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class WhenTooOld(StrEnum):
    """What becomes of logins when the replica is older than replica.age_seconds_max."""

    SERVE = "serve"
    REJECT = "reject"
    SILENCE = "silence"


class NodeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")] = "node1"
    state_folder: str = ""  # in loaded Settings always a full path: see default_state_folder
    live_folder: str = ""  # likewise: see default_live_folder
    live_octets: Annotated[int, Meta(ge=4_194_304, le=68_719_476_736)] = 268_435_456


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    dsn: Secret = Secret(b"")
    key_file: str = ""  # see key_path
    statement_timeout_seconds: Count = 30

    @property
    def embedded(self) -> bool:
        """True if no server is named, so that the program runs its own."""
        return not self.dsn.reveal()


class AccessSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: Listen = ("0.0.0.0:1812", "[::]:1812")
    workers: Workers = 2
    reject_delay_seconds: Annotated[float, Meta(ge=0, le=5)] = 1.0
    duplicate_seconds: DuplicateSeconds = 10
    reservation_seconds: Annotated[int, Meta(ge=1, le=3600)] = 60
    password_cache_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 300
    password_threads: Annotated[int, Meta(ge=1, le=32)] = 2
    unknown_realm: UnknownRealm = UnknownRealm.KEEP
    until_rebuilt: Unrebuilt = Unrebuilt.ADMIT
    strict_when_away: StrictAway = StrictAway.LOCAL
    strict_deadline_ms: Annotated[int, Meta(ge=50, le=5000)] = 1000
    receive_buffer_octets: ReceiveBuffer = 16_777_216


class AccountingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: Listen = ("0.0.0.0:1813", "[::]:1813")
    workers: Workers = 1
    duplicate_seconds: DuplicateSeconds = 10
    receive_buffer_octets: ReceiveBuffer = 16_777_216


class ReplicaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    age_seconds_max: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    when_too_old: WhenTooOld = WhenTooOld.SERVE


class JournalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # Above the largest batch: 1,024 records with a RADIUS packet of up to 4,096 octets each.
    file_octets_max: Annotated[int, Meta(ge=8_388_608, le=4_294_967_296)] = 67_108_864
    accounting_octets_max: Annotated[int, Meta(ge=0, le=1_125_899_906_842_624)] = 0
    decisions_octets_max: Annotated[int, Meta(ge=1_048_576)] = 1_073_741_824
    retention_days: RetentionDays = 7
    retention_hours_min: Annotated[int, Meta(ge=1, le=8_760)] = 24


class SessionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stale_multiple: Annotated[int, Meta(ge=2, le=100)] = 3
    stale_check_seconds: Annotated[int, Meta(ge=1, le=3600)] = 30


class SettlingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sessions_in_memory: Annotated[int, Meta(ge=0, le=10_000_000)] = 100_000


class HistorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    grace_days: Annotated[int, Meta(ge=1, le=365)] = 7
    sessions_days: RetentionDays = 400
    deltas_days: RetentionDays = 400
    hours_days: RetentionDays = 100
    days_days: RetentionDays = 1200


class RatingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")] = "EUR"
    zone: str = "UTC"
    anchor_day: Annotated[int, Meta(ge=1, le=31)] = 1
    interval_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 0.25
    close_grace_days: Annotated[int, Meta(ge=0, le=90)] = 3
    bulk_min: Annotated[int, Meta(ge=0, le=100_000)] = 2_000  # 0: off
    workers: Annotated[int, Meta(ge=1, le=8)] = 1


class DecisionsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    retention_days: RetentionDays = 90
    drops_retention_days: RetentionDays = 14


class LimitsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nas_requests_per_second: OffOrCount = 0
    nas_burst: Count = 10_000
    user_logins: OffOrCount = 100
    user_window_seconds: LimitSeconds = 10
    lockout_failures: OffOrCount = 10
    lockout_user_failures: OffOrCount = 100
    lockout_device_failures: OffOrCount = 100
    lockout_window_seconds: LimitSeconds = 300
    lockout_seconds: LimitSeconds = 300
    shed_queue_percent: Annotated[int, Meta(ge=1, le=100)] = 50
    stale_seconds: Annotated[float, Meta(ge=0.1, le=60)] = 2.0


class MetricsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:9812"


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: LogLevel = LogLevel.INFO


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an operator can set; a field is a [section] of the file."""

    node: NodeSettings = NodeSettings()
    database: DatabaseSettings = DatabaseSettings()
    access: AccessSettings = AccessSettings()
    accounting: AccountingSettings = AccountingSettings()
    replica: ReplicaSettings = ReplicaSettings()
    journal: JournalSettings = JournalSettings()
    session: SessionSettings = SessionSettings()
    settling: SettlingSettings = SettlingSettings()
    history: HistorySettings = HistorySettings()
    rating: RatingSettings = RatingSettings()
    decisions: DecisionsSettings = DecisionsSettings()
    limits: LimitsSettings = LimitsSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()


class SettingsError(Exception):
    """The settings cannot be used. `place` is a file with its key, or a variable; `remedy` is what to do about it."""

    def __init__(self, *, place: str, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}; {remedy}")
        self.place = place
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as somebody wrote it, and where."""

    place: str
    value: object


_FIELDS: dict[str, dict[str, FieldInfo]] = {
    section.name: {field.name: field for field in msgspec.structs.fields(section.type)}
    for section in msgspec.structs.fields(Settings)
}
_VARIABLES = {
    f"{ENVIRONMENT_PREFIX}{section}_{key}".upper(): (section, key) for section, keys in _FIELDS.items() for key in keys
}


def load_settings(path: str | None, environ: Mapping[str, str]) -> Settings:
    """The settings of this run; SettingsError if any of them is unknown or wrong.

    Without `path` the file is SMS_AAA_CONFIG's, else DEFAULT_PATH if there is one, else all defaults hold.
    """
    named = path or environ.get(CONFIG_VARIABLE)
    given = _read_file(named or DEFAULT_PATH, required=bool(named)) | _read_environment(environ)
    sections = {
        section.name: section.type(
            **{
                key: _converted(field, given[section.name, key], _CHECKS.get((section.name, key)))
                for key, field in _FIELDS[section.name].items()
                if (section.name, key) in given
            }
        )
        for section in msgspec.structs.fields(Settings)
    }
    node: NodeSettings = sections["node"]
    folder = Path(node.state_folder or default_state_folder(environ)).absolute()
    live = Path(node.live_folder or default_live_folder(environ) or folder).absolute()
    node = msgspec.structs.replace(node, state_folder=str(folder), live_folder=str(live))
    return Settings(**{**sections, "node": node})


def default_state_folder(environ: Mapping[str, str]) -> str:
    """Where a node keeps its state unless told: systemd's choice, else root's usual place, else the user's own."""
    if given := environ.get("STATE_DIRECTORY"):
        return given.split(":")[0]  # systemd joins several with colons
    if os.geteuid() == 0:
        return "/var/lib/sms-aaa"
    home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    return str((Path(home) if home.startswith("/") else Path.home() / ".local/state") / "sms-aaa")


def default_live_folder(environ: Mapping[str, str]) -> str:
    """Where the live set lies unless told: in systemd's RuntimeDirectory, which is memory; "": in the state folder."""
    return environ.get("RUNTIME_DIRECTORY", "").split(":")[0]


def key_path(settings: Settings) -> Path:
    """The file that holds the key for secrets at rest."""
    return Path(settings.database.key_file or Path(settings.node.state_folder) / "key").absolute()


def parse_listen(text: str) -> tuple[str, int]:
    """("0.0.0.0", 1812) from "0.0.0.0:1812", ("::", 1812) from "[::]:1812"; ValueError says what is wrong.

    Port 0 lets the kernel choose. Names are refused: a server must not wait for DNS to start.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"`{text}` does not end in a port, as in 0.0.0.0:1812")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f"`{text}` does not begin with an IP address, as in 0.0.0.0:1812 or [::]:1812") from None
    if bracketed != (address.version == 6):
        raise ValueError(f"`{text}`: an IPv6 address stands in brackets, an IPv4 address does not")
    return str(address), int(port)


def masked(settings: Settings) -> dict[str, dict[str, Any]]:
    """{section: {key: value}} for people's eyes: plain values, passwords as ***."""
    shown: dict[str, dict[str, Any]] = msgspec.to_builtins(settings, enc_hook=_shown)
    return shown


def _shown(value: object) -> str:
    assert isinstance(value, Secret)
    return masked_dsn(value.reveal().decode())


def _read_file(path: str, *, required: bool) -> dict[tuple[str, str], _Given]:
    """What the file says, each value with its place; nothing if it need not exist and does not."""
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise _unreadable(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(place=path, reason=f"is not TOML: {error}", remedy="correct that line") from error
    given: dict[tuple[str, str], _Given] = {}
    for section, table in document.items():
        if section not in _FIELDS:
            raise SettingsError(place=f"{path}: {section}", reason="no such section", remedy=_instead(section, _FIELDS))
        if not isinstance(table, dict):
            raise SettingsError(place=f"{path}: {section}", reason="is not a section", remedy=f"write [{section}]")
        for key, value in table.items():
            place = f"{path}: {section}.{key}"
            if key not in _FIELDS[section]:
                raise SettingsError(place=place, reason="no such key", remedy=_instead(key, _FIELDS[section]))
            given[section, key] = _Given(place, value)
    return given


def _unreadable(path: str, error: OSError) -> SettingsError:
    remedy = f"give this user a readable file there, or name another one in {CONFIG_VARIABLE}"
    return SettingsError(place=path, reason=f"cannot be read: {error.strerror}", remedy=remedy)


def _read_environment(environ: Mapping[str, str]) -> dict[tuple[str, str], _Given]:
    given: dict[tuple[str, str], _Given] = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in _VARIABLES:
            remedy = _instead(variable, [*_VARIABLES, CONFIG_VARIABLE])
            raise SettingsError(place=variable, reason="no such setting in the environment", remedy=remedy)
        section, key = _VARIABLES[variable]
        given[section, key] = _Given(variable, _from_variable(text, _FIELDS[section][key].default))
    return given


def _from_variable(text: str, default: object) -> object:
    """The value that a variable means for a setting whose default is `default`: TOML, else plain text, else a list."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if isinstance(default, tuple) and not isinstance(value, list):
        return [item.strip() for item in text.split(",")]
    if isinstance(default, str | Secret) and not isinstance(value, str):
        return text  # a name of digits is still a name
    return value


def _converted(field: FieldInfo, given: _Given, check: Callable[[Any], object] | None) -> Any:
    try:
        value = msgspec.convert(given.value, field.type, dec_hook=_secret)
        if check is not None:
            check(value)
    except (ValidationError, ValueError) as error:
        # None of these texts holds the value of `dsn`, so it may be shown and chained.
        raise SettingsError(place=given.place, reason=str(error), remedy=_as_default(field)) from error
    return value


def _secret(kind: type, value: object) -> Secret:
    assert kind is Secret
    if not isinstance(value, str):
        raise TypeError("Expected `str`")
    try:
        return Secret(value.encode())
    except UnicodeEncodeError:  # its text would quote the octet that is none
        raise ValueError("it is not UTF-8") from None


def _as_default(field: FieldInfo) -> str:
    if isinstance(field.type, type) and issubclass(field.type, StrEnum):
        return f"write one of {', '.join(json.dumps(value) for value in field.type)}"
    default = "" if isinstance(field.default, Secret) else field.default
    return f"write it like the default, {field.name} = {json.dumps(default)}, or leave it out"


def _instead(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found, a folder of zones, a path that leaves the database
        raise ValueError(f"`{name}` is not a time zone of the tz database, as Europe/Berlin is") from None


def _check_age(seconds: int) -> None:
    if 0 < seconds < AGE_SECONDS_MIN:
        raise ValueError(f"the replica's date is written every 5 s: 0 for no limit, or at least {AGE_SECONDS_MIN}")


def _check_journal_bound(octets: int) -> None:
    if 0 < octets < JOURNAL_OCTETS_MIN:
        raise ValueError(f"room is made by whole files: 0 for no bound, or at least {JOURNAL_OCTETS_MIN}")


def _check_listen(addresses: tuple[str, ...]) -> None:
    parsed = [parse_listen(text) for text in addresses]
    if len(set(parsed)) < len(parsed):
        raise ValueError("an address stands there twice")


_CHECKS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("access", "listen"): _check_listen,
    ("accounting", "listen"): _check_listen,
    ("database", "dsn"): check_dsn,
    ("journal", "accounting_octets_max"): _check_journal_bound,
    ("metrics", "listen"): parse_listen,
    ("rating", "zone"): _check_zone,
    ("replica", "age_seconds_max"): _check_age,
}
