from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from sms_aaa.radius import dictionary, values
from sms_aaa.radius.dictionary import ATTRIBUTES, Kind, describe
from sms_aaa.radius.packet import Packet, attribute, parse
from sms_aaa.radius.values import AcctStatusType, NamedValue, NasPortType

ENUMS = [kind for kind in vars(values).values() if isinstance(kind, type) and issubclass(kind, NamedValue)]


def packet_of(body: bytes) -> Packet:
    packet = parse(bytes((2, 1)) + (20 + len(body)).to_bytes(2, "big") + bytes(16) + body)
    assert isinstance(packet, Packet)
    return packet


def test_every_number_has_its_row_and_is_named_after_it() -> None:
    vendors = {"CISCO", "MICROSOFT", "ADSL_FORUM", "WISPR", "MIKROTIK"}
    numbers = {name: value for name, value in vars(dictionary).items() if type(value) is int and name not in vendors}
    assert {name: ATTRIBUTES[key].name.upper().replace("-", "_") for name, key in numbers.items()} == {
        name: name for name in numbers
    }
    assert len(numbers) == len(ATTRIBUTES)


def test_names_are_unique() -> None:
    assert len({row.name for row in ATTRIBUTES.values()}) == len(ATTRIBUTES)


def test_named_values_are_found_and_unknown_ones_are_numbers() -> None:
    assert AcctStatusType.find(3) is AcctStatusType.INTERIM_UPDATE
    assert AcctStatusType.find(99) is None
    assert NasPortType.name_of(32) == "PPPoEoE"
    assert AcctStatusType.name_of(99) == "99"
    for kind in ENUMS:
        for member in kind:
            assert kind.find(int(member)) is member
            assert re.sub("[-.]", "_", member.label).upper() == member.name


def test_everything_that_gives_a_password_away_is_a_secret() -> None:
    names = [row.name for row in ATTRIBUTES.values() if row.kind is not Kind.SECRET]
    suspicious = [name for name in names if re.search(r"Password|MPPE-.*Key|CHAP2?-(Response|Success|CPW)|PSK", name)]
    assert suspicious == ["Password-Retry"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ATTRIBUTES)), st.binary(max_size=40))
def test_no_value_breaks_describe_or_the_terminal(key: int, value: bytes) -> None:
    [(name, text)] = describe(packet_of(attribute(key, value)))
    assert name.partition(":")[0] == ATTRIBUTES[key].name
    assert text.isprintable()
    if ATTRIBUTES[key].kind is Kind.SECRET:
        assert text == "***"
