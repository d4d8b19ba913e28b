"""Rating keys: the first rule that a session fits, else the default; and what of a NAS's words is a kind of service."""

from __future__ import annotations

import pytest

from sms_aaa.rules.rating_keys import Traits, rating_key, service_classes
from sms_aaa.rules.tariff import KeyRule

RULES = (
    KeyRule("roaming", nas_zones=("abroad",), realms=("Partner.example",)),
    KeyRule("iptv", service_classes=("iptv", "iptv-hd")),
    KeyRule("abroad", nas_zones=("abroad", "far")),
    KeyRule("apn", called_stations=("internet.apn",)),
)


@pytest.mark.parametrize(
    ("traits", "key"),
    [
        (Traits(), "default"),
        (Traits(nas_zone="abroad", realm="partner.example"), "roaming"),
        (Traits(nas_zone="abroad", realm="other.example"), "abroad"),
        (Traits(nas_zone="abroad", service_classes=("gold", "iptv-hd")), "iptv"),
        (Traits(called_station="internet.apn", nas_zone="home"), "apn"),
        (Traits(called_station="intranet.apn"), "default"),
    ],
)
def test_the_first_rule_of_which_every_list_fits_names_the_key(traits: Traits, key: str) -> None:
    assert rating_key(RULES, traits) == key


def test_what_a_nas_calls_a_service_a_class_a_profile_or_a_group_is_one() -> None:
    said = {
        "WISPr-Billing-Class-Of-Service": "gold",
        "Mikrotik-Group": "iptv",
        "ERX-Service-Session": ["voice", "data"],
        "NAS-Port-Id": "ge-0/0/1",
    }
    assert service_classes(said) == ("gold", "iptv", "voice", "data")
