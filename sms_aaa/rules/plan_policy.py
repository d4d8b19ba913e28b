"""The [policy] of a plan file."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from sms_aaa.rules.entitlement import Policy, SessionsPolicy
from sms_aaa.rules.plan_table import Form, PlanInvalidError

if TYPE_CHECKING:
    from sms_aaa.rules.plan_table import Table

RATE_KBPS_MAX = 10**9  # 1 Tbit/s

_RATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kMG]bit/s)")
_KBPS_BY_UNIT = {"kbit/s": 1, "Mbit/s": 1_000, "Gbit/s": 1_000_000}
_UNSET = Policy()


def read_policy(table: Table) -> Policy:
    """What is left out has the Policy's default."""
    rate = partial(table.read, form=Form.RATE, reader=_kbps_of)
    unset = _UNSET
    return Policy(
        rate_up_kbps=table.optional("rate_up", rate) or unset.rate_up_kbps,
        rate_down_kbps=table.optional("rate_down", rate) or unset.rate_down_kbps,
        session_timeout_seconds=table.optional("session_timeout", table.duration) or unset.session_timeout_seconds,
        idle_timeout_seconds=table.optional("idle_timeout", table.duration) or unset.idle_timeout_seconds,
        interim_seconds=table.optional("interim", table.duration) or unset.interim_seconds,
        sessions_max=table.count("sessions"),
        sessions_policy=_sessions_policy(table),
        sessions_strict=table.flag("sessions_strict"),
    )


def _sessions_policy(table: Table) -> SessionsPolicy:
    key = "sessions_policy"
    if table.text(key) == "kick-oldest":
        raise PlanInvalidError(
            table.at(key),
            "is kick-oldest, which needs Disconnect-Requests, and this program does not send any yet",
            f"write one of {', '.join(SessionsPolicy)}",
        )
    return table.choice(key, SessionsPolicy)


def _kbps_of(rate: str) -> int:
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f"{rate[:40]!r} is not a rate in kbit/s, Mbit/s or Gbit/s")
    kbps = Fraction(match[1]) * _KBPS_BY_UNIT[match[2]]
    if kbps.denominator != 1 or not 1 <= kbps <= RATE_KBPS_MAX:
        raise ValueError(f"{rate!r} is not a whole number of kbit/s from 1 to {RATE_KBPS_MAX}")
    return int(kbps)
