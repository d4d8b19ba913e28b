"""Which sessions are meant: the options that narrow a listing down, and what is made of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from sms_aaa.cli.options import parse_duration, parse_octets, parse_since, parse_stations
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_lists import SessionFilter

LOOK_BACK = timedelta(days=7)
"""How far the history is searched for what no index leads to, unless it is said."""

_STATES = {state.name.lower(): state for state in (State.OPEN, State.CLOSED, State.LAPSED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options as they were typed."""

    every: bool
    state: tuple[str, ...]
    nas: str | None
    plan: str | None
    realm: str | None
    station: str | None
    address: str | None
    port_id: str | None
    since: str | None
    until: str | None
    longer_than: str | None
    more_than: str | None
    excluded: bool


_OPTIONS = (
    click.option("--all", "every", is_flag=True, help="Those that have ended, too; as --since and --until do."),
    click.option("--state", type=click.Choice(list(_STATES)), multiple=True, help="In this state; may be repeated."),
    click.option("--nas", metavar="NAME", help="On one access server."),
    click.option("--plan", metavar="NAME", help="Of services that were on this plan when it began."),
    click.option("--realm", metavar="NAME", help="Under user names of this realm."),
    click.option("--mac", "--station", "station", metavar="ADDRESS", help="Of a device, in whatever notation."),
    click.option("--ip", "--prefix", "address", metavar="ADDRESS", help="With an address, or one of a prefix."),
    click.option("--port-id", metavar="TEXT", help="On a line, as NAS-Port-Id has it."),
    click.option("--since", metavar="WHEN", help="Online at some time since: 30m, 12h, 7d, a date."),
    click.option("--until", metavar="WHEN", help="Begun before: 30m ago, or a date."),
    click.option("--longer-than", metavar="DURATION", help="Of at least so much time: 90s, 30m, 12h, 7d."),
    click.option("--more-than", metavar="OCTETS", help="Of at least so much usage, up and down: 500MB, 10GB."),
    click.option("--excluded", is_flag=True, help="That belong to no service."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets `asked`."""
    names = [field.name for field in fields(Asked)]

    @wraps(command)
    def with_asked(*args: Any, **kwargs: Any) -> Any:
        asked = Asked(**{name: kwargs.pop(name) for name in names})
        return command(*args, asked=asked, **kwargs)

    for option in reversed(_OPTIONS):
        with_asked = option(with_asked)
    return with_asked


def session_filter(connection: Connection, asked: Asked, name: str | None, *, zone: str) -> SessionFilter:
    """What was asked for. Refused where a NAS, plan or realm of that name is not there."""
    from sms_aaa.db.session_lists import SessionFilter
    from sms_aaa.flows.provisioning.nas import get_nas

    now = datetime.now(UTC)
    return SessionFilter(
        states=_states(asked),
        name=name,
        nas_id=get_nas(connection, asked.nas).id if asked.nas is not None else None,
        plan=asked.plan,
        realm=asked.realm,
        stations=parse_stations(asked.station) if asked.station is not None else None,
        address=_address(asked.address) if asked.address is not None else None,
        port_id=asked.port_id,
        since=parse_since(asked.since, zone, now) if asked.since is not None else None,
        until=parse_since(asked.until, zone, now, option="--until") if asked.until is not None else None,
        seconds_min=parse_duration(asked.longer_than, option="--longer-than") if asked.longer_than else None,
        octets_min=parse_octets(asked.more_than, option="--more-than") if asked.more_than else None,
        is_excluded=asked.excluded,
    )


def bounded(wanted: SessionFilter, *, newest_first: bool) -> SessionFilter:
    """With a bound on how far back it looks, where the whole history would have to be read for it."""
    bare = replace(wanted, states=tuple(_STATES.values()), since=None, until=None)
    stops_early = newest_first and wanted.states == bare.states and bare == _everything(bare)
    if wanted.since is not None or not wanted.has_ended or wanted.is_narrow or stops_early:
        return wanted
    return replace(wanted, since=(wanted.until or datetime.now(UTC)) - LOOK_BACK)


def _everything(bare: SessionFilter) -> SessionFilter:
    return type(bare)(states=bare.states)


def _states(asked: Asked) -> tuple[State, ...]:
    if asked.every and asked.state:
        raise click.UsageError("--all and --state exclude each other: give one.")
    if asked.every or (not asked.state and (asked.since or asked.until)):
        return tuple(_STATES.values())
    return tuple(state for name, state in _STATES.items() if name in asked.state) or (State.OPEN,)


def _address(text: str) -> str:
    from ipaddress import ip_network

    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither an address nor a prefix; write it as 100.64.0.7 or 2001:db8::/56.",
            param_hint="'--ip'",
        ) from None
