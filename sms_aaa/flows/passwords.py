"""Slow password hashes on the packet's way: what is known already, what has to be computed, and what strangers cost.

A hash that takes milliseconds is checked beside the worker's loop (server/beside.py), once for all requests that offer
the same password for the same service meanwhile. That it was right is remembered for a while; that it was wrong never
is, so that a corrected password works at once and nobody fills the memory with guesses.

What is remembered is a digest under a key of this process over the sealed credential and the password: nothing in it
is a password, and a changed credential is sealed anew, so what was known of the old one is not found again. Rights are
looked at each time.

An unknown user name, or a wrong password for a service whose own form is quick, would be refused sooner than a wrong
password for a slow hash. Where there are slow hashes (a worker looks for one when it starts, and learns from each
login), such a refusal costs the same work, whose result is not looked at.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from sms_aaa.radius.credentials import Pap
from sms_aaa.radius.hashes import Hashed, Hidden

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.flows.vault import Vault
    from sms_aaa.radius.credentials import Credential, Method, StoredPassword
    from sms_aaa.rules.entitlement import Entitlement

KEY_OCTETS = 32
REMEMBERED_MAX = 65_536
"""Of some 150 octets each; beyond it the one that was not used for longest goes."""

_DIGEST_OCTETS = 24


def pretend(proof: Credential | None, vault: Vault) -> None:
    """The quick part of a wrong password's work, where there is none to compare with: a decryption, a comparison.

    How long a refusal takes then tells nobody which user names there are, even without a reject delay.
    """
    if proof is not None:
        proof.matches(vault.open_decoy())


class Believed:
    """Stands for a proof that is looked at later: what is decided holds if it turns out right."""

    def can_use(self, _stored: StoredPassword) -> bool:
        return True

    def matches(self, _stored: StoredPassword) -> bool:
        return True


BELIEVED = Believed()


def believed(proof: Credential | None, stored: StoredPassword) -> Credential | Believed | None:
    """The proof, or BELIEVED for one that takes too long to be looked at here."""
    return BELIEVED if stored.is_slow and type(proof) is Pap else proof


def tell_credential(entitlement: Entitlement | None, stored: StoredPassword | None, method: Method) -> bytes:
    """Why what is stored cannot be used, for `why`."""
    if stored is not None:
        if method in stored.methods:
            return b"the login has an LM response alone"
        return f"{stored.form.name.lower()} cannot serve {method.name.lower()}".encode()
    is_there = entitlement is not None and entitlement.credential
    return b"this node's key does not open it" if is_there else b"nothing is stored"


class PasswordCheck(Hidden, frozen=True, gc=False):
    """Work for a thread: whether `password` is the one behind `hashed`. What has the same `key` is the same work."""

    key: bytes
    hashed: Hashed
    password: bytes

    def __call__(self) -> bool:
        return self.hashed.matches(self.password)


class PasswordChecks:
    """One worker's. `now`: seconds of any clock that does not go back; the door sets it for each batch."""

    __slots__ = ("_expiries", "_key", "_kind", "_remember_seconds", "hits", "now")

    def __init__(self, *, key: bytes, remember_seconds: float) -> None:
        """`key`: KEY_OCTETS random octets. `remember_seconds` 0: nothing is remembered."""
        self._key = key
        self._remember_seconds = remember_seconds
        self._expiries: dict[bytes, float] = {}
        self._kind: Hashed | None = None
        self.hits = 0
        self.now = 0.0

    def meet(self, entitlements: Iterable[Entitlement], vault: Vault) -> None:
        """Learns from some services what a slow hash costs here, before one of them logs in."""
        for entitlement in entitlements:
            stored = vault.open_password(entitlement.credential, entitlement.service_id)
            if stored is not None and stored.is_slow:
                self._kind = stored.hashed
                return

    def check(self, sealed: bytes, stored: StoredPassword, password: bytes) -> PasswordCheck | None:
        """What has to be computed for a password; None when its form is quick, or when it is known to be right.

        `sealed`: the credential as the replica has it, `stored`: what is in it.
        """
        hashed = stored.hashed
        if hashed is None or not hashed.is_slow:
            return None
        self._kind = hashed
        key = self._digest(sealed, password)
        expiry = self._expiries.pop(key, None)
        if expiry is not None and self.now < expiry:
            self._expiries[key] = expiry  # the last in order is the last that was used
            self.hits += 1
            return None
        return PasswordCheck(key, hashed, password)

    def dummy_check(self, username: bytes, password: bytes) -> PasswordCheck | None:
        """The work that a refusal has to cost here though nothing hangs on it; None while no slow hash was met."""
        if self._kind is None:
            return None
        return PasswordCheck(self._digest(username, password), self._kind, password)

    def remember(self, check: PasswordCheck) -> None:
        """The password was right."""
        if self._remember_seconds <= 0:
            return
        self._expiries.pop(check.key, None)
        self._expiries[check.key] = self.now + self._remember_seconds
        if len(self._expiries) > REMEMBERED_MAX:
            del self._expiries[next(iter(self._expiries))]

    def __len__(self) -> int:
        return len(self._expiries)

    def _digest(self, whose: bytes, password: bytes) -> bytes:
        # The length keeps the two apart.
        return blake2b(
            len(whose).to_bytes(4, "big") + whose + password, key=self._key, digest_size=_DIGEST_OCTETS
        ).digest()
