"""What a worker holds ready between packets: its NASes with prepared digests, its plans with compiled attributes.

Made from the replica at start and whenever its tables change; then only read (the memory of which prefix an address
fell into is bounded and goes with the table).
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sms_aaa.flows.dialects import UINT32_MAX, encode_policy
from sms_aaa.node.nas_rows import LAST_ROW
from sms_aaa.radius.dictionary import SESSION_TIMEOUT
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.radius.packet import attribute, integer
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas, NodePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sms_aaa.flows.vault import Vault
    from sms_aaa.rules.realms import Realms

ADDRESSES_REMEMBERED_MAX = 65_536
_DIALECTS = tuple(Dialect)
SECRETS_MAX = 2
"""Of a NAS, at a time: the one that it has and the one that it is to have."""


class Nas(Struct, frozen=True):
    """A RADIUS client, ready for work. `row` is its first word in this worker's counters; `single`: one address.

    `older` is the secret that a rotation has not retired yet, None when one alone is valid; `secret_id` is the newer's.
    `dialect_at`: where in a Plan's attributes its dialect stands.
    """

    nas_id: int
    row: int
    name: str
    digests: SecretDigests
    older: SecretDigests | None
    secret_id: int
    dialect_at: int
    message_authenticator: MessageAuthenticatorPolicy
    single: bool
    address: str  # the one address, or the first of its prefix
    observed_from: int
    signs_since: int


class Plan(Struct, frozen=True):
    """A plan version with its reply attributes for each Dialect, in their order; `untimed`: without Session-Timeout."""

    plan: NodePlan
    attributes: tuple[bytes, ...]
    untimed: tuple[bytes, ...]

    def attributes_until(self, dialect_at: int, seconds_left: int) -> bytes:
        """The reply attributes for a service that ends so soon (0: it does not): Session-Timeout is the earlier end."""
        limit = self.plan.policy.session_timeout_seconds
        if not seconds_left or 0 < limit <= seconds_left:
            return self.attributes[dialect_at]
        return attribute(SESSION_TIMEOUT, integer(min(seconds_left, UINT32_MAX))) + self.untimed[dialect_at]


class _Made(NamedTuple):
    """A NAS with what it was made from, and where it stands among the prefixes."""

    node_nas: NodeNas
    nas: Nas
    length: tuple[int, int]
    network: int


class Tables:
    """NASes by source address (the longest prefix wins), plans by version id, realms, names of NASes by id."""

    __slots__ = (
        "_by_length",
        "_made",
        "found",
        "has_strict_plans",
        "interim_seconds_max",
        "nas_names",
        "nases",
        "plans",
        "realms",
        "unreadable",
        "weak",
    )

    def __init__(
        self,
        nases: Iterable[NodeNas],
        plans: Iterable[NodePlan],
        vault: Vault,
        *,
        rows: Mapping[int, int] | None = None,
        realms: Realms | None = None,
        before: Tables | None = None,
    ) -> None:
        """`rows`: the first word of each NAS's row in the worker's counters; without them nothing is counted apart.

        `before`: the tables that these replace. A NAS that did not change is taken from there: logins wait meanwhile,
        and opening thousands of secrets takes long.
        """
        self.realms = realms or None  # None without any, which costs a login nothing
        self.nas_names: dict[int, str] = {}
        self.found: dict[str, Nas | None] = {}
        """What find_nas() answered, by address: the packet's way looks here first."""
        self._by_length: dict[tuple[int, int], dict[int, Nas]] = {}
        self.nases: list[Nas] = []
        self.plans = {plan.plan_version_id: _compile(plan) for plan in plans}
        self.has_strict_plans = any(plan.plan.policy.sessions_strict for plan in self.plans.values())
        self.interim_seconds_max = max((plan.plan.policy.interim_seconds for plan in self.plans.values()), default=0)
        self.unreadable: list[str] = []
        self.weak = 0
        self._made: dict[int, _Made] = {}
        earlier = before._made if before is not None else {}  # noqa: SLF001 - another one of this class
        for node_nas in sorted(nases, key=lambda nas: nas.nas_id):
            self.weak += node_nas.is_weak
            row = (rows or {}).get(node_nas.nas_id, LAST_ROW)
            made = earlier.get(node_nas.nas_id)
            if made is None or made.node_nas != node_nas or made.nas.row != row:
                made = self._make(node_nas, row, vault)
            self.nas_names[node_nas.nas_id] = node_nas.name
            if made is not None:
                self._made[node_nas.nas_id] = made
                self._by_length.setdefault(made.length, {})[made.network] = made.nas
                self.nases.append(made.nas)
        self._by_length = dict(sorted(self._by_length.items(), reverse=True))

    def find_nas(self, address: str) -> Nas | None:
        """Whose address it is; None: nobody's."""
        try:
            return self.found[address]
        except KeyError:
            return self._look_up(address)

    def _make(self, node_nas: NodeNas, row: int, vault: Vault) -> _Made | None:
        """None when its secret cannot be opened."""
        opened = [vault.open_nas_secret(sealed, node_nas.nas_id) for sealed in node_nas.secrets[:SECRETS_MAX]]
        secrets = [SecretDigests(secret.reveal()) for secret in opened if secret is not None]
        if len(secrets) < len(opened):
            self.unreadable.append(node_nas.name)
        if not secrets:
            return None
        network = ip_network(node_nas.prefix)
        nas = Nas(
            nas_id=node_nas.nas_id,
            row=row,
            name=node_nas.name,
            digests=secrets[0],
            older=secrets[1] if len(secrets) > 1 else None,
            secret_id=node_nas.secret_id,
            dialect_at=_DIALECTS.index(node_nas.dialect),
            message_authenticator=node_nas.message_authenticator,
            single=network.num_addresses == 1,
            address=str(network.network_address),
            observed_from=node_nas.observed_from,
            signs_since=node_nas.signs_since,
        )
        return _Made(node_nas, nas, (network.version, network.prefixlen), int(network.network_address))

    def _look_up(self, text: str) -> Nas | None:
        """A dict look-up for each length of prefix that there is, the longest first."""
        address = ip_address(text)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            # A socket for both families tells ::ffff:192.0.2.1: that NAS is known as 192.0.2.1.
            address = address.ipv4_mapped
        found = None
        for (version, length), of_length in self._by_length.items():
            if version == address.version:
                host_bits = address.max_prefixlen - length
                found = of_length.get(int(address) >> host_bits << host_bits)
                if found is not None:
                    break
        if len(self.found) >= ADDRESSES_REMEMBERED_MAX:
            self.found.clear()  # a flood from made-up addresses costs this look-up, not memory
        self.found[text] = found
        return found


def _compile(plan: NodePlan) -> Plan:
    endless = replace(plan.policy, session_timeout_seconds=0)
    return Plan(
        plan=plan,
        attributes=tuple(encode_policy(plan.policy, dialect) for dialect in _DIALECTS),
        untimed=tuple(encode_policy(endless, dialect) for dialect in _DIALECTS),
    )
