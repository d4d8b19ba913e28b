"""A plan's policy in the attributes of one vendor's NAS: compiled to octets once, not for every login.

Rates are decimal kbit/s. MikroTik names them from the router's side: rx is what it receives from the client, so the
client's upload, and comes first. The generic dialect speaks WISPr, bit/s in 32 bits, hence at most 4.29 Gbit/s.
"""

from __future__ import annotations

from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.rules.entitlement import Dialect, Policy

UINT32_MAX = (1 << 32) - 1


def encode_policy(policy: Policy, dialect: Dialect) -> bytes:
    """The reply attributes of a plan for this dialect."""
    limits = (
        (dictionary.SESSION_TIMEOUT, policy.session_timeout_seconds),
        (dictionary.IDLE_TIMEOUT, policy.idle_timeout_seconds),
        (dictionary.ACCT_INTERIM_INTERVAL, policy.interim_seconds),
    )
    common = b"".join(attribute(key, integer(min(value, UINT32_MAX))) for key, value in limits if value)
    rates = _mikrotik_rates(policy) if dialect is Dialect.MIKROTIK else _wispr_rates(policy)
    return common + rates


def _mikrotik_rates(policy: Policy) -> bytes:
    if not (policy.rate_up_kbps or policy.rate_down_kbps):
        return b""
    # In this grammar 0 stands for "no limit" on one side.
    text = f"{_mikrotik_rate(policy.rate_up_kbps)}/{_mikrotik_rate(policy.rate_down_kbps)}"
    return attribute(dictionary.MIKROTIK_RATE_LIMIT, text.encode())


def _mikrotik_rate(kbps: int) -> str:
    return f"{kbps // 1000}M" if kbps and kbps % 1000 == 0 else f"{kbps}k" if kbps else "0"


def _wispr_rates(policy: Policy) -> bytes:
    rates = (
        (dictionary.WISPR_BANDWIDTH_MAX_UP, policy.rate_up_kbps),
        (dictionary.WISPR_BANDWIDTH_MAX_DOWN, policy.rate_down_kbps),
    )
    return b"".join(attribute(key, integer(min(kbps * 1000, UINT32_MAX))) for key, kbps in rates if kbps)
