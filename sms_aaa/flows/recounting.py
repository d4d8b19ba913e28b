"""The story of one session: its lives, what was counted of it and from which records, how it ended, what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from sms_aaa.db import anomalies as db_anomalies
from sms_aaa.db import session_story as db_story
from sms_aaa.flows.explaining import explain, list_usage
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.rules.session import State

if TYPE_CHECKING:
    from sms_aaa.db.anomalies import AnomalyRow
    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_addresses import FormerAddress
    from sms_aaa.db.session_story import LoginRow, ToldSession
    from sms_aaa.db.usage import DeltaRow

ANOMALIES_MAX = 100
DELTAS_PRICED_MAX = 20_000
"""Of one cycle: a session of a month with an interim a minute has 45,000, and its cost is for `explain`."""


class Ending(Enum):
    """How a session ended, as far as it is known."""

    OPEN = "it is online"
    STOPPED = "its Stop came"
    INFERRED = "no Stop came: it was ended at its last record, because its NAS rebooted or it fell silent"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a session cost in one component of one cycle: numerator over denominator, in units of the currency."""

    component: str
    currency: str
    octets: int
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class Story:
    """`deltas`: the newest; `others`: the other lives under its name; `siblings`: sessions of the same login.

    `costs` None: too many deltas to be priced here. `unrated`: deltas that wait for the rater.
    """

    session: ToldSession
    ending: Ending
    others: tuple[ToldSession, ...]
    siblings: tuple[ToldSession, ...]
    deltas: tuple[DeltaRow, ...]
    former: tuple[FormerAddress, ...]
    anomalies: tuple[AnomalyRow, ...]
    login: LoginRow | None
    costs: tuple[Cost, ...] | None
    unrated: int


def find_sessions(connection: Connection, which: str, *, nas_id: int | None) -> list[ToldSession]:
    """The newest first, with all lives. A number is our id first; where a NAS is named, its own."""
    ours = int(which) if which.isascii() and which.isdigit() and len(which) < 19 else None
    if ours is not None and nas_id is None and (told := db_story.list_by_id(connection, ours)):
        return told
    named = db_story.list_by_name(connection, which, nas_id=nas_id)
    if named or ours is None:
        return named
    return [told for told in db_story.list_by_id(connection, ours) if told.nas_id == nas_id]


def recount(connection: Connection, told: ToldSession, *, deltas_max: int) -> Story:
    """All that is known of one life of a session."""
    lives = db_story.list_by_name(connection, told.acct_session_id, nas_id=told.nas_id)
    costs, unrated = _costs(connection, told)
    return Story(
        session=told,
        ending=_ending(told),
        others=tuple(life for life in lives if life.nas_key == told.nas_key and life.id != told.id),
        siblings=tuple(db_story.list_siblings(connection, told)),
        deltas=tuple(db_story.list_session_deltas(connection, told, limit=deltas_max)),
        former=tuple(db_story.list_former_addresses(connection, told.id)),
        anomalies=tuple(
            db_anomalies.list_anomalies(connection, db_anomalies.AnomalyFilter(session_id=told.id), limit=ANOMALIES_MAX)
        ),
        login=db_story.find_login(connection, told),
        costs=costs,
        unrated=unrated,
    )


def _ending(told: ToldSession) -> Ending:
    if told.state == State.OPEN:
        return Ending.OPEN
    return Ending.INFERRED if told.estimated else Ending.STOPPED


def _costs(connection: Connection, told: ToldSession) -> tuple[tuple[Cost, ...] | None, int]:
    """Of the cycles that the session touches; and how many of its deltas are not rated yet."""
    if told.account_id is None:
        return (), 0
    if told.deltas > DELTAS_PRICED_MAX:
        return None, 0
    costs, unrated = [], set()
    for cycle in list_usage(connection, PlanShelf(), told.account_id):
        if cycle.ends_at <= told.started_at or cycle.starts_at > told.updated_at:
            continue
        explained = explain(connection, cycle, component=None, session_id=told.id, limit=DELTAS_PRICED_MAX)
        unrated |= {delta.seq for delta in explained.unrated}
        costs += [
            Cost(line.line.row.component, cycle.currency, line.quantity, line.numerator, line.line.denominator)
            for line in explained.lines
            if line.slices
        ]
    return tuple(costs), len(unrated)
