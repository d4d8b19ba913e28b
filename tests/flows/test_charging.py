"""Rating on real PostgreSQL is the rules evaluated at once: whatever the tariff, the arrival, the batches."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from make import make_desk, make_nas, make_plan, make_subscriber, utc
from psycopg.types.json import Jsonb

from sms_aaa.db.engine import connect
from sms_aaa.db.partitions import create_ahead
from sms_aaa.db.plans import insert_version
from sms_aaa.db.rating_queue import claim_shard
from sms_aaa.db.reconcile import list_violations
from sms_aaa.db.usage import UsageDelta, insert_deltas, insert_queue
from sms_aaa.flows.closing import close_cycles
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.meters import RaterMemory
from sms_aaa.flows.rating import rate_batch
from sms_aaa.flows.rerating import rerate_group
from sms_aaa.flows.shelf import PlanShelf
from sms_aaa.rules.buckets import BucketTerms, Grant, Overage
from sms_aaa.rules.charging import Charging, Fact, Total
from sms_aaa.rules.covering import Bucket
from sms_aaa.rules.cycle import cycle_at
from sms_aaa.rules.entitlement import Policy
from sms_aaa.rules.instants import INSTANT_MIN, instant_of, instant_us
from sms_aaa.rules.measure import Amounts, Measure
from sms_aaa.rules.plan import Plan, plan_to_document
from sms_aaa.rules.pricing import amount_minor, opening_numerator
from sms_aaa.rules.session import Delta, Place
from sms_aaa.rules.slicing import Span, cut_spans
from sms_aaa.rules.slots import Band, Calendar, Slot
from sms_aaa.rules.tariff import Model, Scope, Shape, Switch, Tariff, Tier, UsageComponent, complete_usage, places

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sms_aaa.db.engine import Connection

ZONE = "Europe/Berlin"
EDGE = utc("2026-10-31 23:00:00")  # midnight of 1 November in Berlin
NOW = utc("2026-11-03 12:00:00")
pytestmark = pytest.mark.months(NOW)
MB = 10**6
NIGHT = Slot("night", (), 22 * 3600, 6 * 3600)
FIRST_HOUR = Band("first-hour", 0, 3600)


@dataclass(frozen=True)
class Used:
    """A delta of the story: which of the services, session and seq; minutes since EDGE."""

    service: int
    session: int
    seq: int
    from_minute: int
    to_minute: int
    upload: int
    download: int


@dataclass(frozen=True)
class Given:
    """A bucket of the story: of which account, minutes since EDGE in which it may be used (None: for ever)."""

    terms: BucketTerms
    account: int
    from_minute: int
    until_minute: int | None


@dataclass(frozen=True)
class Story:
    tariff: Tariff
    is_group: bool
    buckets: tuple[Given, ...]
    usage: tuple[Used, ...]
    arrival: tuple[int, ...]
    batches: tuple[int, ...]


TIERS = st.lists(st.integers(1, 60).map(lambda n: n * MB), max_size=2, unique=True).flatmap(
    lambda bounds: st.tuples(
        *[
            st.builds(
                Tier,
                st.just(bound),
                st.integers(0, 5).map(lambda n: n * 10**11),
                st.sampled_from((0, 0, 10**12)),
                st.none(),
                st.sampled_from((1, 1, 10_000)),
            )
            for bound in [*sorted(bounds), None]
        ]
    )
)


@st.composite
def components(draw: st.DrawFn, name: str, measure: Measure) -> UsageComponent:
    model = draw(st.sampled_from((Model.GRADUATED, Model.GRADUATED, Model.VOLUME, Model.PACKAGE)))
    tiers = draw(TIERS)
    if model is Model.PACKAGE:
        tiers = (replace(tiers[-1], flat_picounits=0),)
    return UsageComponent(
        name,
        measure,
        MB,
        tiers,
        model,
        draw(st.sampled_from((Scope.CYCLE, Scope.CYCLE, Scope.SESSION))),
        initial_increment=draw(st.sampled_from((1, 5_000))),
        connect_fee_picounits=draw(st.sampled_from((0, 0, 10**11))),
        shape=Shape(discount_billionths=draw(st.sampled_from((0, 0, 10**8)))),
    )


def mixed(night: UsageComponent, day: UsageComponent) -> list[UsageComponent]:
    """At night one component counts what two count by day: a delta that is cut there is counted by both measures."""
    return [
        replace(night, name="all-night", measure=Measure.TOTAL, slots=("night",)),
        replace(day, name="down-day", measure=Measure.DOWNLOAD, slots=("anytime",)),
        replace(day, name="up-day", measure=Measure.UPLOAD, slots=("anytime",)),
    ]


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    slots = draw(st.sampled_from(((), (NIGHT,))))
    bands = draw(st.sampled_from(((), (), (FIRST_HOUR,))))
    usage = [draw(components("down", Measure.DOWNLOAD)), draw(components("up", Measure.UPLOAD))]
    if slots:
        usage = [replace(usage[0], slots=("night",)), replace(usage[0], name="down-day", slots=("anytime",)), usage[1]]
        if draw(st.booleans()):
            usage = mixed(usage[0], usage[2])
    if bands:
        usage[-1] = replace(usage[-1], bands=(FIRST_HOUR.name,))
    bare = Tariff("EUR", (), complete_usage(()), slots=slots, bands=bands)
    switch = draw(st.sampled_from(tuple(Switch)))
    return Tariff("EUR", (), complete_usage(tuple(usage), places(bare)), slots=slots, bands=bands, switch=switch)


@st.composite
def buckets(draw: st.DrawFn, number: int) -> Given:
    blocks = draw(st.sampled_from((False, False, True)))
    terms = BucketTerms(
        f"bucket-{number}",
        draw(st.sampled_from((Measure.TOTAL, Measure.DOWNLOAD, Measure.UPLOAD))),
        draw(st.integers(1, 80)) * MB // 2,
        priority=draw(st.integers(1, 3)),
        slots=(),
        increment=draw(st.sampled_from((1, 1, 1_000))),
        factor_parts=draw(st.sampled_from((10**6, 10**6, 2 * 10**6))),
        connect_fee=draw(st.sampled_from((0, 0, 5_000))),
        blocks=blocks,
        overage=draw(st.sampled_from(tuple(Overage))) if blocks else Overage.CHARGE,
        is_shared=draw(st.booleans()),
        member_maximum=draw(st.sampled_from((None, None, 7 * MB))),
    )
    from_minute = draw(st.integers(-900, 300))
    length = draw(st.sampled_from((None, 200, 600)))
    return Given(terms, draw(st.integers(0, 1)), from_minute, None if length is None else from_minute + length)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    usage: list[Used] = []
    for session in range(draw(st.integers(1, 3))):
        service, at = draw(st.integers(0, 1)), draw(st.integers(-300, 100))
        for seq in range(1, draw(st.integers(1, 5)) + 1):
            length = draw(st.sampled_from((0, 7, 60, 200)))
            up, down = draw(st.integers(0, 9 * MB)), draw(st.integers(0, 30 * MB))
            usage.append(Used(service, session + 1, seq, at, at + length, up, down))
            at += length + draw(st.sampled_from((0, 0, 1)))
    arrival = draw(st.permutations(range(len(usage))))
    batches = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    given_ = tuple(draw(buckets(number)) for number in range(draw(st.integers(0, 3))))
    return Story(draw(tariffs()), draw(st.booleans()), given_, tuple(usage), tuple(arrival), tuple(batches))


def at_us(minute: int) -> int:
    return instant_us(EDGE + timedelta(minutes=minute))


class World:
    """Two accounts with a service each on the tariff; the second may be a member of the first's group."""

    def __init__(self, connection: Connection, story: Story, bulk_min: int | None = None) -> None:
        self.connection, self.story, self.bulk_min, self.not_set_wise = connection, story, bulk_min, 0
        desk = make_desk(connection)
        self.nas_id = make_nas(desk)
        make_plan(desk)
        self.services = [make_subscriber(desk, name=name) for name in ("ann", "ben")]
        self.accounts = [row[0] for row in connection.execute("select account_id from assignment order by service_id")]
        plan = Plan("story", "", Policy(), story.tariff)
        names = [(part.name, "usage", opening_numerator(part)) for part in story.tariff.usage]
        version, _ = insert_version(connection, "story", document=plan_to_document(plan), digest="", components=names)
        begun = "during = tstzrange('2026-09-01', null)"
        connection.execute(f"update subscription set plan_version_id = %s, {begun}", (version,))
        connection.execute(f"update assignment set {begun}")
        rows = connection.execute("select id from subscription order by service_id").fetchall()
        self.subscriptions = [row[0] for row in rows]
        if story.is_group:
            connection.execute(
                "update account set charging_head_id = %s where id = %s", (self.accounts[0], self.accounts[1])
            )
        create_ahead(connection, NOW)
        self.bucket_ids = [self._grant(one) for one in story.buckets]
        self._begin_sessions()
        self.shelf = PlanShelf()
        self.memory = RaterMemory(self.shelf)

    @property
    def heads(self) -> list[int]:
        return [self.accounts[0], self.accounts[0] if self.story.is_group else self.accounts[1]]

    def _grant(self, one: Given) -> int:
        until = None if one.until_minute is None else instant_of(at_us(one.until_minute))
        row = self.connection.execute(
            """insert into bucket (account_id, name, kind, measure, terms, priority, from_at, until_at, granted,
                                   created_at)
               values (%s, %s, 'top-up', %s, %s, %s, %s, %s, %s, '2026-09-01') returning id""",
            (
                self.accounts[one.account], one.terms.name, one.terms.measure, Jsonb(msgspec.to_builtins(one.terms)),
                one.terms.priority, instant_of(at_us(one.from_minute)), until, one.terms.amount,
            ),
        ).fetchone()  # fmt: skip
        self.connection.execute(
            "insert into bucket_entry (bucket_id, kind, quantity) values (%s, 'grant', %s)", (row[0], one.terms.amount)
        )
        return int(row[0])

    def _begin_sessions(self) -> None:
        begins: dict[int, Used] = {}
        for used in self.story.usage:
            begins.setdefault(used.session, used)
        for session, used in begins.items():
            at = instant_of(at_us(used.from_minute))
            self.connection.execute(
                """insert into session (id, nas_id, nas_key, acct_session_id, life, state, service_id, account_id,
                     username, started_at, updated_at, seconds, octets_in, octets_out, reading_at, reading_seconds,
                     reading_in, reading_out, reading_gigawords, reading_node, reading_sequence, reading_offset, run,
                     deltas, received_at)
                   values (%s, %s, '', %s, 1, 1, %s, %s, 'x', %s, %s, 0, 0, 0, %s, 0, 0, 0, false, '', 0, 0, 1, 0, %s)
                """,
                (
                    session, self.nas_id, f"s{session}", self.services[used.service], self.accounts[used.service],
                    at, at, at, at,
                ),
            )  # fmt: skip

    def usage_of(self, used: Used) -> UsageDelta:
        begin, end = instant_of(at_us(used.from_minute)), instant_of(at_us(used.to_minute))
        delta = Delta(
            seq=used.seq, from_at=begin, to_at=end, octets_in=used.upload, octets_out=used.download,
            seconds=(used.to_minute - used.from_minute) * 60, run=1, wrapped=False, before_in=0, before_out=0,
            after_in=used.upload, after_out=used.download, before_place=None, after_place=Place("node1", 1, 64),
        )  # fmt: skip
        return UsageDelta(used.session, self.accounts[used.service], self.services[used.service], delta)

    def run(self, order: tuple[int, ...]) -> None:
        """Settles and rates in this order, in the story's batches."""
        usages = [self.usage_of(self.story.usage[number]) for number in order]
        sizes, at, step = self.story.batches, 0, 0
        while at < len(usages):
            size = sizes[step % len(sizes)]
            insert_deltas(self.connection, usages[at : at + size])
            insert_queue(self.connection, usages[at : at + size])
            at, step = at + size, step + 1
            self.rate_all()

    def rate_all(self) -> None:
        while (claimed := claim_shard(self.connection, after=-1)) is not None:
            done = rate_batch(self.connection, self.memory, claimed, now=NOW, limit=100, bulk_min=self.bulk_min)
            self.not_set_wise += done.not_set_wise
            self.memory.keep(claimed.shard, done.kept, done.run_id, NOW)

    def clean(self) -> None:
        """As the rater does with groups that are dirty."""
        rows = self.connection.execute("select head_account_id, from_at from dirty_group").fetchall()
        for head_id, from_at in rows:
            rerate_group(self.connection, self.shelf, head_id, since_us=instant_us(from_at), now=NOW)

    def open_cycles(self) -> None:
        self.connection.execute("update cycle_due set due_at = '2026-09-01'")
        while open_cycles(self.connection, self.shelf, now=NOW, limit=10):
            pass

    def close_october(self) -> None:
        self.open_cycles()
        while close_cycles(self.connection, self.shelf, now=NOW, grace=timedelta(days=1), limit=10):
            pass
        states = self.connection.execute("select state from cycle where ends_at = %s", (EDGE,)).fetchall()
        assert states == [(2,), (2,)]

    def again(self) -> int:
        """Rates everything again from the beginning; how many rows that wrote."""
        done = [
            rerate_group(self.connection, self.shelf, head, since_us=INSTANT_MIN, now=NOW).rows
            for head in dict.fromkeys(self.heads)
        ]
        return sum(done)

    def stored(self) -> dict[str, object]:
        """What the tables say, in the words of `expected`."""
        query = self.connection.execute
        totals = {
            (row[0], row[1], row[2]): (row[3], row[4], int(row[5]), row[6])
            for row in query(
                """select t.subscription_id, c.starts_at, k.name, t.quantity, t.covered, t.numerator::text,
                          t.posted_minor
                   from usage_total t join cycle c on c.id = t.cycle_id join component k on k.id = t.component_id"""
            )
        }
        rated = {
            (row[0], row[1], row[2], row[3]): (*row[4:9], int(row[9]), tuple(row[10] or ()))
            for row in query(
                """select r.session_id, r.seq, k.name, r.slice, c.starts_at, r.quantity, r.covered, r.uncovered,
                          r.total_before, r.numerator::text, r.uses
                   from rated_usage r join component k on k.id = r.component_id join cycle c on c.id = r.cycle_id
                   where r.quantity > 0 and r.generation = (
                     select max(o.generation) from rated_usage o
                     where o.session_id = r.session_id and o.seq = r.seq and o.component_id = r.component_id)"""
            )
        }
        used = {row[0]: (int(row[1]), int(row[2])) for row in query("select id, used, overrun from bucket")}
        return {"totals": totals, "rated": rated, "buckets": used}

    def stored_of_use(self) -> dict[str, object]:
        """Without the totals of cycles that were opened and in which nothing was used."""
        stored, expected = self.stored(), self.expected()
        assert isinstance(stored["totals"], dict)
        assert isinstance(expected["totals"], dict)
        used = {key: total for key, total in stored["totals"].items() if key in expected["totals"]}
        return {**stored, "totals": used}

    def expected(self) -> dict[str, object]:
        """The rules at once, in canonical order."""
        charging = {head: Charging(self._buckets_of(head)) for head in self.heads}
        pieces = []
        for used in self.story.usage:
            fact = self._fact(used)
            edges = [
                edge
                for bucket in charging[self.heads[used.service]].buckets
                for edge in (bucket.grant.from_us, bucket.grant.until_us)
                if edge is not None and bucket.is_of(fact.member)
            ]
            calendar = Calendar(ZONE, self.story.tariff.slots, ())
            spans = [
                Span(begin, end, calendar, self.story.tariff.bands, "default")
                for begin, end in self._stretches(fact.from_us, fact.to_us)
            ]
            pieces += [(piece, used) for piece, _ in cut_spans(fact, spans, edges, self.story.tariff.switch)]
        pieces.sort(key=lambda pair: pair[0].order)
        rated, covered = {}, defaultdict(int)
        totals: dict[tuple[int, object, str], Total] = {}
        for piece, used in pieces:
            group, subscription = charging[self.heads[used.service]], self.subscriptions[used.service]
            start = cycle_at(instant_of(piece.from_us), ZONE, 1).start
            for part in self.story.tariff.usage:
                total = group.totals.setdefault((subscription, start, part.name), Total(0, opening_numerator(part)))
                totals[subscription, start, part.name] = total
            for done in group.charge(piece, self.story.tariff.usage, subscription, start):
                uses = [number for use in done.uses for number in (use.bucket_id, use.quantity, use.taken)]
                if done.blocked_by is not None and (not done.uses or done.uses[-1].bucket_id != done.blocked_by):
                    uses += [done.blocked_by, 0, 0]
                by_buckets = done.quantity - done.priced - done.uncovered
                covered[subscription, start, done.part.name] += by_buckets + done.uncovered
                rated[used.session, used.seq, done.part.name, piece.index] = (
                    start, done.quantity, by_buckets, done.uncovered, done.total_before, done.numerator, tuple(uses),
                )  # fmt: skip
        posted = {
            key: (
                total.quantity,
                covered[key],
                total.numerator,
                amount_minor(self.story.tariff.component(key[2]), "EUR", total.numerator),
            )
            for key, total in totals.items()
        }
        used_up = {
            bucket.grant.bucket_id: (int(bucket.used), bucket.overrun)
            for group in charging.values()
            for bucket in group.buckets
        }
        return {"totals": posted, "rated": rated, "buckets": used_up}

    def assert_books(self) -> None:
        """Entries are what was posted, and what buckets were used by."""
        off = self.connection.execute(
            """select t.component_id from usage_total t
               where posted_minor <> (select coalesce(sum(case when e.debit = 'unbilled-receivable' then e.amount_minor
                                                               else -e.amount_minor end), 0)
                                      from entry e where e.cycle_id = t.cycle_id and e.component_id = t.component_id
                                        and e.subscription_id = t.subscription_id)"""
        ).fetchall()
        assert off == []
        off = self.connection.execute(
            """select id from bucket b
               where used <> (select coalesce(sum(quantity), 0) from bucket_entry e
                              where e.bucket_id = b.id and e.kind in ('use', 'adjust'))
                  or overrun <> (select coalesce(sum(quantity), 0) from bucket_entry e
                                 where e.bucket_id = b.id and e.kind = 'overrun')"""
        ).fetchall()
        assert off == []

    def assert_lawful(self) -> None:
        """What `reconcile` proves, but for sessions and days, which this story leaves out."""
        broken = {law: rows for law, rows in list_violations(self.connection) if rows}
        assert [law for law in broken if not law.startswith(("a session", "usage by", "every session"))] == [], broken

    def _buckets_of(self, head: int) -> list[Bucket]:
        found = []
        for bucket_id, one in zip(self.bucket_ids, self.story.buckets, strict=True):
            account = self.accounts[one.account]
            if self.heads[one.account] != head:
                continue
            until = None if one.until_minute is None else at_us(one.until_minute)
            created = instant_us(utc("2026-09-01 00:00:00"))
            grant = Grant(bucket_id, one.terms, one.terms.amount, at_us(one.from_minute), until, created)
            is_shared = one.terms.is_shared and account == head
            found.append(Bucket(grant, owner=None if is_shared else account))
        return found

    def _fact(self, used: Used) -> Fact:
        begins = min(one.from_minute for one in self.story.usage if one.session == used.session)
        seconds = (used.to_minute - used.from_minute) * 60
        amounts = Amounts(used.upload, used.download, seconds, 1 if used.seq == 1 else 0)
        return Fact(
            self.accounts[used.service], used.session, used.seq, at_us(begins), at_us(used.from_minute),
            at_us(used.to_minute), "default", amounts,
        )  # fmt: skip

    def _stretches(self, from_us: int, to_us: int) -> list[tuple[int, int]]:
        edge = at_us(0)
        return [(from_us, edge), (edge, to_us)] if from_us < edge < to_us else [(from_us, to_us)]


@pytest.fixture
def connection(database_dsn: str) -> Iterator[Connection]:
    with connect(database_dsn, name="test") as opened:
        yield opened
        opened.rollback()


STORIES = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a tenth of a second: too long to shrink
)


OF_OCTOBER = """
select r.session_id, r.seq, r.component_id, r.slice, r.quantity, r.covered, r.numerator, r.generation
from rated_usage r join cycle c on c.id = r.cycle_id where c.state = 2 and r.quantity > 0"""

CLOSED_OFF = """
select t.cycle_id, t.component_id, t.posted_minor, f.amount, f.earned
from usage_total t join cycle c on c.id = t.cycle_id and c.state = 2
cross join lateral (
  select coalesce((select sum(amount_minor) from charge h
                   where h.cycle_id = t.cycle_id and h.subscription_id = t.subscription_id
                     and h.component_id = t.component_id), 0)
         + coalesce((select sum(amount_minor) from adjustment j
                     where j.cycle_id = t.cycle_id and j.subscription_id = t.subscription_id
                       and j.component_id = t.component_id), 0) as amount,
         (select coalesce(sum(case e.debit when 'unbilled-receivable' then amount_minor else -amount_minor end), 0)
          from entry e where e.cycle_id = t.cycle_id and e.subscription_id = t.subscription_id
            and e.component_id = t.component_id) as earned) f
where t.posted_minor <> f.amount or t.posted_minor <> f.earned"""


@STORIES
@given(stories())
def test_what_is_rated_in_one_batch_is_what_the_rules_make_of_it_at_once(connection: Connection, story: Story) -> None:
    connection.rollback()
    world = World(connection, replace(story, batches=(len(story.usage),)))
    world.run(story.arrival)
    # Members of a group come to its head's shard in a batch of their own.
    world.clean()
    assert world.stored() == world.expected()
    world.assert_books()
    world.assert_lawful()
    assert world.again() == 0


@STORIES
@given(stories())
def test_usage_in_any_order_comes_to_the_same_once_its_groups_are_clean(connection: Connection, story: Story) -> None:
    connection.rollback()
    world = World(connection, story)
    world.run(story.arrival)
    world.clean()
    # Where order does not matter nobody is dirty, and the rows tell in which order usage came.
    world.again()
    assert world.stored() == world.expected()
    world.assert_books()
    world.assert_lawful()
    assert world.again() == 0


@STORIES
@given(stories(), st.integers(0, 10))
def test_a_closed_cycle_keeps_its_charges_and_what_comes_later_is_adjusted(
    connection: Connection, story: Story, known: int
) -> None:
    connection.rollback()
    world = World(connection, story)
    world.run(story.arrival[:known])
    world.clean()
    world.close_october()
    frozen = connection.execute("select id, kind, amount_minor from charge order by id").fetchall()
    rated = connection.execute(OF_OCTOBER).fetchall()
    world.run(story.arrival[known:])
    world.clean()
    world.again()
    assert connection.execute("select id, kind, amount_minor from charge order by id").fetchall() == frozen
    # What was rated when the cycle was closed is there as it was; what came later came beside it.
    assert {row[:-1] for row in rated} <= {row[:-1] for row in connection.execute(OF_OCTOBER)}
    assert connection.execute(CLOSED_OFF).fetchall() == []
    world.assert_books()
    world.assert_lawful()
    assert world.again() == 0
