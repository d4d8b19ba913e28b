"""What a worker holds ready between packets: its NASes with prepared digests, its plans with compiled attributes.

Made from the replica at start and whenever its tables change; then only read (the memory of which prefix an address
fell into is bounded and goes with the table).
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from msgspec import Struct

from sms_aaa.flows.dialects import encode_policy
from sms_aaa.radius.digest import SecretDigests
from sms_aaa.rules.entitlement import Dialect, MessageAuthenticatorPolicy, NodeNas, NodePlan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sms_aaa.flows.vault import Vault

ADDRESSES_REMEMBERED_MAX = 65_536
_DIALECTS = tuple(Dialect)


class Nas(Struct, frozen=True):
    """A RADIUS client, ready for work. `index` is its row in this worker's counters; `single`: one address.

    `dialect_at`: where in a Plan's attributes its dialect stands.
    """

    nas_id: int
    index: int
    name: str
    digests: SecretDigests
    dialect_at: int
    message_authenticator: MessageAuthenticatorPolicy
    single: bool


class Plan(Struct, frozen=True):
    """A plan version with its reply attributes for each Dialect, in their order."""

    plan: NodePlan
    attributes: tuple[bytes, ...]


class Tables:
    """NASes by source address (the longest prefix wins) and plans by version id."""

    __slots__ = ("_by_length", "_found", "_rows", "interim_seconds_max", "plans", "unreadable")

    def __init__(self, nases: Iterable[NodeNas], plans: Iterable[NodePlan], vault: Vault) -> None:
        self._found: dict[str, Nas | None] = {}
        self._by_length: dict[tuple[int, int], dict[int, Nas]] = {}
        self._rows: list[tuple[int, int]] = []
        self.plans = {plan.plan_version_id: _compile(plan) for plan in plans}
        self.interim_seconds_max = max((plan.plan.policy.interim_seconds for plan in self.plans.values()), default=0)
        self.unreadable: list[str] = []
        for index, node_nas in enumerate(sorted(nases, key=lambda nas: nas.nas_id)):
            self._add(node_nas, index, vault)
        self._by_length = dict(sorted(self._by_length.items(), reverse=True))

    def find_nas(self, address: str) -> Nas | None:
        """Whose address it is; None: nobody's."""
        try:
            return self._found[address]
        except KeyError:
            return self._look_up(address)

    def nas_rows(self) -> list[tuple[int, int]]:
        """(index, nas id) of every NAS: what the counters' rows stand for."""
        return self._rows

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
            dialect_at=_DIALECTS.index(node_nas.dialect),
            message_authenticator=node_nas.message_authenticator,
            single=network.num_addresses == 1,
        )
        of_length = self._by_length.setdefault((network.version, network.prefixlen), {})
        of_length[int(network.network_address)] = nas
        self._rows.append((index, node_nas.nas_id))

    def _look_up(self, text: str) -> Nas | None:
        """A dict look-up for each length of prefix that there is, the longest first."""
        address = ip_address(text)
        found = None
        for (version, length), of_length in self._by_length.items():
            if version == address.version:
                host_bits = address.max_prefixlen - length
                found = of_length.get(int(address) >> host_bits << host_bits)
                if found is not None:
                    break
        if len(self._found) >= ADDRESSES_REMEMBERED_MAX:
            self._found.clear()  # a flood from made-up addresses costs this look-up, not memory
        self._found[text] = found
        return found


def _compile(plan: NodePlan) -> Plan:
    return Plan(plan=plan, attributes=tuple(encode_policy(plan.policy, dialect) for dialect in _DIALECTS))
