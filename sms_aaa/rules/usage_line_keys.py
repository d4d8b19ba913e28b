"""What the lines of a usage file and an account file may say: the keys of their tables, as data (rules/plan_table.py).

docs/pricing-door.md tells what they mean in full; the JSON Schemas are made of these.
"""

from __future__ import annotations

from sms_aaa.rules.bucket_keys import BUCKET
from sms_aaa.rules.buckets import BucketKind
from sms_aaa.rules.cycle import ANCHOR_DAY_MAX
from sms_aaa.rules.measure import IN_FULL, QUANTITY_MAX, Measure, Unit
from sms_aaa.rules.plan_table import Form, Key, Section, one_of

BUCKETS_MAX = 1_000
_NOW = "the latest instant of the lines so far"
_NONE = "none"

KIND = Key("kind", Form.CHOICE, "What the line is.", '"usage"', default="usage")
_ID = Key("id", Form.TEXT, "A later line of the same id does nothing.", '"r-17"', absent=_NONE)
_AT = Key("at", Form.INSTANT, "When.", '"2026-01-31T23:00:00Z"', absent=_NOW)
_SESSION = Key("session", Form.TEXT, "Whose quantities run up together.", '"7F"')
_MEMBER = Key("member", Form.TEXT, "Whose usage it is.", '"alice"', absent="the account itself")
_KEY = Key("key", Form.NAME, "The rating key.", '"roaming"', absent="the default key")
_UNTIL = Key("until", Form.INSTANT, "When it ends.", '"2026-02-28T23:00:00Z"', absent="no end")
_TARIFF = Key("tariff", Form.TEXT, "A tariff file, relative to the usage file.", '"other.toml"')
_MONEY = Key("amount", Form.NUMBER, "In units of the currency.", '"10.00"')
_UNIT = one_of("unit", (*(unit.label for unit in Unit), *IN_FULL), None, "Of the quantity.", '"GB"', absent=_NONE)

_QUANTITIES = (
    Key("octets_in", Form.NUMBER, "From the subscriber: upload.", "1000000", absent="0"),
    Key("octets_out", Form.NUMBER, "To the subscriber: download.", "7000000", absent="0"),
    Key("seconds", Form.NUMBER, "Time online.", "3600", absent="0, or the length of a line without any quantity"),
    Key("events", Form.NUMBER, "Number of events.", "1", absent="0"),
    Key("quantity", Form.NUMBER, "Instead of these, with its unit.", '"4.5"', absent=_NONE),
    _UNIT,
    one_of(
        "measure", (Measure.UPLOAD.value, Measure.DOWNLOAD.value), Measure.DOWNLOAD.value,
        "Of a quantity of octets.", '"upload"',
    ),
)  # fmt: skip

USAGE_LINE = (
    _ID,
    Key("at", Form.INSTANT, "Instead of `from` and `to`, where they are one.", _AT.sample, absent="`from` and `to`"),
    Key("from", Form.INSTANT, "The beginning.", '"2026-01-10T08:00:00Z"', absent="`to` less `seconds`"),
    Key("to", Form.INSTANT, "The end, not included.", '"2026-01-10T09:00:00Z"', absent="`from` and `seconds`"),
    Key("session", Form.TEXT, _SESSION.says, _SESSION.sample, absent="a session of its own"),
    Key("session_from", Form.INSTANT, "When the session began.", _AT.sample, absent="where its first line begins"),
    Key(
        "seq", Form.COUNT, "A second line of this session and number does nothing.", "3", absent=_NONE,
        bounds=(0, QUANTITY_MAX),
    ),
    _MEMBER,
    _KEY,
    *_QUANTITIES,
)  # fmt: skip

PACKET_LINE = (
    _ID,
    Key("at", Form.INSTANT, "When it was received.", _AT.sample, absent="its Event-Timestamp, else now"),
    Key("attributes", Form.OBJECT, "Of an accounting record, by name.", '{"Acct-Status-Type": "Stop"}'),
    Key("nas", Form.TEXT, "Which NAS sent it.", '"bng1"', absent="by its attributes"),
    Key("nas_zone", Form.TEXT, "Of the NAS, for rating keys.", '"abroad"', absent=_NONE),
    Key("service_class", Form.TEXT, "For rating keys.", '"iptv"', absent="by its attributes"),
    _MEMBER,
    _KEY,
)

_GRANTED = tuple(
    key if key.name == "measure" else Key(key.name, key.form, key.says, key.sample, absent="as a bucket of a tariff",
        choices=key.choices, bounds=key.bounds, section=key.section)
    for key in BUCKET.keys
    if key.name not in {"kind", "prorate"}
)  # fmt: skip
_GRANT_ALSO = (
    one_of("source", tuple(BucketKind), BucketKind.TOP_UP.value, "Where it comes from.", '"promotion"'),
    _UNTIL,
    Key("member", Form.TEXT, "Who alone may use it, unless it is shared.", '"alice"', absent="the account itself"),
    Key("bucket", Form.NAME, "A bucket of the tariff, whose terms it takes.", '"included"', absent=_NONE),
    Key("quantity", Form.NUMBER, "Instead of `amount`, with its unit.", '"5"', absent=_NONE),
    _UNIT,
)
GRANT_LINE = (_ID, _AT, *_GRANTED, *_GRANT_ALSO)

RESERVE_LINE = (
    _ID, _AT, _SESSION, _MEMBER, _KEY, _UNTIL, *_QUANTITIES,
    Key("amount", Form.NUMBER, "Of money, instead of a quantity.", '"10.00"', absent=_NONE),
)  # fmt: skip

LINES: dict[str, tuple[Key, ...]] = {
    "usage": USAGE_LINE,
    "packet": PACKET_LINE,
    "grant": GRANT_LINE,
    "reserve": RESERVE_LINE,
    "settle": (
        *(_SESSION if key.name == "session" else key for key in USAGE_LINE),
        Key("final", Form.FLAG, "Whether what is left is given back.", "false", default=True),
    ),
    "release": (_ID, _AT, _SESSION),
    "payment": (_ID, _AT, _MONEY),
    "subscribe": (_ID, _AT, Key("tariff", Form.TEXT, _TARIFF.says, _TARIFF.sample, absent="that of the command")),
    "change": (_ID, _AT, _TARIFF),
    "cancel": (_ID, _AT),
    "rerate": (
        _ID,
        _AT,
        Key("tariff", Form.TEXT, "The tariff file that it is priced by instead.", _TARIFF.sample, absent=_NONE),
        Key("of", Form.TEXT, "The tariff file that it takes the place of.", _TARIFF.sample, absent="the command's"),
    ),
    "reset": (_ID, _AT, Key("bucket", Form.NAME, "The only one.", '"included"', absent="all")),
    "close": (_ID, Key("at", Form.INSTANT, "Cycles that ended by then.", _AT.sample, absent="all that are open")),
}
"""The keys of each kind of line, but for `kind`."""

TAX = Section(
    "account.tax",
    (
        Key("name", Form.TEXT, "Of the tax.", '"VAT"', absent=_NONE),
        Key("rate", Form.PERCENT, "Percent.", '"19"'),
        Key("inclusive", Form.FLAG, "Whether prices have it in them.", "true", default=False),
    ),
)

ACCOUNT_BUCKET = Section(
    "account.bucket",
    (
        *_GRANTED,
        *_GRANT_ALSO,
        Key("from", Form.INSTANT, "Since when.", _AT.sample, absent="the beginning"),
        Key("used", Form.QUANTITY, "Of it, before.", '"1 GB"', absent=_NONE),
    ),
)

ACCOUNT = Section(
    "account",
    (
        Key("name", Form.TEXT, "Of the account.", '"alice"', default="account"),
        Key("zone", Form.TEXT, "Of the tz database.", '"Europe/Berlin"', default="UTC"),
        Key("anchor", Form.COUNT, "The day that cycles begin on.", "15", default=1, bounds=(1, ANCHOR_DAY_MAX)),
        Key("currency", Form.CURRENCY, "That of the tariff.", '"EUR"', absent="the tariff's"),
        Key("start", Form.INSTANT, "An instant of the first cycle.", _AT.sample, absent="the earliest of the file"),
        Key("subscribed", Form.INSTANT, "When the subscription began.", _AT.sample, absent="with the first cycle"),
        one_of("charging_mode", ("postpaid", "prepaid"), "postpaid", "Whether credit is bounded.", '"prepaid"'),
        Key("credit_limit", Form.NUMBER, "What may be owed.", '"50.00"', absent="prepaid 0, postpaid no limit"),
        Key("money", Form.NUMBER, "The balance at the beginning.", '"10.00"', default="0"),
        Key("bucket", Form.TABLES, "Granted at the beginning.", "[[bucket]]", absent=_NONE, bounds=(0, BUCKETS_MAX),
            section=ACCOUNT_BUCKET),
        Key("tax", Form.TABLE, "Of use once there are invoices.", "[tax]", absent=_NONE, section=TAX),
        Key("totals", Form.QUANTITIES, "Used before in the first cycle, by component.", '{ data = "40 GB" }',
            absent=_NONE),
        Key("billed", Form.AMOUNTS, "Billed before of the first cycle, by component.", '{ data = "1.50" }',
            absent="the price of `totals`"),
    ),
)  # fmt: skip
