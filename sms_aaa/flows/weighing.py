"""From visits to slices: the facts that a tariff asks for, where buckets and tariffs cut them, and their order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.db import charging as db_charging
from sms_aaa.flows.meters import Standing
from sms_aaa.flows.placing import Visit
from sms_aaa.rules.charging import Fact, Slice
from sms_aaa.rules.measure import Amounts
from sms_aaa.rules.rating_keys import Traits, rating_key, service_classes
from sms_aaa.rules.realms import split_realm
from sms_aaa.rules.slicing import Span, cut_spans
from sms_aaa.rules.slots import Calendar
from sms_aaa.rules.tariff import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sms_aaa.db.charging import SessionRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.rating_queue import QueuedDelta
    from sms_aaa.rules.tariff import Tariff


class Portion(Struct, frozen=True, gc=False):
    """A slice of a delta, and the standing that it moves."""

    visit: Visit
    piece: Slice
    standing: Standing


def cut_visits(
    connection: Connection, visits: Sequence[Visit], edges_of: Callable[[int], Iterable[int]]
) -> list[Portion]:
    """All slices of these, in canonical order. `edges_of` an account: where buckets begin and end."""
    asked = {visit.delta.session_id for visit in visits if any(_asks(one.standing) for one in visit.stretches)}
    sessions = {row.session_id: row for row in db_charging.list_sessions(connection, asked)} if asked else {}
    portions = [
        portion
        for visit in visits
        for portion in _cut(visit, sessions.get(visit.delta.session_id), edges_of(visit.delta.account_id))
    ]
    portions.sort(key=lambda portion: portion.piece.order)
    return portions


def amounts_of(delta: QueuedDelta) -> Amounts:
    """An event is a session that was used: its first delta has it."""
    return Amounts(
        upload=delta.octets_in, download=delta.octets_out, seconds=delta.seconds, events=1 if delta.seq == 1 else 0
    )


def fact_of(delta: QueuedDelta, session: SessionRow | None) -> Fact:
    """What the rules need of a delta, but for its rating key."""
    # A session that is not there is named by `reconcile`; as far as its delta says, it began with it.
    started_us = session.started_us if session is not None else delta.from_us
    return Fact(
        delta.account_id,
        delta.session_id,
        delta.seq,
        min(started_us, delta.from_us),
        delta.from_us,
        delta.to_us,
        DEFAULT_KEY,
        amounts_of(delta),
    )


def _cut(visit: Visit, session: SessionRow | None, edges: Iterable[int]) -> list[Portion]:
    fact = fact_of(visit.delta, session)
    spans = [
        span_of(one.from_us, one.to_us, one.standing.priced.tariff, visit.zone, session) for one in visit.stretches
    ]
    switch = visit.stretches[0].standing.priced.tariff.switch
    return [
        Portion(visit, piece, visit.stretches[number].standing)
        for piece, number in cut_spans(fact, spans, edges, switch)
    ]


def _asks(standing: Standing) -> bool:
    """Whether its tariff asks for more of a session than a delta has."""
    return bool(standing.priced.tariff.keys or standing.priced.tariff.bands)


def span_of(from_us: int, to_us: int, tariff: Tariff, zone: str, session: SessionRow | None) -> Span:
    """[from_us, to_us) of a session under a tariff, by the clock of a zone."""
    key = rating_key(tariff.keys, _traits(session)) if tariff.keys and session is not None else DEFAULT_KEY
    return Span(from_us, to_us, Calendar(zone, tariff.slots, tariff.holidays), tariff.bands, key)


def _traits(session: SessionRow) -> Traits:
    parts = split_realm(session.username.encode("utf-8", "surrogateescape"))
    said = json.loads(session.vendor_attributes) if session.vendor_attributes else {}
    return Traits(
        service_classes(said),
        session.zone,
        session.called_station_id,
        parts[1].decode("utf-8", "surrogateescape") if parts is not None else "",
    )
