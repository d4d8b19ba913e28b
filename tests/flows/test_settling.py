"""Stories of settling on real PostgreSQL: what records, in what order, make which sessions, usage and anomalies."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from make import Said, Site, make_desk, make_subscriber, record_of, utc

from sms_aaa.db.engine import connect
from sms_aaa.db.reconcile import list_violations
from sms_aaa.flows.provisioning.realms import add_realm
from sms_aaa.flows.settling import close_stale_sessions, settle_accounting
from sms_aaa.node.live_change import Release, session_key
from sms_aaa.radius import dictionary
from sms_aaa.radius.packet import attribute, integer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

T0 = utc("2026-11-10 12:00:00")
pytestmark = pytest.mark.months(T0)
GIB4 = 1 << 32


class World(Site):
    """One NAS, one subscriber, an open connection, and places in a journal."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, T0)

    def settle(self, *said: Said, received_after: int = 0):
        settled = super().settle(*said, received_after=received_after)
        for law, violations in list_violations(self.connection):
            assert not violations, (law, violations)
        return settled

    def session(self, life: int = 1) -> dict[str, object]:
        columns = "state, octets_in, octets_out, seconds, deltas, run, stopped_at, estimated, service_id, excluded"
        row = self.connection.execute(f"select {columns} from session where life = %s", (life,)).fetchone()
        assert row is not None
        return dict(zip(columns.split(", "), row, strict=True))

    def count(self, table: str) -> int:
        return self.connection.execute(f"select count(*) from {table}").fetchone()[0]

    def anomalies(self) -> list[str]:
        return [row[0] for row in self.connection.execute("select kind from anomaly order by id").fetchall()]


@pytest.fixture
def world(database_dsn: str) -> Iterator[World]:
    with connect(database_dsn, name="test") as connection:
        yield World(connection)
        connection.rollback()


def at(seconds: int, status: str = "interim", octets: tuple[int, int] | None = None, **more: object) -> Said:
    """A record `seconds` after T0 of a session that began at T0; octets (in, out)."""
    counters = {} if octets is None else {"octets_in": octets[0], "octets_out": octets[1]}
    seconds_of = {} if status == "start" else {"seconds": seconds}
    return Said(status=status, at=T0 + timedelta(seconds=seconds), **seconds_of, **counters, **more)


def test_start_interim_stop_count_upload_as_in_and_download_as_out(world: World) -> None:
    world.settle(at(0, "start"), at(300, octets=(1000, 5000)), at(600, "stop", (3000, 9000)))
    session = world.session()
    assert (session["octets_in"], session["octets_out"], session["seconds"]) == (3000, 9000, 600)
    assert (session["state"], session["deltas"], session["service_id"]) == (2, 2, world.service_id)
    rows = world.connection.execute("select octets_in, octets_out, seconds from usage_delta order by seq").fetchall()
    assert rows == [(1000, 5000, 300), (2000, 4000, 300)]
    assert world.count("queued_delta") == 2


def test_any_order_of_the_records_gives_the_same_totals(world: World) -> None:
    records = [at(0, "start"), at(300, octets=(10, 20)), at(600, octets=(30, 50)), at(900, "stop", (70, 90))]
    for number, order in enumerate(itertools.permutations(records)):
        named = [Said(**{**_fields(one), "session": f"s-{number}"}) for one in order]
        for one in named:
            world.settle(one)
    rows = world.connection.execute("select distinct octets_in, octets_out, state, life from session").fetchall()
    assert rows == [(70, 90, 2, 1)]
    assert world.anomalies() == []


def test_the_same_record_again_changes_nothing(world: World) -> None:
    records = (at(0, "start"), at(300, octets=(10, 20)), at(600, "stop", (30, 50)))
    world.settle(*records)
    before = world.session()
    # Again, with another Identifier and a grown Acct-Delay-Time, as RFC 2866 section 4.1 has it; then in one batch.
    again = [Said(**{**_fields(one), "identifier": 9, "delay": 7}) for one in records]
    world.settle(*again, received_after=7)
    world.settle(*again, *records, received_after=7)
    assert world.session() == before
    assert world.count("usage_delta") == 2
    assert world.anomalies() == []


def test_a_lost_start_and_a_lost_stop_lose_no_octet(world: World) -> None:
    world.settle(at(300, octets=(10, 20)))
    session = world.session()
    assert (session["octets_in"], session["octets_out"], session["state"]) == (10, 20, 1)


def test_a_stop_alone_is_a_whole_session(world: World) -> None:
    world.settle(at(600, "stop", (30, 50)))
    session = world.session()
    assert (session["octets_in"], session["octets_out"], session["seconds"], session["state"]) == (30, 50, 600, 2)


def test_gigawords_make_64_bits(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop", (3 * GIB4 + 5, 7 * GIB4 + 6)))
    session = world.session()
    assert (session["octets_in"], session["octets_out"]) == (3 * GIB4 + 5, 7 * GIB4 + 6)


def test_an_interim_that_its_stop_overtook_adds_nothing(world: World) -> None:
    world.settle(at(0, "start"), at(900, "stop", (70, 90)))
    world.settle(at(600, octets=(30, 50)))
    session = world.session()
    assert (session["octets_in"], session["state"], session["deltas"]) == (70, 2, 1)
    assert world.count("session") == 1


def test_around_a_reset_the_order_and_the_batches_change_no_total(world: World) -> None:
    columns = "octets_in, octets_out, state, deltas"
    for number, order in enumerate(itertools.permutations(range(4))):
        name, size = f"s-{number}", (1, 2, 4)[number % 3]
        said = [
            at(300, octets=(100, 1000), session=name),
            at(600, octets=(200, 2000), session=name),
            at(900, octets=(50, 500), session=name),
            at(1200, "stop", (80, 800), session=name),
        ]
        for start in range(0, 4, size):
            world.settle(*(said[which] for which in order[start : start + size]))
        query = f"select {columns} from session where acct_session_id = '{name}'"
        stored = world.connection.execute(query).fetchall()
        assert [row[:3] for row in stored] == [(280, 2800, 2)], order
        world.settle(*said)
        assert world.connection.execute(query).fetchall() == stored, order
    assert "stale-reading" not in world.anomalies()


def test_an_older_reading_with_higher_counters_is_of_a_run_that_was_not_heard_of(world: World) -> None:
    world.settle(at(0, "start"), at(600, octets=(30, 50)))
    world.settle(at(300, octets=(500, 50)))
    world.settle(at(300, octets=(500, 50), identifier=2, delay=5))
    session = world.session()
    assert (session["octets_in"], session["octets_out"], session["run"]) == (530, 100, 2)
    assert world.anomalies() == ["late-reading"]
    late = world.connection.execute("select octets_in, from_at, to_at from usage_delta where late").fetchall()
    assert late == [(500, T0, T0 + timedelta(seconds=300))]


def test_counters_that_fall_are_a_reset_and_count_on(world: World) -> None:
    world.settle(at(0, "start"), at(300, octets=(1000, 2000)), at(600, octets=(10, 20)), at(900, "stop", (15, 30)))
    session = world.session()
    assert (session["octets_in"], session["octets_out"], session["run"]) == (1015, 2030, 2)
    assert world.anomalies() == ["counter-reset"]


def test_a_nas_that_uses_an_id_again_opens_another_life(world: World) -> None:
    world.settle(at(0, "start"), at(600, "stop", (30, 50)))
    later = T0 + timedelta(seconds=700)
    world.settle(Said(status="start", at=later))
    world.settle(Said(status="stop", at=later + timedelta(seconds=100), seconds=100, octets_in=5, octets_out=6))
    assert (world.session(1)["octets_in"], world.session(2)["octets_in"]) == (30, 5)
    assert world.anomalies() == []


def test_accounting_on_closes_what_started_before_it_and_a_late_interim_still_counts(world: World) -> None:
    token = b"token-01"
    world.settle(at(0, "start", service_id=world.service_id, token=token), at(300, octets=(10, 20)))
    settled = world.settle(Said(status="on", at=T0 + timedelta(seconds=500), session=""))
    session = world.session()
    assert (session["state"], session["estimated"]) == (3, True)
    assert session["stopped_at"] == T0 + timedelta(seconds=300)
    assert settled.releases == [Release(world.service_id, token, session_key("s-1"))]
    world.settle(at(400, "stop", (15, 25)))
    assert (world.session()["octets_in"], world.session()["state"], world.session()["estimated"]) == (15, 2, False)


def test_accounting_on_leaves_sessions_that_started_after_it(world: World) -> None:
    world.settle(Said(status="start", at=T0 + timedelta(seconds=10), session="s-new"))
    world.settle(Said(status="on", at=T0, session=""))
    assert world.session()["state"] == 1


def test_a_silent_session_closes_softly_and_a_late_record_opens_the_same_one(world: World) -> None:
    world.settle(at(0, "start", service_id=world.service_id), at(300, octets=(10, 20)))
    soon, late = T0 + timedelta(seconds=1100), T0 + timedelta(seconds=1300)
    assert close_stale_sessions(world.connection, now=soon, multiple=3, limit=10).sessions == 0
    assert close_stale_sessions(world.connection, now=late, multiple=3, limit=10).releases == [
        Release(world.service_id, b"token-01", session_key("s-1"))
    ]
    assert world.session()["state"] == 3
    world.settle(at(1500, octets=(30, 50)))
    assert (world.session()["state"], world.session()["octets_in"], world.count("session")) == (1, 30, 1)


@pytest.mark.parametrize(
    ("is_stripped", "username", "is_found"),
    [
        (True, b"alice@isp-a", True), (True, b"ISP-A\\alice", True), (True, b"alice@ISP-A", True),
        (True, b"Alice@isp-a", False), (True, b"alice@isp-b", False), (False, b"alice@isp-a", False),
    ],
)  # fmt: skip
def test_without_our_class_a_name_is_looked_up_as_its_realm_says(
    world: World, is_stripped: bool, username: bytes, is_found: bool
) -> None:
    add_realm(make_desk(world.connection), "isp-a", is_stripped=is_stripped, plan=None, nases=())
    world.settle(at(0, "start", username=username))
    session = world.session()
    assert (session["service_id"], session["excluded"]) == (
        (world.service_id, None) if is_found else (None, "unknown-service")
    )


def test_our_class_says_whose_it_is_before_the_user_name_does(world: World) -> None:
    desk = make_desk(world.connection)
    other = make_subscriber(desk, name="bob")
    world.settle(at(0, "start", service_id=other, username=b"alice"))
    assert world.session()["service_id"] == other


def test_usage_of_nobody_is_kept_and_excluded_by_name(world: World) -> None:
    world.settle(at(0, "start", username=b"stranger"), at(300, octets=(10, 20), username=b"stranger"))
    session = world.session()
    assert (session["service_id"], session["excluded"], session["octets_in"]) == (None, "unknown-service", 10)
    assert world.anomalies() == ["unknown-service"]
    assert world.count("queued_delta") == 0


def test_a_device_is_found_by_its_address_in_any_form(world: World) -> None:
    device = make_subscriber(make_desk(world.connection), name="camera", password=None, mac="02:AB:CD:00:00:01")
    world.settle(at(0, "start", username=b"02-ab-cd-00-00-01"))
    assert world.session()["service_id"] == device


def test_a_nas_clock_in_1970_is_overruled_and_named(world: World) -> None:
    said = Said(status="interim", at=utc("1970-01-01 00:10:00"), seconds=300, octets_in=10, octets_out=20)
    place, record = record_of(said, nas_id=world.nas_id, offset=64, received_at=T0)
    settle_accounting(world.connection, [(place, record)], single_nas={world.nas_id: True})
    row = world.connection.execute("select started_at, updated_at from session").fetchone()
    assert row == (T0 - timedelta(seconds=300), T0)
    assert world.anomalies() == ["nas-clock"]


def test_a_nas_clock_that_is_set_back_in_mid_session_is_named_once(world: World) -> None:
    world.settle(at(0, "start"), at(300, octets=(10, 20)))
    for seconds in (600, 900, 1200):
        said = Said(
            status="interim",
            at=T0 + timedelta(seconds=seconds, hours=-2),
            seconds=seconds,
            octets_in=seconds,
            octets_out=seconds,
        )
        place, record = record_of(
            said, nas_id=world.nas_id, offset=next(world.offsets), received_at=T0 + timedelta(seconds=seconds)
        )
        settle_accounting(world.connection, [(place, record)], single_nas={world.nas_id: True})
    assert (world.count("session"), world.session()["octets_in"]) == (1, 1200)
    assert world.anomalies() == ["nas-clock"]


def test_a_record_without_a_session_id_is_quarantined_and_the_others_go_on(world: World) -> None:
    settled = world.settle(at(0, "start", session=""), at(0, "start"))
    assert settled.quarantined == 1
    reasons = world.connection.execute("select reason from quarantine").fetchall()
    assert reasons == [("no-acct-session-id",)]
    assert world.count("session") == 1


def test_a_record_of_a_nas_that_the_database_does_not_know_is_quarantined(world: World) -> None:
    place, record = record_of(at(0, "start"), nas_id=4711, offset=64)
    settle_accounting(world.connection, [(place, record)], single_nas={world.nas_id: True})
    assert world.connection.execute("select reason from quarantine").fetchall() == [("unknown-nas",)]


def test_octets_that_postgresql_cannot_hold_as_text_are_kept_escaped(world: World) -> None:
    world.settle(at(0, "start", username=b"\x00\xff\x00"))
    assert world.connection.execute("select username from session").fetchone() == ("\\x00\\xff\\x00",)


def test_a_stop_of_one_of_two_sessions_under_a_class_leaves_its_place_taken(world: World) -> None:
    service = world.service_id
    world.settle(at(0, "start", session="a", service_id=service), at(0, "start", session="b", service_id=service))
    assert world.settle(at(60, "stop", session="b", service_id=service)).releases == []
    assert world.settle(at(90, "stop", session="a", service_id=service)).releases == [
        Release(service, b"token-01", session_key("a"))
    ]
    assert world.settle(at(90, "stop", session="a", service_id=service)).releases == [], "once"


def test_after_a_re_authentication_the_session_stands_under_the_new_login(world: World) -> None:
    service = world.service_id
    world.settle(at(0, "start", service_id=service, token=b"first..."))
    world.settle(at(300, octets=(1, 2), service_id=service, token=b"second.."))
    assert world.settle(at(600, "stop", (1, 2), service_id=service, token=b"second..")).releases == [
        Release(service, b"second..", session_key("s-1"))
    ]


def test_a_session_that_nobody_knew_is_known_from_the_record_on_that_names_it(world: World) -> None:
    world.settle(at(0, "start", username=b"stranger"), at(300, octets=(10, 20), username=b"stranger"))
    world.settle(at(600, "stop", (15, 30), username=b"stranger", service_id=world.service_id))
    session = world.session()
    assert (session["service_id"], session["excluded"]) == (world.service_id, None)
    assert world.connection.execute(
        "select account_id is null, octets_in from usage_delta order by seq"
    ).fetchall() == [
        (True, 10),
        (False, 5),
    ]
    assert world.count("queued_delta") == 1


def test_counters_that_no_port_can_reach_are_quarantined(world: World) -> None:
    settled = world.settle(at(300, octets=(0x7FFFFFFF << 32, 0)))
    assert settled.quarantined == 1
    assert world.connection.execute("select reason from quarantine").fetchall() == [("implausible-counters",)]


def test_values_of_32_bits_are_taken_whole(world: World) -> None:
    cause = attribute(dictionary.ACCT_TERMINATE_CAUSE, integer(0xFFFFFFFF))
    kind = attribute(dictionary.NAS_PORT_TYPE, integer(0xFFFFFFFF))
    world.settle(at(0, "start", extra=cause + kind))
    assert world.connection.execute("select nas_port_type from session").fetchone() == (0xFFFFFFFF,)


def test_usage_deltas_are_never_changed(world: World) -> None:
    import psycopg

    world.settle(at(300, octets=(10, 20)))
    with pytest.raises(psycopg.errors.RestrictViolation):
        world.connection.execute("update usage_delta set octets_in = 0")


def _fields(said: Said) -> dict[str, object]:
    return {name: getattr(said, name) for name in Said.__slots__}


def test_usage_is_rolled_up_by_hours_and_days_of_the_accounts_zone(world: World) -> None:
    # Berlin, 2026-11-10 23:40 to 2026-11-11 01:10: midnight is at 23:00 UTC.
    begin = utc("2026-11-10 22:40:00")
    world.settle(
        Said(status="start", at=begin),
        Said(status="stop", at=begin + timedelta(minutes=90), seconds=5400, octets_in=900, octets_out=9000),
    )
    hours = world.connection.execute(
        "select hour_at, octets_in, octets_out, seconds from usage_hour order by hour_at"
    ).fetchall()
    assert hours == [
        (utc("2026-11-10 22:00:00"), 200, 2000, 1200),
        (utc("2026-11-10 23:00:00"), 600, 6000, 3600),
        (utc("2026-11-11 00:00:00"), 100, 1000, 600),
    ]
    days = world.connection.execute("select day::text, octets_in, seconds from usage_day order by day").fetchall()
    assert days == [("2026-11-10", 200, 1200), ("2026-11-11", 700, 4200)]


def test_seventy_days_over_three_months_and_a_reset_are_right_by_day_month_and_in_total(world: World) -> None:
    """Interims every 8 hours from the end of August; the NAS counts anew after 40 days."""
    begin = utc("2026-08-25 10:07:00")
    end = begin + timedelta(days=70)
    records = [Said(status="start", at=begin)]
    for number in range(1, 70 * 3 + 1):
        at, counted = begin + timedelta(hours=8 * number), number if number <= 120 else number - 120
        records.append(
            Said(
                status="interim" if at < end else "stop",
                at=at,
                seconds=8 * 3600 * number,
                octets_in=counted * 28_800,
                octets_out=counted * 288_000,
            )
        )
    world.settle(*records)
    assert world.anomalies() == ["counter-reset"]
    # 1 octet a second up: a whole day has as many octets as seconds, but where the clock is set back in October.
    days = dict(world.connection.execute("select day::text, octets_in from usage_day").fetchall())
    assert (days["2026-09-15"], days["2026-10-25"]) == (86_400, 90_000)
    assert days["2026-08-25"] == 86_400 - (12 * 3600 + 7 * 60)  # from 12:07 in Berlin
    months = world.connection.execute(
        "select to_char(day, 'YYYY-MM'), sum(octets_in), sum(octets_out) from usage_day group by 1 order by 1"
    ).fetchall()
    assert months[1:3] == [
        ("2026-09", 30 * 86_400, 300 * 86_400),
        ("2026-10", 31 * 86_400 + 3600, 310 * 86_400 + 36_000),
    ]
    assert sum(days.values()) == 70 * 86_400 == world.session()["octets_in"]
