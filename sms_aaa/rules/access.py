"""Who may come in: the ordered checks of a login, and the same order told afterwards by `why`.

The column of `if`s in `decide` is the order of precedence. The concurrency check comes last because it takes
something (a reservation): a login that fails for another reason must not hold a place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from msgspec import Struct

from sms_aaa.rules.entitlement import Entitlement, NodePlan, ServiceState, Terms
from sms_aaa.rules.reasons import Reason

Stored = TypeVar("Stored")
Stored_contra = TypeVar("Stored_contra", contravariant=True)

_ACTIVE = int(ServiceState.ACTIVE)
_OF_STATE = {int(ServiceState.SUSPENDED): Reason.SUSPENDED, int(ServiceState.BLOCKED): Reason.BLOCKED}
_NO_TERMS = Terms()


class Proof(Protocol[Stored_contra]):
    """What the request offers as proof of identity; radius/credentials.py has the real ones."""

    def can_use(self, stored: Stored_contra) -> bool: ...

    def matches(self, stored: Stored_contra) -> bool: ...


class Unrebuilt(StrEnum):
    """Whom to let in whose plan has a limit, after a boot, before it is known who is online."""

    ADMIT = "admit"  # by the sessions that are known so far
    REJECT = "reject"
    SILENCE = "silence"  # the NAS asks another server


class StrictAway(StrEnum):
    """What decides a login under a strict limit while PostgreSQL does not."""

    LOCAL = "local"  # the sessions that this node knows
    REJECT = "reject"
    SILENCE = "silence"


class Whereabouts(Struct, frozen=True, gc=False):
    """Where a login comes from. Only looked up for a service or realm that is bound to places or devices.

    `ports`: all that the NAS says of the line (NAS-Port-Id, Agent-Circuit-Id, Agent-Remote-Id, NAS-Port in decimal);
    octets that are no text as 0x and hex digits. `mac`: canonical, None when the NAS does not tell it.
    `realm_nas_ids`: where the realm's services may log in that are bound to no NAS themselves, () for anywhere.
    """

    nas_id: int
    ports: tuple[bytes, ...]
    mac: bytes | None
    realm_nas_ids: tuple[int, ...] = ()


def decide(
    proof: Proof[Stored] | None,
    entitlement: Entitlement | None,
    stored: Stored | None,
    plan: NodePlan | None,
    *,
    now: int,
    where: Whereabouts | None,
) -> Reason:
    """All checks but concurrency, in order. `stored` is what the entitlement's sealed credential holds.

    `now`: epoch seconds. `where` may be None for an entitlement without terms in a realm without places.
    """
    if proof is None:
        return Reason.UNSUPPORTED_METHOD
    if entitlement is None:
        return Reason.UNKNOWN_USER
    if stored is None or not proof.can_use(stored):
        return Reason.NO_CREDENTIAL
    if not proof.matches(stored):
        return Reason.BAD_PASSWORD
    return decide_rights(entitlement, plan, now=now, where=where)


def decide_rights(entitlement: Entitlement, plan: NodePlan | None, *, now: int, where: Whereabouts | None) -> Reason:
    """The checks that follow once the identity is proved."""
    if entitlement.state != _ACTIVE:
        return _OF_STATE.get(entitlement.state, Reason.UNKNOWN_USER)
    terms = entitlement.terms
    if terms is not None:
        if now < terms.valid_from:
            return Reason.NOT_YET_ACTIVE
        if 0 < terms.valid_until <= now:
            return Reason.EXPIRED
    if plan is None:
        return Reason.NO_PLAN
    return Reason.ACCEPTED if where is None else _decide_place(terms or _NO_TERMS, where)


def _decide_place(terms: Terms, where: Whereabouts) -> Reason:
    nas_ids = bound_nas_ids(terms, where)
    if nas_ids and where.nas_id not in nas_ids:
        return Reason.NAS_NOT_ALLOWED
    if terms.ports and not any(port in terms.ports for port in where.ports):
        return Reason.PORT_MISMATCH
    if terms.macs and where.mac not in terms.macs:
        return Reason.MAC_NOT_BOUND
    return Reason.ACCEPTED


def bound_nas_ids(terms: Terms, where: Whereabouts) -> tuple[int, ...]:
    """The NASes that a service may be used at; () for any. Its own bindings stand above those of its realm."""
    return terms.nas_ids or where.realm_nas_ids


def seconds_left(terms: Terms | None, now: int) -> int:
    """Until the service ends; 0: it does not."""
    return terms.valid_until - now if terms is not None and terms.valid_until else 0


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a decision: its name, how it ended and what it saw."""

    name: str
    verdict: Verdict
    saw: str


_CHECKS: tuple[tuple[str, tuple[Reason, ...]], ...] = (
    ("limits", (Reason.RATE_LIMITED, Reason.LOCKED_OUT)),
    ("realm", (Reason.REALM_UNKNOWN,)),
    ("method", (Reason.UNSUPPORTED_METHOD,)),
    ("identity", (Reason.UNKNOWN_USER,)),
    ("credential", (Reason.NO_CREDENTIAL, Reason.BAD_PASSWORD)),
    ("state", (Reason.BLOCKED, Reason.SUSPENDED, Reason.NOT_YET_ACTIVE, Reason.EXPIRED)),
    ("plan", (Reason.NO_PLAN,)),
    ("place", (Reason.NAS_NOT_ALLOWED, Reason.PORT_MISMATCH)),
    ("device", (Reason.MAC_NOT_BOUND,)),
    ("concurrency", (Reason.CONCURRENT_LIMIT, Reason.BACKEND_UNAVAILABLE)),
)


def checks_of(reason: Reason, saw: dict[str, str]) -> tuple[Check, ...]:
    """The ordered checks behind a decision: they end at the first that fails, so the reason tells them all.

    `saw` maps a check's name to what it looked at, in words.
    """
    failed = check_of(reason)
    failed_at = next((i for i, (name, _) in enumerate(_CHECKS) if name == failed), len(_CHECKS))
    return tuple(_check(name, index - failed_at, saw.get(name, ""), reason) for index, (name, _) in enumerate(_CHECKS))


def check_of(reason: Reason) -> str | None:
    """The name of the check that ends in this reason; None when all passed."""
    return next((name for name, reasons in _CHECKS if reason in reasons), None)


def _check(name: str, distance: int, saw: str, reason: Reason) -> Check:
    if distance < 0:
        return Check(name, Verdict.PASSED, saw)
    if distance == 0:
        return Check(name, Verdict.FAILED, f"{reason.label}: {saw}" if saw else reason.label)
    return Check(name, Verdict.NOT_REACHED, "")
