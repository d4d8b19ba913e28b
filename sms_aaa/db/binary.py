"""PostgreSQL's binary formats, for the tables that take so many rows that an object a value would be felt.

psycopg adapts value by value, which is right everywhere else: an array of bigints takes it 1 us an element, a COPY row
0.3 us a value. Here a column is packed with one call of struct, and so is a row. What is packed is what the server's
send functions write and its receive functions check: a value of the wrong length is refused, never misread.

An instant is an int here: microseconds since 2000-01-01 00:00 UTC, as the server keeps a timestamptz.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from struct import Struct, pack, unpack_from
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

from sms_aaa.rules.instants import instant_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from psycopg import Connection, Cursor
    from psycopg.abc import Buffer
    from psycopg.sql import Composed

_INT4, _INT8, _TIMESTAMPTZ, _NUMERIC = 23, 20, 1184, 1700
_INT4_ARRAY, _INT8_ARRAY, _TIMESTAMPTZ_ARRAY, _NUMERIC_ARRAY = 1007, 1016, 1185, 1231
_ARRAY_HEADER = Struct(">iiIii")
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_LENGTH = Struct(">i")

NULL_FIELD = b"\xff\xff\xff\xff"
"""Of a COPY row: a length of -1, and nothing behind it."""

WIRE_TYPES = {"timestamptz": "int8", "inet": "bytea", "cidr": "bytea"}
"""What set_types is to be told of a column whose values are made here; psycopg then packs them in C."""

ROWS_AT_ONCE = 256
"""Of a COPY, how many are sent together."""

ADDRESSES_KEPT = 65_536
_FAMILIES = {4: 2, 6: 3}  # PGSQL_AF_INET, PGSQL_AF_INET6


def optional_us(instant: datetime | None) -> int | None:
    """instant_us of one that may be missing."""
    return None if instant is None else instant_us(instant)


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


class Packed:
    """A parameter that is in its binary form already; what type it has, its class says."""

    __slots__ = ("octets",)

    def __init__(self, octets: bytes) -> None:
        self.octets = octets


class _Int8s(Packed):
    pass


class _Int4s(Packed):
    pass


class _Instants(Packed):
    pass


class _Numerics(Packed):
    pass


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Packed) -> bytes:
        return obj.octets


class _Int8sDumper(_PackedDumper):
    oid = _INT8_ARRAY


class _Int4sDumper(_PackedDumper):
    oid = _INT4_ARRAY


class _InstantsDumper(_PackedDumper):
    oid = _TIMESTAMPTZ_ARRAY


class _NumericsDumper(_PackedDumper):
    oid = _NUMERIC_ARRAY


psycopg.adapters.register_dumper(_Int8s, _Int8sDumper)
psycopg.adapters.register_dumper(_Int4s, _Int4sDumper)
psycopg.adapters.register_dumper(_Instants, _InstantsDumper)
psycopg.adapters.register_dumper(_Numerics, _NumericsDumper)


def int8s(values: Sequence[int]) -> Packed:
    """A parameter bigint[]."""
    return _Int8s(int8_array(values))


def int4s(values: Sequence[int]) -> Packed:
    """A parameter integer[]."""
    return _Int4s(int4_array(values))


def instants(values_us: Sequence[int]) -> Packed:
    """A parameter timestamptz[]."""
    return _Instants(instant_array(values_us))


def numerics(values: Sequence[int]) -> Packed:
    """A parameter numeric[]."""
    header = _ARRAY_HEADER.pack(1, 0, _NUMERIC, len(values), 1)
    return _Numerics(header + b"".join([numeric_field(value) for value in values]))


def int8_array(values: Sequence[int]) -> bytes:
    """A bigint[] of one dimension."""
    return _array(_INT8, "q", 8, values)


def int4_array(values: Sequence[int]) -> bytes:
    """An integer[] of one dimension."""
    return _array(_INT4, "i", 4, values)


def instant_array(values_us: Sequence[int]) -> bytes:
    """A timestamptz[] of one dimension."""
    return _array(_TIMESTAMPTZ, "q", 8, values_us)


def _array(element: int, code: str, octets: int, values: Sequence[int]) -> bytes:
    count = len(values)
    fields = [octets] * (2 * count)
    fields[1::2] = values
    return _ARRAY_HEADER.pack(1, 0, element, count, 1) + pack(f">{f'i{code}' * count}", *fields)


_NUMERIC_ZERO = pack(">ihhHh", 8, 0, 0, 0, 0)
_NUMERIC_NEGATIVE = 0x4000


def numeric_field(value: int) -> bytes:
    """A whole number as a numeric, with its length before it: digits to the base 10,000, the highest first."""
    if value == 0:
        return _NUMERIC_ZERO
    digits = []
    rest = abs(value)
    while rest:
        rest, digit = divmod(rest, 10_000)
        digits.append(digit)
    digits.reverse()
    count = len(digits)
    sign = _NUMERIC_NEGATIVE if value < 0 else 0
    return pack(f">ihhHh{count}h", 8 + 2 * count, count, count - 1, sign, 0, *digits)


def read_array(octets: Buffer) -> tuple[int, ...]:
    """The elements of an integer[], bigint[] or timestamptz[] of one dimension, none of them null."""
    dimensions, nulls, element = unpack_from(">iiI", octets)
    if dimensions == 0:
        return ()
    assert (dimensions, nulls) == (1, 0), "these arrays are flat and full"
    [count] = unpack_from(">i", octets, 12)
    code = "ii" if element == _INT4 else "iq"
    return unpack_from(f">{code * count}", octets, _ARRAY_HEADER.size)[1::2]


class _ArrayLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> tuple[int, ...]:
        return read_array(data)


class _InstantLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        [instant] = unpack_from(">q", data)
        return int(instant)


def load_ints(cursor: Cursor[Any]) -> None:
    """From now on instants, and arrays of instants and integers, come to this binary cursor as ints and tuples of them.

    An infinite instant is the last or the first of the ints of 8 octets.
    """
    cursor.adapters.register_loader(_TIMESTAMPTZ, _InstantLoader)
    for oid in (_INT4_ARRAY, _INT8_ARRAY, _TIMESTAMPTZ_ARRAY):
        cursor.adapters.register_loader(oid, _ArrayLoader)


def field(octets: bytes) -> bytes:
    """A value of a COPY row, with its length before it."""
    return _LENGTH.pack(len(octets)) + octets


@lru_cache(1024)
def node_field(node: str) -> bytes:
    """The name of a node as a field; there are few, and they stand in every row."""
    return field(node.encode())


def copy_rows(connection: Connection[Any], statement: str | Composed, rows: Iterable[bytes]) -> None:
    """A `copy ... from stdin (format binary)` of rows that are packed already: a count of fields, then each field.

    They are sent a chunk at a time: the server stores one while the next is packed.
    """
    remaining = iter(rows)
    with connection.cursor().copy(statement) as copy:
        copy.write(_COPY_HEADER)
        while chunk := b"".join(islice(remaining, ROWS_AT_ONCE)):
            copy.write(chunk)
        copy.write(_COPY_TRAILER)
