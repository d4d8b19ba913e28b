"""Journal records -> sessions, usage deltas and their sums, the rating queue: a batch in one transaction.

The door reads a batch from one journal file, begins the transaction, calls settle_accounting, moves the file's position
by compare-and-set and commits: so a batch is settled whole and once, or not at all (J7).

Every session that the batch speaks of is locked and loaded with all its lives; the machine of rules/session.py steps
through the records in memory; then what changed is stored set-wise. Two settlers (two nodes) that meet at a session
wait for each other at its lock; two that create the same life at once collide on its key, and one tries again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sms_aaa.db import late_readings as db_late_readings
from sms_aaa.db import places as db_places
from sms_aaa.db import positions as db_positions
from sms_aaa.db import session_addresses as db_session_addresses
from sms_aaa.db import session_copy as db_session_copy
from sms_aaa.db import sessions as db_sessions
from sms_aaa.db import usage as db_usage
from sms_aaa.db.engine import Outrun
from sms_aaa.db.sessions import EndedSession, SessionKey, StoredSession
from sms_aaa.db.usage import Anomaly, ServiceAccount, UsageDelta
from sms_aaa.flows.facts import merge
from sms_aaa.flows.hearing import Heard, Listened, Rebooted, listen
from sms_aaa.flows.history import TOO_LATE, meet_history
from sms_aaa.flows.late import LateReadings
from sms_aaa.flows.memory import Lives, Memory
from sms_aaa.flows.port_blocks import PortTale
from sms_aaa.flows.rollups import roll_up
from sms_aaa.node.journal import Stream
from sms_aaa.node.live_change import Release, session_key
from sms_aaa.node.records import pack_accounting
from sms_aaa.radius.port_blocks import may_tell_ports
from sms_aaa.rules.late import is_late, step_late
from sms_aaa.rules.session import AnomalyKind, Life, Place, State, find_life, step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sms_aaa.db.engine import Connection
    from sms_aaa.db.session_addresses import FormerAddress
    from sms_aaa.node.records import AccountingRecord
    from sms_aaa.rules.late import Known
    from sms_aaa.rules.session import Step

_UNKNOWN_SERVICE = AnomalyKind.UNKNOWN_SERVICE.value


@dataclass(frozen=True, slots=True)
class Settled:
    """What a batch did, and whose places on the live set it ended."""

    records: int
    deltas: int
    anomalies: int
    quarantined: int
    releases: list[Release]
    sessions: dict[SessionKey, Lives] = field(default_factory=dict)
    """What the batch made of its sessions: for Memory.keep, once it is committed."""
    kinds: Counter[AnomalyKind] = field(default_factory=Counter)
    """The anomalies by kind."""
    rebooted: int = 0
    """Sessions that ended because their NAS rebooted."""


@dataclass(frozen=True, slots=True)
class Lapsed:
    """How many sessions were closed for their silence, and the places that are free by that."""

    sessions: int
    releases: list[Release]


@dataclass(slots=True)
class _Work:
    """The batch in memory. Sessions by key, each with its lives; what is new and what changed, by id."""

    connection: Connection
    memory: Memory
    sessions: dict[SessionKey, Lives]
    too_late: set[Place]
    late: LateReadings
    new: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    """Sessions of which more is known now than their life: addresses, whose they are."""
    ended: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)
    """Sessions that another node heard before: it has to know whose they are now."""
    changed: dict[int, StoredSession] = field(default_factory=dict)
    deltas: list[UsageDelta] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    former: list[tuple[int, FormerAddress]] = field(default_factory=list)
    ports: PortTale = field(default_factory=PortTale)


def settle_accounting(
    connection: Connection,
    records: Sequence[tuple[Place, AccountingRecord]],
    *,
    single_nas: dict[int, bool],
    memory: Memory | None = None,
) -> Settled:
    """Settles records in the order of their journal. `single_nas`: which NAS ids exist, and are one address."""
    listened = [listen(place, record, single_nas) for place, record in records]
    return settle_listened(connection, listened, memory=memory or Memory())


def settle_listened(connection: Connection, records: Sequence[Listened], *, memory: Memory) -> Settled:
    """Settles records that were heard already.

    With a `memory` that keeps what this gives once it is committed, sessions need not be loaded each time.
    """
    db_sessions.prefer_indexes(connection)
    heard: list[Heard] = []
    rebooted: list[Rebooted] = []
    quarantined = 0
    for one in records:
        said = one.said
        if isinstance(said, Heard):
            heard.append(said)
        elif isinstance(said, Rebooted):
            rebooted.append(said)
        elif said.quarantine:
            quarantined += 1
            _put_aside(connection, one, said.reason)
    work, locked = _load(connection, memory, heard, rebooted)
    for one in records if work.too_late else ():
        if one.place in work.too_late:
            _put_aside(connection, one, TOO_LATE)
    in_time = [said for said in heard if said.reading.place not in work.too_late] if work.too_late else heard
    for said in in_time:
        _step(work, said)
    _store(connection, work)
    ended = [
        EndedSession(session.id, session.service_id, session.facts.token, session.key[2])
        for session in work.changed.values()
        if session.id in work.ended
    ]
    stopped = len(ended)
    for reboot in rebooted:
        ended += db_sessions.close_rebooted(connection, locked[reboot] + _of_nas(work, reboot), reboot.at)
    releases = _free(connection, ended)
    _tell_places(connection, work, ended)
    quarantined += len(work.too_late)
    return Settled(
        len(records),
        len(work.deltas),
        len(work.anomalies),
        quarantined,
        releases,
        work.sessions,
        Counter(anomaly.kind for anomaly in work.anomalies),
        len(ended) - stopped,
    )


def _put_aside(connection: Connection, one: Listened, reason: str) -> None:
    quarantine(connection, Stream.ACCOUNTING, one.place, reason=reason, raw=pack_accounting(one.record))


def _of_nas(work: _Work, reboot: Rebooted) -> list[int]:
    """Sessions of a NAS that this batch speaks of: it locked or made them."""
    nas = (reboot.nas_id, reboot.nas_key)
    return [session_id for session_id, session in work.changed.items() if session.key[:2] == nas]


def _tell_places(connection: Connection, work: _Work, ended: Sequence[EndedSession]) -> None:
    """Other nodes hear of sessions that began, ended or moved; the reservation of one that began is spent."""
    began = [work.changed[session_id] for session_id in work.new]
    db_places.tell_nodes(connection, {*work.new, *work.moved, *(session.id for session in ended)})
    logins = [(session.service_id, session.facts.token) for session in began]
    db_places.spend(connection, [(s, token) for s, token in logins if s is not None and token is not None])


def _free(connection: Connection, ended: Sequence[EndedSession]) -> list[Release]:
    """Those of the sessions that ended whose places are free: no other session stands under the same Class."""
    logins = [
        Release(session.service_id, session.token, session_key(session.acct_session_id))
        for session in ended
        if session.service_id is not None and session.token is not None
    ]
    held = db_sessions.list_held(connection, [(one.service_id, one.token) for one in logins]) if logins else set()
    return [one for one in logins if one.token not in held]


def quarantine(connection: Connection, stream: Stream, place: Place, *, reason: str, raw: bytes) -> None:
    """Puts a record that cannot be settled aside, whole and with its reason; the others go on."""
    db_positions.insert_quarantine(
        connection, place.node, int(stream), place.sequence, place.offset, reason=reason, raw=raw
    )


def close_stale_sessions(connection: Connection, *, now: datetime, multiple: int, limit: int) -> Lapsed:
    """Closes softly what has gone silent."""
    closed = db_sessions.close_stale(connection, now=now, multiple=multiple, limit=limit)
    db_places.tell_nodes(connection, {session.id for session in closed})
    return Lapsed(len(closed), _free(connection, closed))


def _load(
    connection: Connection, memory: Memory, heard: Sequence[Heard], rebooted: Sequence[Rebooted]
) -> tuple[_Work, dict[Rebooted, list[int]]]:
    """Everything that the records are about, locked; and which sessions run at NASes that rebooted."""
    keys = {said.key for said in heard}
    running = {
        reboot: db_sessions.list_running(connection, reboot.nas_id, reboot.nas_key, reboot.at) for reboot in rebooted
    }
    sessions = _lock(connection, memory, keys, {one for ids in running.values() for one in ids})
    too_late = meet_history(connection, heard, sessions)
    services = memory.services
    services.refresh(connection)
    strange = {key for key, lives in sessions.items() if not _are_known(lives)}
    unknown = [said for said in heard if said.key in strange] if strange else ()
    identities = {name for said in unknown for name in services.identities(connection, said)}
    services.load(connection, _ids(heard, sessions), identities)
    late = LateReadings(connection)
    late.load((one, said.reading) for said in heard for one in sessions[said.key] if is_late(one.life, said.reading))
    return _Work(connection, memory, sessions, too_late, late), running


def _lock(connection: Connection, memory: Memory, keys: set[SessionKey], others: set[int]) -> dict[SessionKey, Lives]:
    """Every life of these sessions, and `others` by id, locked in one statement, in the order of their ids.

    What is remembered or was read before the lock counts if its version is still the row's. Where it is not, the row
    is read again; a life that came meanwhile is not locked, and to lock it now would break the order: then the batch is
    tried again.
    """
    sessions = memory.recall(keys)
    _read(connection, sessions, keys - sessions.keys())
    ids = others.union(session.id for lives in sessions.values() for session in lives)
    versions = db_sessions.lock_sessions(connection, ids) if ids else {}
    changed = {
        key for key, lives in sessions.items() if any(versions.get(session.id) != session.version for session in lives)
    }
    if changed:
        memory.forget(changed)
        _read(connection, sessions, changed)
        if any(session.id not in versions for key in changed for session in sessions[key]):
            raise Outrun
    return sessions


def _read(connection: Connection, sessions: dict[SessionKey, Lives], keys: set[SessionKey]) -> None:
    if keys:
        sessions.update({key: [] for key in keys})
        for stored in db_sessions.find_sessions(connection, keys):
            sessions[stored.key].append(stored)


def _are_known(lives: Sequence[StoredSession]) -> bool:
    """Whether it is settled whose these are."""
    return bool(lives) and all(session.service_id is not None for session in lives)


def _ids(heard: Sequence[Heard], sessions: dict[SessionKey, Lives]) -> set[int]:
    named = {said.service_id for said in heard}
    stored = {session.service_id for lives in sessions.values() for session in lives}
    return {service for service in named | stored if service is not None}


def _step(work: _Work, said: Heard) -> None:
    lives = work.sessions[said.key]
    life = find_life([stored.life for stored in lives], said.reading)
    stored = None if life is None else next(one for one in lives if one.life is life)
    service = _service(work, stored, said)
    number = 1 + max([one.life.life for one in lives], default=0)
    result, late = _count(work, stored, number, said, service)
    if stored is None:
        session = _begin(work, lives, said, result.life, service)
    else:
        session = _merge(work, stored, said, result.life, service)
        if session is not stored:
            lives[lives.index(stored)] = session
            _change(work, stored, session)
    work.late.note(session.id, result, late)
    if session.life.state is State.CLOSED and (life is None or life.state is not State.CLOSED):
        work.ended.add(session.id)
    elif stored is not None and _has_moved(stored, session):
        work.moved.add(session.id)
    if may_tell_ports(said.packet) and not work.ports.hear(said.packet, session, said.reading):
        _name(work, session.id, said, AnomalyKind.PORT_BLOCK)
    if result.delta is not None:
        work.deltas.append(UsageDelta(session.id, session.account_id, session.service_id, result.delta))
    if said.clock_overruled or result.anomaly is AnomalyKind.CLOCK:
        _name_clock(work, session)
    if result.anomaly is not None and result.anomaly is not AnomalyKind.CLOCK:
        _name(work, session.id, said, result.anomaly)


def _count(
    work: _Work, stored: StoredSession | None, number: int, said: Heard, service: ServiceAccount | None
) -> tuple[Step, Known | None]:
    """The machine's step; for a late reading with all that its session was counted with."""
    reading, rate_kbps = said.reading, service.rate_kbps if service is not None else 0
    if (
        stored is not None
        and is_late(stored.life, reading)
        and (known := work.late.known(stored, reading, work.deltas))
    ):
        return step_late(stored.life, reading, known, rate_kbps=rate_kbps)
    return step(stored.life if stored is not None else None, number, reading, rate_kbps=rate_kbps), None


def _begin(work: _Work, lives: Lives, said: Heard, life: Life, service: ServiceAccount | None) -> StoredSession:
    """A new life. The one before it changes its version: who remembers it as the last one is to look again."""
    if lives:
        before = max(lives, key=lambda session: session.life.life)
        lives[lives.index(before)] = work.changed[before.id] = replace(before, version=before.version + 1)
    session = _new(work, said, life, service)
    lives.append(session)
    work.changed[session.id] = session
    work.new.add(session.id)
    if service is None:
        _name(work, session.id, said, AnomalyKind.UNKNOWN_SERVICE)
    return session


def _change(work: _Work, before: StoredSession, after: StoredSession) -> None:
    work.changed[after.id] = after
    if after.facts is not before.facts or after.service_id != before.service_id:
        work.known.add(after.id)


def _has_moved(before: StoredSession, after: StoredSession) -> bool:
    """Open, and another node hears of it now, or it is another login's, or a late record woke it."""
    return after.life.state is State.OPEN and (
        before.life.state is not State.OPEN
        or before.life.reading_place.node != after.life.reading_place.node
        or before.facts.token != after.facts.token
    )


def _name_clock(work: _Work, session: StoredSession) -> None:
    """Once a session, not once a record: a clock in 1970 stays there."""
    life = session.life
    place = life.reading_place
    work.anomalies.append(Anomaly(session.id, session.key[0], AnomalyKind.CLOCK, life.started_at, 0, 0, place))


def _service(work: _Work, stored: StoredSession | None, said: Heard) -> ServiceAccount | None:
    """Whose it is. Once known it stays; before that our Class says it, else the user name, octet for octet."""
    if stored is not None and stored.service_id is not None:
        return work.memory.services.find(stored.service_id)
    services = work.memory.services
    if said.service_id is not None and (named := services.find(said.service_id)) is not None:
        return named
    identities = services.identities(work.connection, said)
    services.load(work.connection, (), identities)  # known already, but where a known id is used again
    found = (services.find_by_identity(identity) for identity in identities)
    return next((service for service in found if service is not None), None)


def _new(work: _Work, said: Heard, life: Life, service: ServiceAccount | None) -> StoredSession:
    return StoredSession(
        id=work.memory.next_id(work.connection),
        key=said.key,
        life=life,
        facts=said.facts,
        service_id=service.service_id if service is not None else None,
        account_id=service.account_id if service is not None else None,
        excluded=None if service is not None else _UNKNOWN_SERVICE,
        fingerprint=said.fingerprint,
    )


def _merge(
    work: _Work, stored: StoredSession, said: Heard, life: Life, service: ServiceAccount | None
) -> StoredSession:
    """The session after a record: a later packet may know what an earlier one did not (an address, whose it is).

    One about which it says nothing new is given back as it was.
    """
    known = stored if said.fingerprint == stored.fingerprint else _merge_facts(work, stored, said)
    owner = (stored.service_id, stored.account_id, stored.excluded)
    if stored.service_id is None and service is not None:
        owner = (service.service_id, service.account_id, None)
    elif known.facts is stored.facts and life == stored.life:
        return stored
    return StoredSession(
        id=stored.id,
        key=stored.key,
        life=life,
        facts=known.facts,
        service_id=owner[0],
        account_id=owner[1],
        excluded=owner[2],
        version=stored.version + 1,
        fingerprint=known.fingerprint,
    )


def _merge_facts(work: _Work, stored: StoredSession, said: Heard) -> StoredSession:
    reading, life = said.reading, stored.life
    is_latest = reading.received_at >= life.received_at
    facts, former = merge(stored.facts, said.facts, life, reading.event, reading.at, is_latest=is_latest)
    if former:
        work.former += [(stored.id, one) for one in former]
        _name(work, stored.id, said, AnomalyKind.READDRESSED)
    # An older record's fingerprint would hide that the next one says something else than the row.
    is_newest = is_latest and reading.at >= life.updated_at
    return replace(stored, facts=facts, fingerprint=said.fingerprint if is_newest else stored.fingerprint)


def _name(work: _Work, session_id: int, said: Heard, kind: AnomalyKind) -> None:
    reading = said.reading
    work.anomalies.append(
        Anomaly(
            session_id, said.key[0], kind, reading.at, reading.octets_in or 0, reading.octets_out or 0, reading.place
        )
    )


def _store(connection: Connection, work: _Work) -> None:
    new = [session for session in work.changed.values() if session.id in work.new]
    changed = [session for session in work.changed.values() if session.id not in work.new]
    if new:
        db_session_copy.insert_sessions(connection, new)
    if changed:
        db_session_copy.update_sessions(connection, changed, [one for one in changed if one.id in work.known])
    if work.deltas:
        db_usage.insert_deltas(connection, work.deltas)
        db_usage.insert_queue(connection, [usage for usage in work.deltas if usage.account_id is not None])
        roll_up(connection, work.deltas, work.memory.walls)
    if work.late.kept:
        db_late_readings.insert_late(connection, work.late.kept)
    if work.former:
        db_session_addresses.insert_former(connection, work.former)
    work.ports.store(connection)
    if work.anomalies:
        db_usage.insert_anomalies(connection, work.anomalies)
