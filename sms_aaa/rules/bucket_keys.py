"""What a plan file may say of a bucket."""

from __future__ import annotations

from sms_aaa.rules.buckets import BucketKind, Overage
from sms_aaa.rules.measure import Measure
from sms_aaa.rules.plan_table import COUNT_MAX, Form, Key, Section, one_of

PERIODS_MAX = 120
VALID_SECONDS_MAX = 3_660 * 86_400


ROLLOVER = Section(
    "tariff.bucket.rollover",
    (
        Key("minimum", Form.QUANTITY, "Less than that is lost.", '"1 GB"', absent="anything rolls over"),
        Key("maximum", Form.QUANTITY, "At most so much rolls over.", '"20 GB"', absent="all of it"),
        Key("periods", Form.COUNT, "For how many cycles.", "2", default=1, bounds=(1, PERIODS_MAX)),
    ),
)

BUCKET = Section(
    "tariff.bucket",
    (
        Key("name", Form.NAME, "Unique among buckets.", '"night-data"'),
        one_of(
            "measure",
            tuple(Measure),
            None,
            "What it counts; `total` covers upload, download and total.",
            '"total"',
            absent="of money",
        ),
        Key("money", Form.FLAG, "Of money, which pays for any component; instead of a measure.", "true", default=False),
        Key("amount", Form.QUANTITY, "Granted each cycle; of money an amount.", '"50 GB"'),
        one_of(
            "kind",
            (BucketKind.ALLOWANCE.value, BucketKind.PROMOTION.value),
            BucketKind.ALLOWANCE.value,
            "An allowance each cycle, or a promotion once, when the subscription begins.",
            '"promotion"',
        ),
        Key(
            "priority",
            Form.COUNT,
            "The lower number is used first; then what expires first; then the oldest.",
            "10",
            default=100,
            bounds=(0, COUNT_MAX),
        ),
        Key("components", Form.NAMES, "Components that it covers.", '["data"]', absent="all that it can"),
        Key("keys", Form.NAMES, "Rating keys that it covers.", '["default"]', absent="all"),
        Key("slots", Form.NAMES, "Slots that it covers.", '["night"]', absent="all"),
        Key(
            "increment",
            Form.QUANTITY,
            "It is used in steps of so much, rounded up per session.",
            '"1 MB"',
            absent="the base unit",
        ),
        Key("factor", Form.FACTOR, "So much of it is used for one of usage.", '"2"', default="1"),
        Key("connect_fee", Form.QUANTITY, "Used once a session.", '"1 MB"', absent="none"),
        Key("blocks", Form.FLAG, "Whether buckets behind it are not used once it is used up.", "true", default=False),
        one_of(
            "overage",
            tuple(Overage),
            Overage.CHARGE.value,
            "What becomes of usage beyond one that blocks: it costs the component's price, is not allowed, or is free.",
            '"absorb"',
        ),
        Key(
            "keeps_overage",
            Form.FLAG,
            "Whether usage beyond it, absorbed, is taken from the next grant.",
            "true",
            default=False,
        ),
        Key("shared", Form.FLAG, "Whether the account's charging group may use it.", "true", default=False),
        Key(
            "member_maximum",
            Form.QUANTITY,
            "Of a shared one: the most that one member may use; of money an amount.",
            '"10 GB"',
            absent="none",
        ),
        Key("prorate", Form.FLAG, "Whether a part of a cycle has that part of the amount.", "true", default=False),
        Key(
            "valid",
            Form.DURATION,
            "How long it can be used.",
            '"30d"',
            absent="to the end of the cycle",
            bounds=(1, VALID_SECONDS_MAX),
        ),
        Key(
            "rollover",
            Form.TABLE,
            "What becomes of what is left.",
            '{ maximum = "20 GB", periods = 1 }',
            absent="it is lost",
            section=ROLLOVER,
        ),
    ),
)
