"""What a plan file may say of a price by usage, and of its tiers."""

from __future__ import annotations

from sms_aaa.rules.measure import Measure
from sms_aaa.rules.plan_table import Form, Key, Section, one_of
from sms_aaa.rules.slots import ANY_BAND, ANYTIME
from sms_aaa.rules.tariff import DEFAULT_KEY, TIERS_MAX, Model, Rounding, Scope, SessionLimit

DECIMALS_MAX = 12
PER_UNIT = "per-unit"
"""A model of the file only: graduated, with one price."""

_NAME = Key("name", Form.NAME, "An invoice line and a revenue account: unique among all components.", '"data"')


TIER = Section(
    "tariff.usage.tiers",
    (
        Key(
            "up_to",
            Form.QUANTITY,
            "The tier's end, included; the next one begins beyond it.",
            '"100 GB"',
            absent="the last tier: all the rest",
        ),
        Key("price", Form.PRICE, "For each unit.", '"0.20"', absent="0, if there is a flat fee"),
        Key(
            "flat",
            Form.PRICE,
            "A fee, once, as soon as the tier is reached; of the first tier: when the cycle opens.",
            '"5.00"',
            default="0",
        ),
        Key("per", Form.PER, "The unit that this tier's price is for.", '"GB"', absent="the component's"),
        Key(
            "increment",
            Form.QUANTITY,
            "The tier's quantity is rounded up to whole ones.",
            '"1 MB"',
            absent="the base unit",
        ),
    ),
)

USAGE = Section(
    "tariff.usage",
    (
        _NAME,
        one_of(
            "measure",
            tuple(Measure),
            None,
            "What it counts: traffic from the subscriber, to the subscriber or both; time; events; abstract units.",
            '"total"',
        ),
        Key("per", Form.PER, "The unit that prices are for; of packages: one package.", '"GB"'),
        one_of("model", (PER_UNIT, *Model), Model.GRADUATED.value, "How tiers make a price.", '"volume"'),
        one_of(
            "scope", tuple(Scope), Scope.CYCLE.value, "Over what the quantity runs up, and begins anew.", '"session"'
        ),
        Key("price", Form.PRICE, "For each unit; instead of tiers.", '"0.50"', absent="there are tiers"),
        Key("included", Form.QUANTITY, "With `price`: a first tier at price 0, up to here.", '"50 GB"', absent="none"),
        Key(
            "tiers",
            Form.TABLES,
            "Instead of a price.",
            '[{ up_to = "1 GB", price = "0" }, { price = "0.20" }]',
            absent="there is a price",
            bounds=(0, TIERS_MAX),
            section=TIER,
        ),
        Key("free", Form.QUANTITY, "Of packages: what is free before the first.", '"1 GB"', absent="none"),
        Key(
            "initial_increment",
            Form.QUANTITY,
            "What is begun first is charged whole.",
            '"60 s"',
            absent="as `increment`",
        ),
        Key(
            "increment",
            Form.QUANTITY,
            "Each further step that is begun is charged whole.",
            '"1 s"',
            absent="the base unit",
        ),
        Key("minimum", Form.QUANTITY, "Charged at least, once anything is.", '"30 s"', absent="none"),
        Key("grace", Form.QUANTITY, "Usage of so much or less costs nothing at all.", '"5 s"', absent="none"),
        Key("connect_fee", Form.PRICE, "Once, as soon as anything is charged.", '"0.10"', default="0"),
        Key(
            "session_maximum",
            Form.PRICE,
            "The most that one session costs; needs scope session.",
            '"2.00"',
            absent="none",
        ),
        one_of(
            "session_limit",
            tuple(SessionLimit),
            SessionLimit.FREE.value,
            "What happens to a session at its maximum.",
            '"disconnect"',
        ),
        Key(
            "keys",
            Form.NAMES,
            f"Rating keys that it is for; `{DEFAULT_KEY}` is the key of all other usage.",
            '["roaming"]',
            absent="all",
        ),
        Key(
            "slots",
            Form.NAMES,
            f"Slots that it is for; `{ANYTIME}` is the slot of all other times.",
            '["night"]',
            absent="all",
        ),
        Key(
            "bands",
            Form.NAMES,
            f"Bands that it is for; `{ANY_BAND}` is the band of all other times.",
            '["first-hour"]',
            absent="all",
        ),
        Key("discount", Form.PERCENT, "Off the cycle's price, before the maximum.", '"10"', default="0"),
        Key("maximum", Form.AMOUNT, "The most that a cycle costs.", '"30.00"', absent="none"),
        Key("minimum_charge", Form.AMOUNT, "The least that a cycle costs, when it closes.", '"5.00"', default="0"),
        Key(
            "prorate_minimum",
            Form.FLAG,
            "Whether a part of a cycle has that part of the minimum.",
            "false",
            default=True,
        ),
        one_of(
            "round", tuple(Rounding), Rounding.HALF_AWAY.value, "How its amount is rounded; credits as charges.", '"up"'
        ),
        Key(
            "decimals",
            Form.COUNT,
            "Of its own amount, before it becomes the currency's.",
            "4",
            absent="the currency's",
            bounds=(0, DECIMALS_MAX),
        ),
    ),
)
