"""What plan files may say: the keys of their tables, as data (rules/plan_table.py).

docs/tariffs.md is made of these, and so are the JSON Schemas; the readers ask for nothing else.
"""

from __future__ import annotations

from sms_aaa.rules.entitlement import SessionsPolicy
from sms_aaa.rules.plan_table import Form, Key, Section, one_of
from sms_aaa.rules.slots import ANY_BAND, ANYTIME
from sms_aaa.rules.tariff import DEFAULT_KEY
from sms_aaa.rules.tariff_keys import TARIFF

EXAMPLES_MAX = 100
EXAMPLE_CYCLES_MAX = 120
SESSIONS_MAX = 10_000
TIMEOUT_SECONDS_MAX = 365 * 86_400  # the attributes have 32 bits; a year is enough
# RFC 2869 section 5.16: Acct-Interim-Interval MUST NOT be smaller than 60.
INTERIM_SECONDS_MIN = 60
INTERIM_SECONDS_MAX = 86_400


POLICY = Section(
    "policy",
    (
        Key("rate_up", Form.RATE, "From the subscriber, decimal.", '"20 Mbit/s"', absent="no limit"),
        Key("rate_down", Form.RATE, "To the subscriber.", '"100 Mbit/s"', absent="no limit"),
        Key(
            "session_timeout",
            Form.DURATION,
            "When the network ends a session.",
            '"24h"',
            absent="no limit",
            bounds=(1, TIMEOUT_SECONDS_MAX),
        ),
        Key(
            "idle_timeout",
            Form.DURATION,
            "When it ends one without traffic.",
            '"10m"',
            absent="no limit",
            bounds=(1, TIMEOUT_SECONDS_MAX),
        ),
        Key(
            "interim",
            Form.DURATION,
            "How often the NAS reports usage.",
            '"5m"',
            absent="5 minutes",
            bounds=(INTERIM_SECONDS_MIN, INTERIM_SECONDS_MAX),
        ),
        Key("sessions", Form.COUNT, "At the same time; 0: any number.", "1", default=1, bounds=(0, SESSIONS_MAX)),
        one_of(
            "sessions_policy",
            tuple(SessionsPolicy),
            SessionsPolicy.REPLACE_SAME_DEVICE.value,
            "Who is refused when there are so many.",
            '"reject-new"',
        ),
        Key(
            "sessions_strict",
            Form.FLAG,
            "Whether the limit holds over all nodes at every instant.",
            "true",
            default=False,
        ),
    ),
)

EXAMPLE_USAGE = Section(
    "example.usage",
    (
        Key("upload", Form.QUANTITY, "From the subscriber.", '"5 GB"', absent="none"),
        Key("download", Form.QUANTITY, "To the subscriber.", '"45 GB"', absent="none"),
        Key("seconds", Form.QUANTITY, "Time online.", '"90 min"', absent="none"),
        Key("events", Form.QUANTITY, "Number of events.", "10", absent="none"),
        Key("units", Form.QUANTITY, "Abstract units.", '"2.5"', absent="none"),
        Key("key", Form.NAME, "Its rating key.", '"roaming"', default=DEFAULT_KEY),
        Key("slot", Form.NAME, "The slot that it lies in.", '"night"', default=ANYTIME),
        Key("band", Form.NAME, "The band that it lies in.", '"first-hour"', default=ANY_BAND),
        Key(
            "session", Form.NAME, "Its session: tables of one name are of one session.", '"a"', absent="one of its own"
        ),
    ),
)

EXAMPLE = Section(
    "example",
    (
        Key(
            "usage",
            Form.TABLE_OR_TABLES,
            "What is used in the cycle, in this order.",
            '{ download = "60 GB" }',
            bounds=(0, EXAMPLES_MAX),
            section=EXAMPLE_USAGE,
        ),
        Key(
            "expect",
            Form.AMOUNTS,
            "What components cost, and `total`, the sum of all, which is obligatory.",
            '{ data = "5.00", total = "34.90" }',
        ),
        Key(
            "buckets",
            Form.QUANTITIES,
            "What is used of buckets.",
            '{ night-data = "20 GB" }',
            absent="nothing is expected",
        ),
        Key(
            "cycle",
            Form.COUNT,
            "Which of the subscription's cycles it is; the first is January 2001, which began on a Monday.",
            "2",
            default=1,
            bounds=(1, EXAMPLE_CYCLES_MAX),
        ),
    ),
)

PLAN = Section(
    "plan",
    (
        Key("name", Form.NAME, "Of the plan.", '"home-100"', absent="tariff (a plan that is added needs one)"),
        Key("description", Form.TEXT, "One line.", '"100 Mbit/s at home"', absent="none"),
        Key(
            "policy",
            Form.TABLE,
            "What the network does.",
            "[policy]",
            absent="its defaults (a plan that is added needs one)",
            section=POLICY,
        ),
        Key("tariff", Form.TABLE, "What it costs.", "[tariff]", section=TARIFF),
        Key(
            "example",
            Form.TABLES,
            "Cases that are priced whenever the file is read.",
            "[[example]]",
            absent="none",
            bounds=(0, EXAMPLES_MAX),
            section=EXAMPLE,
        ),
    ),
)
