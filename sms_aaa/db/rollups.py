"""Usage by hour and by day: sums of deltas, kept up with them in one transaction."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db.sessions import array_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sms_aaa.db.engine import Connection


class HourlyUsage(Struct, gc=False):
    """What a batch adds to a service's hour; octets in are from the subscriber (upload)."""

    account_id: int
    service_id: int
    hour_at: datetime
    day: date
    octets_in: int
    octets_out: int
    seconds: int


def add_usage(connection: Connection, hours: Iterable[HourlyUsage]) -> None:
    """Adds to the hours, each given once, and to their days.

    In the order of their keys, so that two nodes that add to the same ones never wait in a circle.
    """
    hourly = sorted(hours, key=lambda one: (one.account_id, one.service_id, one.hour_at))
    days: dict[tuple[int, int, date], list[int]] = {}
    for one in hourly:
        sums = days.setdefault((one.account_id, one.service_id, one.day), [0, 0, 0])
        sums[0] += one.octets_in
        sums[1] += one.octets_out
        sums[2] += one.seconds
    daily = [(*key, sums[0], sums[1], sums[2]) for key, sums in sorted(days.items())]
    connection.execute(
        """insert into usage_hour as u (account_id, service_id, hour_at, octets_in, octets_out, seconds)
           select * from unnest(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::bigint[])
             as n(account, service, hour, octets_in, octets_out, seconds) order by 1, 2, 3
           on conflict (account_id, service_id, hour_at) do update set octets_in = u.octets_in + excluded.octets_in,
             octets_out = u.octets_out + excluded.octets_out, seconds = u.seconds + excluded.seconds""",
        _columns([
            (one.account_id, one.service_id, one.hour_at, one.octets_in, one.octets_out, one.seconds) for one in hourly
        ]),
    )  # fmt: skip
    connection.execute(
        """insert into usage_day as u (account_id, service_id, day, octets_in, octets_out, seconds)
           select * from unnest(%s::bigint[], %s::bigint[], %s::date[], %s::bigint[], %s::bigint[], %s::bigint[])
             as n(account, service, day, octets_in, octets_out, seconds) order by 1, 2, 3
           on conflict (account_id, service_id, day) do update set octets_in = u.octets_in + excluded.octets_in,
             octets_out = u.octets_out + excluded.octets_out, seconds = u.seconds + excluded.seconds""",
        _columns(daily),
    )


def _columns(rows: Sequence[tuple[int, int, date, int, int, int]]) -> tuple[str, ...]:
    """Rows as one array a column."""
    account_ids, service_ids, times, octets_in, octets_out, seconds = zip(*rows, strict=True)
    named = {time: f'"{time.isoformat()}"' for time in set(times)}
    moments = "{" + ",".join(map(named.__getitem__, times)) + "}"
    return (
        array_of(account_ids), array_of(service_ids), moments, array_of(octets_in), array_of(octets_out),
        array_of(seconds),
    )  # fmt: skip
