"""Which rating key usage is of: the tariff's rules are tried in their order, the default matches whatever is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sms_aaa.rules.tariff import DEFAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sms_aaa.rules.tariff import KeyRule

_CLASS_WORDS = ("service", "class", "profile", "group")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a session has that rules ask for. "": it has none. `realm` in lower case."""

    service_classes: tuple[str, ...] = ()
    nas_zone: str = ""
    called_station: str = ""
    realm: str = ""


def rating_key(rules: Iterable[KeyRule], traits: Traits) -> str:
    """The name of the first rule of which each list that is not empty has what the session has."""
    for rule in rules:
        if (
            _has(rule.service_classes, traits.service_classes)
            and _has(rule.nas_zones, (traits.nas_zone,))
            and _has(rule.called_stations, (traits.called_station,))
            and _has([realm.lower() for realm in rule.realms], (traits.realm,))
        ):
            return rule.name
    return DEFAULT_KEY


def service_classes(vendor_attributes: Mapping[str, str | Sequence[str]]) -> tuple[str, ...]:
    """What a NAS said of the kind of service: values of attributes such as WISPr-Billing-Class-Of-Service."""
    found: list[str] = []
    for name, value in vendor_attributes.items():
        if any(word in name.lower() for word in _CLASS_WORDS):
            found += [value] if isinstance(value, str) else value
    return tuple(found)


def _has(wanted: Collection[str], values: Iterable[str]) -> bool:
    return not wanted or any(value in wanted for value in values)
