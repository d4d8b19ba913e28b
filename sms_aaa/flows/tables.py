"""What a worker holds ready between packets: its NASes with prepared digests, its plans with compiled attributes.

Made from the replica at start and whenever its tables change; then only read (the memory of which prefix an address
fell into is bounded and goes with the table).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.dialects import encode_policy
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas, NodePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.flows.vault import Vault

ADDRESSES_REMEMBERED_MAX = 65_536


class Nas(Struct, frozen=True):
    """A RADIUS client, ready for work. `index` is its row in this worker's counters; `single`: one address."""

    nas_id: int
    index: int
    name: str
    digests: SecretDigests
    dialect: Dialect
    message_authenticator: MessageAuthenticatorPolicy
    single: bool


class Plan(Struct, frozen=True):
    """A plan version with its reply attributes by dialect."""

    plan: NodePlan
    attributes: dict[Dialect, bytes]


class Tables:
    """NASes by source address (the longest prefix wins) and plans by version id."""

    __slots__ = ("_by_address", "_by_prefix", "plans", "unreadable")

    def __init__(self, nases: Iterable[NodeNas], plans: Iterable[NodePlan], vault: Vault) -> None:
        self._by_address: dict[str, Nas | None] = {}
        self._by_prefix: list[tuple[IPv4Network | IPv6Network, Nas]] = []
        self.plans = {plan.plan_version_id: _compile(plan) for plan in plans}
        self.unreadable: list[str] = []
        for index, node_nas in enumerate(sorted(nases, key=lambda nas: nas.nas_id)):
            self._add(node_nas, index, vault)
        self._by_prefix.sort(key=lambda pair: -pair[0].prefixlen)

    def find_nas(self, address: str) -> Nas | None:
        """Whose address it is; None: nobody's."""
        try:
            return self._by_address[address]
        except KeyError:
            return self._find_by_prefix(address)

    def nas_rows(self) -> list[tuple[int, int]]:
        """(index, nas id) of every NAS: what the counters' rows stand for."""
        return [(nas.index, nas.nas_id) for _, nas in self._by_prefix]

    def _add(self, node_nas: NodeNas, index: int, vault: Vault) -> None:
        secret = vault.open_nas_secret(node_nas.secrets[0], node_nas.nas_id)
        if secret is None:
            self.unreadable.append(node_nas.name)
            return
        network = ip_network(node_nas.prefix)
        nas = Nas(
            nas_id=node_nas.nas_id,
            index=index,
            name=node_nas.name,
            digests=SecretDigests(secret.reveal()),
            dialect=node_nas.dialect,
            message_authenticator=node_nas.message_authenticator,
            single=network.num_addresses == 1,
        )
        self._by_prefix.append((network, nas))

    def _find_by_prefix(self, text: str) -> Nas | None:
        address = ip_address(text)
        found = next((nas for network, nas in self._by_prefix if address in network), None)
        if len(self._by_address) >= ADDRESSES_REMEMBERED_MAX:
            self._by_address.clear()  # a flood from made-up addresses costs this look-up, not memory
        self._by_address[text] = found
        return found


def _compile(plan: NodePlan) -> Plan:
    return Plan(plan=plan, attributes={dialect: encode_policy(plan.policy, dialect) for dialect in Dialect})
