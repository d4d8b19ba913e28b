"""Deltas -> usage by hour and day of their account's zone, in the transaction that stores them.

A delta is a fact and is never cut; here a batch's deltas are shared over the hours that they touch (rules/hours.py),
and what falls into one hour of one service is added up before it is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfoNotFoundError

from sms_aaa.db import rollups as db_rollups
from sms_aaa.db import usage as db_usage
from sms_aaa.db.rollups import HourlyUsage
from sms_aaa.rules.hours import Hours, Share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.usage import UsageDelta

ACCOUNTS_MAX = 500_000


class Walls:
    """The walls that clocks hang on: an account's hours. It lasts as long as a connection.

    An account's zone is never changed, so what is known of it stays right.
    """

    def __init__(self) -> None:
        self._by_account: dict[int, Hours] = {}
        self._by_zone: dict[str, Hours] = {}

    def load(self, connection: Connection, account_ids: Iterable[int]) -> None:
        new = {account_id for account_id in account_ids if account_id not in self._by_account}
        if not new:
            return
        if len(self._by_account) > ACCOUNTS_MAX:
            self._by_account.clear()
        for account_id, zone in db_usage.list_zones(connection, new):
            self._by_account[account_id] = self._hours(zone)

    def of(self, account_id: int) -> Hours:
        return self._by_account[account_id]

    def _hours(self, zone: str) -> Hours:
        """A zone that the tz database of this machine lacks goes by UTC: its usage is not to be missing."""
        if zone not in self._by_zone:
            try:
                self._by_zone[zone] = Hours(zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                self._by_zone[zone] = Hours("UTC")
        return self._by_zone[zone]


def roll_up(connection: Connection, usages: Sequence[UsageDelta], walls: Walls) -> None:
    """Adds deltas to the hours and days of their services; one that belongs to no account is in none."""
    owned = [usage for usage in usages if usage.account_id is not None and usage.service_id is not None]
    walls.load(connection, {usage.account_id for usage in owned if usage.account_id is not None})
    hours: dict[tuple[int, int, datetime], HourlyUsage] = {}
    for usage in owned:
        account_id, service_id, delta = usage.account_id, usage.service_id, usage.delta
        assert account_id is not None
        assert service_id is not None
        wall = walls.of(account_id)
        hour = wall.find(delta.from_at)
        if delta.to_at <= hour.end:  # as nearly all do; share() says the same
            _add(hours, account_id, service_id, Share(hour, delta.octets_in, delta.octets_out, delta.seconds))
            continue
        for share in wall.share(
            delta.from_at,
            delta.to_at,
            octets_in=delta.octets_in,
            octets_out=delta.octets_out,
            seconds=delta.seconds,
        ):
            _add(hours, account_id, service_id, share)
    if hours:
        db_rollups.add_usage(connection, hours.values())


def _add(hours: dict[tuple[int, int, datetime], HourlyUsage], account_id: int, service_id: int, share: Share) -> None:
    key = (account_id, service_id, share.hour.start)
    known = hours.get(key)
    if known is None:
        hours[key] = HourlyUsage(*key, share.hour.day, share.octets_in, share.octets_out, share.seconds)
    else:
        known.octets_in += share.octets_in
        known.octets_out += share.octets_out
        known.seconds += share.seconds
