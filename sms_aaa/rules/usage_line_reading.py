"""Reads the lines of a usage file: JSON objects -> values of usage_lines.py, in arrival order.

A line that tells no instant lies at the latest one told so far, which is known only when all are read: until then it
has the instant UNTOLD.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa.rules.grant_reading import read_grant
from sms_aaa.rules.instants import INSTANT_MIN, SECOND_US, instant_us
from sms_aaa.rules.line_fields import Fields
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.packet_reading import dated_packet, read_packet
from sms_aaa.rules.tariff import DEFAULT_KEY, Tariff
from sms_aaa.rules.usage_line_keys import LINES
from sms_aaa.rules.usage_lines import (
    ITSELF,
    Cancel,
    Change,
    Close,
    Given,
    LineInvalidError,
    Packet,
    Payment,
    Release,
    Rerate,
    Reserve,
    Reset,
    Settle,
    Subscribe,
    Used,
    told_us,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.rules.usage_lines import Line

UNTOLD = INSTANT_MIN
_NEVER_TOLD_US = instant_us(datetime(2026, 1, 1, tzinfo=UTC))

_FIELDS = {kind: frozenset(("kind", *(key.name for key in keys))) for kind, keys in LINES.items()}
_NOTHING = Amounts()
_TIMELESS = (Payment, Release, Rerate)
"""Lines that do at any instant what they do."""


class LineReader:
    """Reads line by line; `finish` when all are read.

    `load`: the tariff of a path as a line names it, or FileNotFoundError; `attributes`: the dictionary's names;
    `buckets`: those that the account has.
    """

    def __init__(
        self, tariff: Tariff, load: Callable[[str], Tariff], attributes: frozenset[str], buckets: Iterable[str] = ()
    ) -> None:
        self._tariff, self._load, self._attributes = tariff, load, attributes
        self._tariffs = [tariff]
        self._ids: set[str] = set()
        self._keys: dict[str, int] = {}
        self._resets: dict[str, int] = {}
        self._buckets = set(buckets)
        self.duplicates = 0
        self._readers: dict[str, Callable[[Fields], Line]] = {
            "usage": self._used,
            "packet": self._packet,
            "grant": self._given,
            "reserve": self._reserve,
            "settle": self._settle,
            "release": lambda line: Release(line.line, _at(line), line.text("session")),
            "payment": self._payment,
            "subscribe": lambda line: Subscribe(line.line, _at(line), self._tariff_of(line) or self._tariff),
            "change": self._change,
            "cancel": lambda line: Cancel(line.line, _at(line)),
            "rerate": lambda line: Rerate(line.line, _at(line), self._tariff_of(line), self._tariff_of(line, "of")),
            "reset": self._reset,
            "close": lambda line: Close(line.line, line.instant("at")),
        }

    def read(self, number: int, document: object) -> Line | None:
        """The line of a number, counted from 1; None for one that repeats another. LineInvalidError."""
        if not isinstance(document, Mapping):
            raise LineInvalidError(number, "line", "is no JSON object", "write one object a line")
        kind = document.get("kind", "usage")
        known = _FIELDS.get(kind) if isinstance(kind, str) else None
        if known is None:
            raise LineInvalidError(number, "kind", f"is {str(kind)[:40]!r}", f"write one of {', '.join(LINES)}")
        if None in document.values():  # as if it were left out
            document = {key: value for key, value in document.items() if value is not None or key not in known}
        line = Fields(number, document)
        if not document.keys() <= known:
            unknown = next(key for key in document if key not in known)
            raise line.invalid(
                ascii(unknown)[1:-1][:80], f"is no field of {kind}", f"known are {', '.join(sorted(known))}"
            )
        if "id" in document:
            name = line.text("id")
            if name in self._ids:
                self.duplicates += 1
                return None
            self._ids.add(name)
        return self._readers[kind](line)

    def finish(self) -> None:
        """LineInvalidError for a rating key that no tariff of the file has, or a bucket that nothing has."""
        known = {DEFAULT_KEY, *(rule.name for tariff in self._tariffs for rule in tariff.keys)}
        for key, number in self._keys.items():
            if key not in known:
                remedy = f"write one of {', '.join(sorted(known))}"
                raise LineInvalidError(number, "key", f"is {key!r}, which no tariff here has", remedy)
        granted = self._buckets.union(terms.name for tariff in self._tariffs for terms in tariff.buckets)
        for name, number in self._resets.items():
            if name not in granted:
                remedy = f"write one of {', '.join(sorted(granted))}" if granted else "there are no buckets"
                raise LineInvalidError(number, "bucket", f"is {name!r}, which nothing here has", remedy)

    def _used(self, line: Fields) -> Used:
        amounts = line.amounts()
        begin, end = self._span(line)
        if begin is not None and end is not None:
            if end < begin:
                raise line.invalid("to", "lies before from", "write the later instant as to")
            if amounts is None:
                amounts = Amounts(seconds=(end - begin + SECOND_US // 2) // SECOND_US)
        if amounts is None:
            raise line.invalid("quantity", "is missing, and every other quantity too", "write what was used")
        length = amounts.seconds * SECOND_US
        if begin is None:
            begin = UNTOLD if end is None else end - length
        if end is None:
            end = UNTOLD if begin == UNTOLD else begin + length
        return Used(
            line.line,
            line.optional_text("session"),
            line.text("member", ITSELF),
            self._key(line),
            begin,
            end,
            line.instant("session_from"),
            line.whole("seq"),
            amounts,
        )

    @staticmethod
    def _span(line: Fields) -> tuple[int | None, int | None]:
        if not line.has("at"):
            return line.instant("from"), line.instant("to")
        for field in ("from", "to"):
            if line.has(field):
                raise line.invalid("at", f"stands beside {field}", "write either at, or from and to")
        at_us = line.instant("at")
        return at_us, at_us

    def _packet(self, line: Fields) -> Packet:
        return read_packet(line, self._key(line), self._attributes)

    def _given(self, line: Fields) -> Given:
        given = read_grant(line, self._tariff, _at(line))
        self._buckets.add(given.terms.name)
        return given

    def _reset(self, line: Fields) -> Reset:
        bucket = line.optional_text("bucket")
        if bucket is not None:
            self._resets.setdefault(bucket, line.line)
        return Reset(line.line, _at(line), bucket)

    def _reserve(self, line: Fields) -> Reserve:
        amounts, amount = line.amounts(), line.number("amount")
        if (amounts is None) is (amount is None):
            raise line.invalid("quantity", "or amount: exactly one of them is needed", "write either")
        if amounts is not None and sum(map(bool, _of(amounts))) != 1:
            raise line.invalid("quantity", "is not of one measure", "write one quantity above 0")
        return Reserve(
            line.line,
            _at(line),
            line.text("session"),
            line.text("member", ITSELF),
            self._key(line),
            amounts or _NOTHING,
            None if amount is None else amount * PICOUNITS,
            line.end("until"),
        )

    def _settle(self, line: Fields) -> Settle:
        line.text("session")
        return Settle(self._used(line), line.flag("final", default=True))

    def _payment(self, line: Fields) -> Payment:
        amount = line.number("amount")
        if amount is None:
            raise line.invalid("amount", "is missing", "write it")
        return Payment(line.line, _at(line), amount)

    def _change(self, line: Fields) -> Change:
        line.text("tariff")
        tariff = self._tariff_of(line)
        assert tariff is not None
        return Change(line.line, _at(line), tariff)

    def _tariff_of(self, line: Fields, field: str = "tariff") -> Tariff | None:
        path = line.optional_text(field)
        if path is None:
            return None
        try:
            tariff = self._load(path)
        except FileNotFoundError:
            remedy = "name a tariff file, relative to the usage file"
            raise line.invalid(field, f"is {path!r}, which is not there", remedy) from None
        if tariff.currency != self._tariff.currency:
            raise line.invalid(field, f"is in {tariff.currency}, not {self._tariff.currency}", "name one in the same")
        self._tariffs.append(tariff)
        return tariff

    def _key(self, line: Fields) -> str | None:
        key = line.optional_text("key")
        if key is not None:
            self._keys.setdefault(key, line.line)
        return key


def first_instant(lines: Iterable[Line], start_us: int | None) -> int:
    """An instant of the first cycle: `start_us` if it is told, else the earliest that lines tell, else 2026 begins."""
    if start_us is not None:
        return start_us
    told = (told_us(line) for line in lines)
    earliest = [each[0] for each in told if each is not None and each[0] > UNTOLD + SECOND_US]
    return min(earliest, default=_NEVER_TOLD_US)


def dated(lines: Iterable[Line], first_us: int) -> Iterable[Line]:
    """The lines with every instant told. `first_us`: where one lies before which none is told."""
    now_us = within_us = first_us
    for line in lines:
        # What lies nowhere of its own opens no cycle that nothing was told of: after a close at midnight, say.
        found = _with_instant(line, within_us if isinstance(line, _TIMELESS) else now_us)
        told = told_us(found)
        if told is not None:
            now_us, within_us = max(now_us, told[1]), max(within_us, told[2])
        yield found


def _with_instant(line: Line, now_us: int) -> Line:
    if isinstance(line, Used):
        return replace(line, from_us=now_us, to_us=now_us) if line.from_us == UNTOLD else line
    if isinstance(line, Settle):
        return (
            Settle(replace(line.used, from_us=now_us, to_us=now_us), line.is_final)
            if line.used.from_us == UNTOLD
            else line
        )
    if line.at_us != UNTOLD:
        return line
    if isinstance(line, Packet):
        return dated_packet(line, now_us)
    if isinstance(line, Given) and line.valid_us is not None:
        return replace(line, at_us=now_us, until_us=now_us + line.valid_us)
    return replace(line, at_us=now_us)


def _at(line: Fields) -> int:
    found = line.instant("at")
    return UNTOLD if found is None else found


def _of(amounts: Amounts) -> tuple[int, ...]:
    return amounts.upload, amounts.download, amounts.seconds, amounts.events, amounts.units
