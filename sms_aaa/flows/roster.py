"""The file of subscribers: its columns, a row read into what provisioning takes, a stored subscriber written as a row.

One form for import and export. A cell that is empty means the default for a new subscriber. When one is updated, what
is stored stays, except what may be empty (contacts, address, dates, bindings): that is emptied, if its column is there.
Of a kind a service may be bound to several things, each on a line of its own in the cell: any other separator may be
part of the name of a port or a NAS.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from sms_aaa.flows.provisioning.desk import Invalid
from sms_aaa.flows.provisioning.subscribers import NewSubscriber
from sms_aaa.flows.provisioning.terms import Bonds
from sms_aaa.radius.hashes import Form
from sms_aaa.radius.stored_writing import write_stored
from sms_aaa.rules.entitlement import IdentityKind, ServiceState
from sms_aaa.rules.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sms_aaa.db.imports import StoredSubscriber
    from sms_aaa.radius.credentials import StoredPassword
    from sms_aaa.rules.tabular import Record


class Column(StrEnum):
    """In the order of an export."""

    NAME = "name"
    USERNAME = "username"
    MAC = "mac"
    PASSWORD = "password"  # noqa: S105 - a column's name
    PASSWORD_FORM = "password_form"  # noqa: S105 - likewise
    PLAN = "plan"
    PLAN_VERSION = "plan_version"
    FULL_NAME = "full_name"
    EMAIL = "email"
    PHONE = "phone"
    STATE = "state"
    STATE_REASON = "state_reason"
    STATIC_IPV4 = "static_ipv4"
    VALID_FROM = "valid_from"
    VALID_UNTIL = "valid_until"
    BIND_MAC = "bind_mac"
    BIND_NAS = "bind_nas"
    BIND_PORT = "bind_port"
    CURRENCY = "currency"
    ZONE = "zone"
    ANCHOR_DAY = "anchor_day"


SECRET_COLUMNS = frozenset({Column.PASSWORD, Column.PASSWORD_FORM})

REJECT_COLUMNS = ("reject_line", "reject_field", "reject_reason", "reject_remedy", "reject_text")
"""What a rejects file has behind the columns of the import; not read, so that it can be mended and imported itself."""

_CLEARED_BY_EMPTY = (
    Column.FULL_NAME, Column.EMAIL, Column.PHONE, Column.STATIC_IPV4, Column.VALID_FROM, Column.VALID_UNTIL,
    Column.BIND_MAC, Column.BIND_NAS, Column.BIND_PORT,
)  # fmt: skip
_STATES = {state.name.lower(): state for state in ServiceState if state is not ServiceState.CANCELLED}

_FORM_AUTO = "auto"

Row = dict[Column, str]
"""The cells of a row by column; a column that the file does not have is missing."""


@dataclass(frozen=True, slots=True)
class Header:
    """The file's columns in its order; None: one of a rejects file."""

    columns: tuple[Column | None, ...]


@dataclass(frozen=True, slots=True)
class Defaults:
    """Of accounts whose row says nothing."""

    zone: str
    anchor_day: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A row as read. `plan_version` None: the newest."""

    new: NewSubscriber
    plan_version: int | None
    state: ServiceState
    state_reason: str
    valid_from: datetime | None
    valid_until: datetime | None
    bonds: Bonds
    currency: str | None


def read_header(cells: Sequence[str]) -> Header:
    """Invalid when a column is not known, there twice, or missing."""
    known = {column.value: column for column in Column}
    names = [cell.strip().lower() for cell in cells]
    unknown = [name for name in names if name not in known and name not in REJECT_COLUMNS]
    if unknown:
        shown = ", ".join(repr(name) for name in unknown)
        raise Invalid(
            "the first line",
            f"not columns of a subscriber file: {shown}",
            f"separate them by commas; known are {', '.join(known)}",
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise Invalid("the first line", f"the column {min(twice)} is there twice", "remove one")
    if Column.NAME not in names:
        raise Invalid("the first line", "the column name is missing", f"known are {', '.join(known)}")
    return Header(tuple(known.get(name) for name in names))


def read_row(header: Header, record: Record) -> Row:
    """Invalid when the record has other cells than the header says."""
    if record.fault is not None:
        raise Invalid("row", record.fault.value, "correct the line")
    if b"\0" in record.raw:
        raise Invalid("row", "it has a NUL octet", "remove it")
    if len(record.cells) != len(header.columns):
        raise Invalid(
            "row",
            f"it has {len(record.cells)} cells, the first line has {len(header.columns)}",
            "put a cell that has a comma in it between quotes",
        )
    return {column: cell for column, cell in zip(header.columns, record.cells, strict=True) if column is not None}


def read_entry(row: Mapping[Column, str], defaults: Defaults) -> Entry:
    """What a whole row says; Invalid with the column when a cell cannot be read."""
    get = row.get
    password, plan_version = get(Column.PASSWORD), get(Column.PLAN_VERSION)
    anchor_day, form = get(Column.ANCHOR_DAY), _form(get(Column.PASSWORD_FORM))
    state = _STATES.get(get(Column.STATE) or "active")
    if state is None:
        raise Invalid(Column.STATE, f"{get(Column.STATE)!r} is no state", f"write {' or '.join(_STATES)}")
    new = NewSubscriber(
        name=row[Column.NAME],
        plan=get(Column.PLAN) or None,
        full_name=get(Column.FULL_NAME, ""),
        email=get(Column.EMAIL, ""),
        phone=get(Column.PHONE, ""),
        username=get(Column.USERNAME) or None,
        mac=get(Column.MAC) or None,
        password=_secret(password, form) if password else None,
        form=form,
        static_ipv4=get(Column.STATIC_IPV4) or None,
        zone=get(Column.ZONE) or defaults.zone,
        anchor_day=_number(Column.ANCHOR_DAY, anchor_day) if anchor_day else defaults.anchor_day,
    )
    if new.mac is not None and (new.password is not None or new.username is not None):
        raise Invalid(Column.MAC, "a device is its own credential", "leave username and password empty")
    since, until = (_instant(column, get(column), new.zone) for column in (Column.VALID_FROM, Column.VALID_UNTIL))
    if since is not None and until is not None and since >= until:
        raise Invalid(Column.VALID_UNTIL, "it is not after the beginning", "let it end later, or begin earlier")
    return Entry(
        new,
        plan_version=_number(Column.PLAN_VERSION, plan_version) if plan_version else None,
        state=state,
        state_reason=get(Column.STATE_REASON, ""),
        valid_from=since,
        valid_until=until,
        bonds=Bonds(
            macs=_lines(get(Column.BIND_MAC)), nases=_lines(get(Column.BIND_NAS)), ports=_lines(get(Column.BIND_PORT))
        ),
        currency=get(Column.CURRENCY) or None,
    )


def write_password(stored: StoredPassword) -> Row:
    """Its two cells."""
    text = write_stored(stored).decode("utf-8" if stored.form is Form.CLEARTEXT else "latin-1")
    return {Column.PASSWORD: text, Column.PASSWORD_FORM: stored.form.name.lower()}


def write_row(stored: StoredSubscriber) -> Row:
    """A stored subscriber, without its password."""
    is_device = stored.identity_kind == IdentityKind.MAC
    identity = stored.identity or ""
    cells = {
        Column.NAME: stored.name,
        Column.USERNAME: "" if is_device else identity,
        Column.MAC: identity if is_device else "",
        Column.PLAN: stored.plan,
        Column.PLAN_VERSION: stored.plan_version,
        Column.FULL_NAME: stored.full_name,
        Column.EMAIL: stored.email,
        Column.PHONE: stored.phone,
        Column.STATE: ServiceState(stored.state).name.lower() if stored.state is not None else "",
        Column.STATE_REASON: stored.state_reason,
        Column.STATIC_IPV4: stored.static_ipv4,
        Column.VALID_FROM: _written(stored.valid_from),
        Column.VALID_UNTIL: _written(stored.valid_until),
        Column.BIND_MAC: "\n".join(stored.bound_macs),
        Column.BIND_NAS: "\n".join(stored.bound_nases),
        Column.BIND_PORT: "\n".join(stored.bound_ports),
        Column.CURRENCY: stored.currency,
        Column.ZONE: stored.zone,
        Column.ANCHOR_DAY: stored.anchor_day,
    }
    return {column: "" if cell is None else str(cell) for column, cell in cells.items()}


def merged(row: Row, stored: Row) -> Row:
    """What a subscriber is to be after an update: what the row says, and else what is stored."""
    whole = stored | {column: cell for column, cell in row.items() if cell or column in _CLEARED_BY_EMPTY}
    if row.get(Column.MAC):
        whole[Column.USERNAME] = row.get(Column.USERNAME, "")
    elif row.get(Column.USERNAME):
        whole[Column.MAC] = ""
    if row.get(Column.STATE) and whole[Column.STATE] != stored[Column.STATE]:
        whole[Column.STATE_REASON] = row.get(Column.STATE_REASON, "")  # the old reason was the old state's
    if whole[Column.PLAN] != stored[Column.PLAN] and not row.get(Column.PLAN_VERSION):
        whole[Column.PLAN_VERSION] = ""  # the newest of the other plan
    return whole


def _form(text: str | None) -> Form | None:
    """As --form has it; None: as the password's header or its beginning tells."""
    if not text:
        return Form.CLEARTEXT
    if text == _FORM_AUTO:
        return None
    try:
        return Form[text.upper()]
    except KeyError:
        known = ", ".join((_FORM_AUTO, *(form.name.lower() for form in Form)))
        raise Invalid(Column.PASSWORD_FORM, f"{text!r} is no form", f"known are {known}") from None


def _secret(text: str, form: Form | None) -> Secret:
    """A password is UTF-8; a hash is octets, of which crypt(3) allows any in a salt."""
    if form not in {None, Form.CLEARTEXT}:
        with suppress(UnicodeEncodeError):
            return Secret(text.encode("latin-1"))
    return Secret(text.encode())


def _number(column: Column, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise Invalid(column, f"{text!r} is not a number", "write digits alone")
    return int(text)


def _instant(column: Column, text: str | None, zone: str) -> datetime | None:
    """2026-01-31 or 2026-01-31T12:00 by the clock of `zone`, or with an offset."""
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text).replace(microsecond=0)
        return instant if instant.tzinfo is not None else instant.replace(tzinfo=ZoneInfo(zone))
    except (ValueError, OSError):  # an unknown zone is said by itself
        raise Invalid(
            column, f"{text!r} is no date", "write it as 2026-01-31, 2026-01-31T12:00 or 2026-01-31T12:00Z"
        ) from None


def _written(instant: datetime | None) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z") if instant is not None else ""


def _lines(cell: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.splitlines())) if cell else ()
