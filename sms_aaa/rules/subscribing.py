"""The subscriptions of an account, by what dated lines say of them, whatever order they arrived in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sms_aaa.rules.instants import instant_of
from sms_aaa.rules.tariff import Tariff  # noqa: TC001 - a field
from sms_aaa.rules.usage_lines import Cancel, Change, LineInvalidError, Subscribe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.rules.usage_lines import Dated


@dataclass(frozen=True, slots=True)
class TariffSpan:
    """A subscription to a tariff, [start, end); `end` None: it goes on."""

    start: datetime
    end: datetime | None
    tariff: Tariff


def subscriptions(first: TariffSpan | None, dated: Sequence[Dated]) -> list[TariffSpan]:
    """In order of time. `first`: what runs without a line. LineInvalidError for what does not go together."""
    spans = [] if first is None else [first]
    for line in sorted(dated, key=lambda each: each.at_us):
        at = instant_of(line.at_us)
        running = spans[-1] if spans and spans[-1].end is None else None
        if isinstance(line, Subscribe):
            if running is not None:
                raise LineInvalidError(
                    line.line, "kind", "a subscription runs already", "write change, or cancel first"
                )
            if spans and spans[-1].end is not None and at < spans[-1].end:
                raise LineInvalidError(line.line, "at", "a subscription ran still", "write a later instant")
            spans.append(TariffSpan(at, None, line.tariff))
            continue
        if running is None or at < running.start:
            raise LineInvalidError(
                line.line, "kind", "no subscription runs at this instant", "write subscribe before it"
            )
        if isinstance(line, Change) and at == running.start:
            spans[-1] = replace(running, tariff=line.tariff)
            continue
        if isinstance(line, Cancel) and at == running.start:
            raise LineInvalidError(line.line, "at", "is the instant at which it began", "leave both lines out")
        spans[-1] = replace(running, end=at)
        if isinstance(line, Change):
            spans.append(TariffSpan(at, None, line.tariff))
    return spans
