"""Values as COPY BINARY sends them, where psycopg would take longer: it makes them in Python, one object at a time.

A timestamptz goes over the wire as 8 octets of an integer, an inet as a few octets: so they are given to psycopg as
int8 and bytea, which it packs in C. Of a COPY of sessions that saves half the time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address

WIRE_TYPES = {"timestamptz": "int8", "inet": "bytea", "cidr": "bytea"}
"""What set_types is to be told of a column whose values are made here; any other type is told as it is."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FAMILIES = {4: 2, 6: 3}  # PGSQL_AF_INET, PGSQL_AF_INET6
ADDRESSES_KEPT = 65_536


def timestamptz(at: datetime | None) -> int | None:
    """Microseconds since 2000."""
    return None if at is None else (at - _EPOCH) // _MICROSECOND


@lru_cache(ADDRESSES_KEPT)
def inet(address: str | None) -> bytes | None:
    """An IPv4 or IPv6 address without a prefix."""
    return None if address is None else _network(address, "", is_cidr=False)


@lru_cache(ADDRESSES_KEPT)
def cidr(prefix: str | None) -> bytes | None:
    """A prefix such as 2001:db8::/56, the bits behind it zero."""
    if prefix is None:
        return None
    address, _, bits = prefix.partition("/")
    return _network(address, bits, is_cidr=True)


def _network(address: str, bits: str, *, is_cidr: bool) -> bytes:
    known = ip_address(address)
    length = int(bits) if bits else known.max_prefixlen
    return bytes((_FAMILIES[known.version], length, is_cidr, len(known.packed))) + known.packed
