"""What a login needs to know, compiled so that one read of the node's replica brings it.

These values are made from PostgreSQL by the replicator, stored by node/replica.py and read once a login, hence
msgspec structs without garbage-collector tracking and as arrays rather than maps.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from msgspec import Struct


class IdentityKind(IntEnum):
    """How a service is recognised."""

    USERNAME = 1  # octet for octet as in User-Name
    MAC = 2  # 12 lower-case hex digits


class ServiceState(IntEnum):
    ACTIVE = 1
    SUSPENDED = 2
    CANCELLED = 3
    BLOCKED = 4  # for abuse or fraud: unlike a suspension no payment lifts it


class BindingKind(IntEnum):
    """What a service's logins may be bound to. Within a kind any one will do; every kind that is bound must fit."""

    MAC = 1  # a device, as 12 lower-case hex digits
    NAS = 2  # by its id
    PORT = 3  # a line, as the NAS names it; see rules/access.py


class Dialect(StrEnum):
    """How one vendor's NAS wants rights said (flows/dialects.py)."""

    GENERIC = "generic"
    MIKROTIK = "mikrotik"


class MessageAuthenticatorPolicy(StrEnum):
    """Whether an Access-Request must carry a Message-Authenticator (CVE-2024-3596)."""

    AUTO = "auto"  # from the first one seen on: required
    YES = "yes"
    NO = "no"


class SessionsPolicy(StrEnum):
    """Who is refused when a service has as many sessions as its plan allows."""

    REPLACE_SAME_DEVICE = "replace-same-device"  # another device; the same one takes over its own place
    REJECT_NEW = "reject-new"  # whoever asks, until a session ends


class Terms(Struct, frozen=True, gc=False, array_like=True):
    """When and from where a service may be used. Instants are epoch seconds, 0: no bound; it is valid in [from, until).

    An empty tuple binds nothing. `macs` are canonical, `ports` octets as the NAS sends them.
    """

    valid_from: int = 0
    valid_until: int = 0
    nas_ids: tuple[int, ...] = ()
    ports: tuple[bytes, ...] = ()
    macs: tuple[bytes, ...] = ()


class Entitlement(Struct, frozen=True, gc=False, array_like=True):
    """A service's rights at an instant. `plan_version_id` 0: no plan. `credential` is sealed, b"" when there is none.

    `static_ipv4` is the address as an integer, 0 when the NAS or a pool gives one. `terms` None, the common case: valid
    at any time, from anywhere.
    """

    service_id: int
    account_id: int
    plan_version_id: int
    state: int  # ServiceState; an int, so that decoding a login's record costs no enum look-up
    credential: bytes
    static_ipv4: int = 0
    terms: Terms | None = None


class Policy(Struct, frozen=True, gc=False, kw_only=True):
    """What the network does for a plan. Rates are decimal kbit/s (never x 1024); 0 means: not limited, not sent.

    up = from the subscriber, down = to the subscriber. `sessions_max` 0: any number. `sessions_strict`: the limit holds
    over all nodes, because each login asks PostgreSQL for its place.
    """

    rate_up_kbps: int = 0
    rate_down_kbps: int = 0
    session_timeout_seconds: int = 0
    idle_timeout_seconds: int = 0
    interim_seconds: int = 300
    sessions_max: int = 1
    sessions_policy: SessionsPolicy = SessionsPolicy.REPLACE_SAME_DEVICE
    sessions_strict: bool = False


class NodePlan(Struct, frozen=True, gc=False):
    """A plan version as the node needs it."""

    plan_version_id: int
    name: str
    version: int
    policy: Policy


class NodeNas(Struct, frozen=True):
    """A RADIUS client as the node needs it. `prefix` in CIDR form; `secrets` sealed, the newest first.

    `secret_id` names the newest secret: another one is another rotation. `observed_from` (epoch seconds) is when what
    it sends began to count as evidence: another value is another observation. `signs_since` (epoch seconds): some node
    saw a signed login of it then; 0: none did.
    """

    nas_id: int
    name: str
    prefix: str
    secrets: list[bytes]
    dialect: Dialect
    message_authenticator: MessageAuthenticatorPolicy
    coa_port: int
    secret_id: int = 0
    is_weak: bool = False  # its newest secret
    observed_from: int = 0
    signs_since: int = 0


class NodeRealm(Struct, frozen=True):
    """A realm as the node needs it. `name` in lower case; `nas_ids`: where its services may log in, () for anywhere."""

    realm_id: int
    name: str
    is_stripped: bool
    nas_ids: tuple[int, ...]
