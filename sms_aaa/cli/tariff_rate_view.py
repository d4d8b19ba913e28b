"""What `sms-aaa tariff rate` answers in JSON: docs/pricing-door.md, section 4."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.tariff_rate_text import amount_fields, instant_text, quantity_text
from sms_aaa.rules.evaluation_result import component_totals, is_told, minor_of
from sms_aaa.rules.instants import instant_us
from sms_aaa.rules.money import PICOUNITS
from sms_aaa.rules.rated_rows import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sms_aaa.rules.bucket_book import Held
    from sms_aaa.rules.cycle import Cycle
    from sms_aaa.rules.cycle_lines import ComponentLine, FeeLine
    from sms_aaa.rules.cycle_run import CycleRun
    from sms_aaa.rules.evaluation_result import Adjustment, CycleResult, Hold, Result
    from sms_aaa.rules.measure import Measure
    from sms_aaa.rules.rated_rows import Row

SCHEMA_VERSION = 1
_CHUNK = 2_000

_Fields = dict[str, object]


def write_json(result: Result, *, with_rated: bool) -> None:
    """One object; the items of its lists stand on lines of their own."""
    view = _View(result)
    fields = view.fields()
    if not with_rated:
        del fields["rated"]
    waiting: list[str] = []
    for text in _texts(fields):
        waiting.append(text)
        if len(waiting) == _CHUNK:
            click.echo("".join(waiting), nl=False)
            waiting.clear()
    click.echo("".join(waiting))


def _texts(fields: Mapping[str, object]) -> Iterator[str]:
    encode = json.JSONEncoder(ensure_ascii=False).encode
    yield "{"
    for number, (name, value) in enumerate(fields.items()):
        yield f"{',' if number else ''}\n  {encode(name)}: "
        if not isinstance(value, Iterator):
            yield encode(value)
            continue
        yield "["
        count = 0
        for count, item in enumerate(value, 1):
            yield f"{',' if count > 1 else ''}\n    {encode(item)}"
        yield "\n  ]" if count else "]"
    yield "\n}"


class _View:
    """The fields of an answer. Lists are iterators, so that a million rows are never there at once."""

    def __init__(self, result: Result) -> None:
        self._result = result
        self._currency = result.currency
        self._names = {held.bucket.grant.bucket_id: held.bucket.terms.name for held in result.buckets}

    def fields(self) -> _Fields:
        result = self._result
        return {
            "schema_version": SCHEMA_VERSION,
            "currency": result.currency,
            **self._amounts(result.amount, result.amount_rounded),
            "components": (self._component(line) for line in component_totals(result)),
            "rated": (self._rated(each.run, row) for each in result.cycles for row in rows_of(each.run)),
            "buckets": (self._bucket(number, held) for number, held in enumerate(result.buckets, 1)),
            "money": self._money(),
            "grants": (self._grant(hold) for hold in result.holds),
            "uncovered": iter(self._uncovered()),
            "adjustments": (self._adjustment(each) for each in result.adjustments),
            "cycles": (self._cycle(each) for each in result.cycles),
            "anomalies": (
                {"line": odd.line, "session": odd.session, "kind": odd.kind.value} for odd in result.anomalies
            ),
            "duplicates": result.duplicates,
        }

    def _amounts(self, amount: Fraction, amount_rounded: Fraction) -> _Fields:
        return {
            **amount_fields("amount_exact", amount, self._currency),
            **amount_fields("amount_rounded", amount_rounded, self._currency),
            "amount_minor": minor_of(amount_rounded, self._currency),
        }

    def _component(self, line: ComponentLine) -> _Fields:
        is_usage = line.measure is not None
        counts = (line.quantity, line.covered, line.uncovered, line.priced)
        quantities = [quantity_text(count, line.measure) if is_usage else None for count in counts]
        return {
            "name": line.name,
            "kind": line.kind.value,
            "measure": line.measure.value if line.measure is not None else None,
            "unit": line.unit or None,
            **dict(zip(("quantity", "covered", "uncovered", "priced"), quantities, strict=True)),
            **amount_fields("price_exact", line.price, self._currency),
            **amount_fields("minimum_exact", line.minimum, self._currency),
            **({"billed": None} if line.billed is None else amount_fields("billed", line.billed, self._currency)),
            **self._amounts(line.amount, line.amount_rounded),
        }

    def _rated(self, run: CycleRun, row: Row) -> _Fields:
        part, charged = row.part, row.charged
        piece = charged.slice if charged is not None else None
        fact = piece.fact if piece is not None else None
        return {
            "line": fact.seq if fact is not None else None,
            "session": fact.session if fact is not None and isinstance(fact.session, str) else None,
            "member": self._result.members.get(fact.member) if fact is not None else None,
            "from": instant_text(piece.from_us if piece is not None else row.from_us),
            "to": instant_text(piece.to_us if piece is not None else row.from_us),
            "cycle": instant_text(run.setting.start_us),
            "subscription": row.subscription,
            "component": part.name,
            "key": fact.key if fact is not None else None,
            "slot": piece.slot if piece is not None else None,
            "band": piece.band if piece is not None else None,
            "what": row.what.value,
            "tier": row.tier,
            "bucket": self._names.get(row.bucket) if row.bucket is not None else None,
            "quantity": quantity_text(row.quantity, part.measure),
            "billed": None if row.billed is None else quantity_text(row.billed, part.measure),
            "taken": None if row.taken is None else quantity_text(row.taken, part.measure),
            **amount_fields("amount", row.amount, self._currency),
            "paid": [
                {"bucket": self._names.get(bucket), **amount_fields("amount", share, self._currency)}
                for bucket, share in row.paid
            ],
        }

    def _bucket(self, number: int, held: Held) -> _Fields:
        bucket = held.bucket
        terms, grant = bucket.terms, bucket.grant
        return {
            "bucket_id": number,
            "name": terms.name,
            "source": terms.kind.value,
            "measure": terms.measure.value if terms.measure is not None else None,
            "member": None if bucket.owner is None else self._result.members[bucket.owner],
            "priority": terms.priority,
            "from": instant_text(grant.from_us),
            "until": instant_text(grant.until_us),
            **self._of_bucket("granted", held.granted, terms.measure),
            **self._of_bucket("used", bucket.used, terms.measure),
            **self._of_bucket("rolled_over", held.rolled, terms.measure),
            **self._of_bucket("reserved", bucket.held, terms.measure),
            **self._of_bucket("left", held.left, terms.measure),
            **self._of_bucket("overrun", bucket.overrun, terms.measure),
        }

    def _of_bucket(self, name: str, quantity: int | Fraction, measure: Measure | None) -> _Fields:
        """A quantity of a bucket, or of money an amount."""
        if measure is not None:
            return {name: quantity_text(quantity, measure)}
        return amount_fields(name, Fraction(quantity) / PICOUNITS, self._currency)

    def _money(self) -> _Fields:
        money = self._result.money
        found: _Fields = {"charging_mode": "prepaid" if money.is_prepaid else "postpaid"}
        amounts = {
            "opening": money.opening,
            "payments": money.payments,
            "charged": money.charged,
            "from_buckets": money.from_buckets,
            "balance": money.balance,
            "credit_limit": money.credit_limit,
            "reserved": money.reserved,
            "available": money.available,
        }
        for name, amount in amounts.items():
            found |= {name: None} if amount is None else amount_fields(name, amount, self._currency)
        return found

    def _grant(self, hold: Hold) -> _Fields:
        return {
            "line": hold.line,
            "at": instant_text(hold.at_us),
            "session": hold.session,
            "measure": hold.measure.value if hold.measure is not None else None,
            **self._of_bucket("asked", hold.asked, hold.measure),
            **self._of_bucket("granted", hold.granted, hold.measure),
            "final": hold.is_final,
            "held": [self._held(bucket_id, taken) for bucket_id, taken in hold.held],
            **amount_fields("amount_held", hold.amount, self._currency),
            "state": hold.state.value,
        }

    def _held(self, bucket_id: int, taken: int) -> _Fields:
        held = next(each for each in self._result.buckets if each.bucket.grant.bucket_id == bucket_id)
        return {"bucket": held.bucket.terms.name, **self._of_bucket("quantity", taken, held.bucket.terms.measure)}

    def _uncovered(self) -> Iterable[_Fields]:
        """By component and bucket, over all cycles."""
        found: dict[tuple[str, int], int] = {}
        for each in self._result.cycles:
            for place, quantity in each.run.blocked.items():
                found[place] = found.get(place, 0) + quantity
        buckets = {held.bucket.grant.bucket_id: held.bucket.terms for held in self._result.buckets}
        for (name, bucket_id), quantity in found.items():
            terms = buckets[bucket_id]
            yield {
                "component": name,
                "measure": terms.measure.value if terms.measure is not None else None,
                "bucket": terms.name,
                "overage": terms.overage.value,
                "quantity": quantity_text(quantity, terms.measure),
            }

    def _adjustment(self, each: Adjustment) -> _Fields:
        line = each.line
        return {
            **_period(each.cycle),
            "booked": instant_text(instant_us(each.booked.start)),
            "component": line.name,
            "kind": line.kind.value,
            "reason": each.reason.value,
            "quantity": None if line.measure is None else quantity_text(line.quantity, line.measure),
            **self._amounts(line.amount, line.amount_rounded),
        }

    def _cycle(self, each: CycleResult) -> _Fields:
        return {
            **_period(each.cycle),
            "state": "closed" if each.is_closed else "open",
            "components": [
                {"subscription": line.subscription, **self._component(line)}
                for line in each.sheet.lines
                if is_told(line)
            ],
            "fees": [self._fee(fee) for fee in each.sheet.fees],
            **self._amounts(each.sheet.amount, each.sheet.amount_rounded),
        }

    def _fee(self, fee: FeeLine) -> _Fields:
        charge = fee.charge
        return {
            "component": charge.name,
            "kind": charge.kind.value,
            "subscription": fee.subscription,
            "from": instant_text(instant_us(charge.from_at)),
            "to": instant_text(instant_us(charge.until_at)),
            "due": instant_text(instant_us(charge.due_at)),
            "quantity": charge.quantity,
            "parts": charge.parts,
            "whole": charge.whole,
            **amount_fields("amount_exact", charge.amount, self._currency),
            "amount_minor": charge.amount_minor,
        }


def _period(cycle: Cycle) -> _Fields:
    return {"from": instant_text(instant_us(cycle.start)), "to": instant_text(instant_us(cycle.end))}
