"""What a plan file may say of a tariff: its calendar, rating keys, fees and bounds; prices and buckets stand apart."""

from __future__ import annotations

from sms_aaa.rules.bucket_keys import BUCKET
from sms_aaa.rules.plan_table import COUNT_MAX, Form, Key, Section, one_of
from sms_aaa.rules.slots import Day
from sms_aaa.rules.tariff import COMPONENTS_MAX, Anchor, Carry, Due, Period, Proration, Switch
from sms_aaa.rules.usage_keys import USAGE

ROWS_MAX = 200  # of slots, bands and rating keys
TRIAL_SECONDS_MAX = 3_660 * 86_400

_NAME = Key("name", Form.NAME, "An invoice line and a revenue account: unique among all components.", '"data"')


SLOT = Section(
    "tariff.slot",
    (
        Key(
            "name",
            Form.NAME,
            "Repeated for several rows of one slot; the first row that matches an instant has it.",
            '"night"',
        ),
        Key(
            "days",
            Form.CHOICES,
            "The days that it begins on.",
            '["sat", "sun", "holiday"]',
            absent="all",
            choices=tuple(Day),
        ),
        Key("from", Form.CLOCK, "By the clock on the account's wall.", '"22:00"', default="00:00"),
        Key("to", Form.CLOCK, "Not included; not after `from`: it goes on over midnight.", '"06:00"', default="24:00"),
    ),
)

BAND = Section(
    "tariff.band",
    (
        Key("name", Form.NAME, "Repeated for several rows of one band.", '"first-hour"'),
        Key("from", Form.QUANTITY, "Since the session began.", '"0 min"', default="0 s"),
        Key("to", Form.QUANTITY, "Not included.", '"60 min"', absent="the session's end"),
    ),
)

KEY = Section(
    "tariff.key",
    (
        Key(
            "name",
            Form.NAME,
            "Of the usage that has what all of these lists ask for; the first rule that matches has it.",
            '"roaming"',
        ),
        Key("service_class", Form.TEXTS, "Service classes, as the NAS names them.", '["iptv"]', absent="any"),
        Key("nas_zone", Form.TEXTS, "Zones of the NAS.", '["abroad"]', absent="any"),
        Key("called_station", Form.TEXTS, "Called-Station-Ids.", '["hotspot-1"]', absent="any"),
        Key("realm", Form.TEXTS, "Realms of the user name.", '["partner.example"]', absent="any"),
    ),
)

RECURRING = Section(
    "tariff.recurring",
    (
        _NAME,
        Key("amount", Form.AMOUNT, "For one whole period, of one.", '"29.90"'),
        one_of("period", tuple(Period), None, "How often it falls due.", '"month"'),
        one_of("due", tuple(Due), Due.ADVANCE.value, "At the beginning of a period, or at its end.", '"arrears"'),
        one_of(
            "prorate",
            tuple(Proration),
            Proration.NONE.value,
            "How a part of a period is charged: all of it, or by days or seconds of the whole period.",
            '"day"',
        ),
        one_of(
            "anchor",
            tuple(Anchor),
            Anchor.ACCOUNT.value,
            "Where periods begin: on the account's anchor day, or on the day the subscription began.",
            '"subscription"',
        ),
        Key("quantity", Form.COUNT, "So many times the amount.", "3", default=1, bounds=(0, COUNT_MAX)),
        Key(
            "trial",
            Form.DURATION,
            "Days that are free from the beginning of the subscription on.",
            '"14d"',
            absent="none",
            bounds=(86_400, TRIAL_SECONDS_MAX),
        ),
    ),
)

ONE_TIME = Section(
    "tariff.one_time",
    (
        _NAME,
        Key("amount", Form.AMOUNT, "Due when the subscription begins.", '"49.00"'),
        Key("quantity", Form.COUNT, "So many times the amount.", "2", default=1, bounds=(0, COUNT_MAX)),
    ),
)

BOUND = Section(
    "tariff.bound",
    (
        _NAME,
        Key("components", Form.NAMES, "Whose sum is bounded: fees and usage.", '["calls", "data"]'),
        Key(
            "maximum",
            Form.AMOUNT,
            "The most that they cost in a cycle together; what is above is given back.",
            '"50.00"',
            absent="none",
        ),
        Key(
            "minimum", Form.AMOUNT, "The least that they cost together, when the cycle closes.", '"10.00"', default="0"
        ),
        Key(
            "prorate_minimum",
            Form.FLAG,
            "Whether a part of a cycle has that part of the minimum.",
            "false",
            default=True,
        ),
    ),
)

TARIFF = Section(
    "tariff",
    (
        Key(
            "currency",
            Form.CURRENCY,
            "ISO 4217; XXX, abstract units, can be priced and not sold.",
            '"EUR"',
            absent="that of the settings",
        ),
        one_of(
            "switch",
            tuple(Switch),
            Switch.LINEAR.value,
            "How usage between two reports is shared at an edge of a slot or cycle: by time, or all to start or end.",
            '"start"',
        ),
        one_of(
            "carry",
            tuple(Carry),
            Carry.ANEW.value,
            "Where tiers begin after a change to this plan in mid-cycle.",
            '"on"',
        ),
        Key(
            "holidays",
            Form.HOLIDAYS,
            "Days of their own, where a slot names holidays.",
            '["12-25", "2027-03-26"]',
            absent="none",
        ),
        Key(
            "slot",
            Form.TABLES,
            "Times of day and days.",
            "[[tariff.slot]]",
            absent="none",
            bounds=(0, ROWS_MAX),
            section=SLOT,
        ),
        Key(
            "band",
            Form.TABLES,
            "Times since a session began.",
            "[[tariff.band]]",
            absent="none",
            bounds=(0, ROWS_MAX),
            section=BAND,
        ),
        Key("key", Form.TABLES, "Kinds of usage.", "[[tariff.key]]", absent="none", bounds=(0, ROWS_MAX), section=KEY),
        Key(
            "recurring",
            Form.TABLES,
            "Fees by time.",
            "[[tariff.recurring]]",
            absent="none",
            bounds=(0, COMPONENTS_MAX),
            section=RECURRING,
        ),
        Key(
            "one_time",
            Form.TABLES,
            "Fees at the beginning.",
            "[[tariff.one_time]]",
            absent="none",
            bounds=(0, COMPONENTS_MAX),
            section=ONE_TIME,
        ),
        Key(
            "usage",
            Form.TABLES,
            "Prices by usage; traffic that none counts is rated at price 0.",
            "[[tariff.usage]]",
            absent="all is free",
            bounds=(0, COMPONENTS_MAX),
            section=USAGE,
        ),
        Key(
            "bound",
            Form.TABLES,
            "Minimum and maximum over several components.",
            "[[tariff.bound]]",
            absent="none",
            bounds=(0, COMPONENTS_MAX),
            section=BOUND,
        ),
        Key(
            "bucket",
            Form.TABLES,
            "What is used before usage costs anything.",
            "[[tariff.bucket]]",
            absent="none",
            bounds=(0, COMPONENTS_MAX),
            section=BUCKET,
        ),
    ),
)
