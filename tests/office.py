"""What stories of fees and cycles begin with: subscribers on plans of their own, and time that goes as they want it."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from typing import TYPE_CHECKING

from make import make_desk, make_subscriber, utc

from sms_aaa.db.ledger import list_balances
from sms_aaa.flows.cycles import open_cycles
from sms_aaa.flows.provisioning.plans import add_plan
from sms_aaa.flows.reconciling import PRICE_LAW, reconcile
from sms_aaa.flows.reconciling_fees import FEE_LAW
from sms_aaa.flows.shelf import PlanShelf

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

PLAN = """
name = "{name}"
[policy]
[tariff]
currency = "EUR"
{tariff}
"""


LAWS = {
    "the ledger has what the totals and charges say",
    "what is deferred is what fees beyond their cycle have not earned yet",
    FEE_LAW,
    PRICE_LAW,
}


class Office:
    """Subscribers on plans of their own, and time that goes as the story wants it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.shelf = PlanShelf()
        self.desk = make_desk(connection)

    def plan(self, name: str, tariff: str) -> None:
        text = PLAN.format(name=name, tariff=tariff)
        add_plan(self.desk, tomllib.loads(text, parse_float=Decimal), default_currency="EUR")

    def subscribe(self, name: str, plan: str, start: str, *, zone: str = "UTC", anchor_day: int = 1) -> int:
        """The id of a subscription that begins at an instant."""
        service_id = make_subscriber(self.desk, name=name, plan=plan, zone=zone)
        begin = utc(start)
        self.connection.execute(
            "update account set anchor_day = %s where id = (select max(id) from account)", [anchor_day]
        )
        for table in ("subscription", "assignment"):
            self.connection.execute(
                f"update {table} set during = tstzrange(%s, null) where service_id = %s", (begin, service_id)
            )
        [(subscription_id,)] = self.connection.execute(
            """update cycle_due set due_at = %s where subscription_id = (select max(id) from subscription)
               returning subscription_id""",
            [begin],
        ).fetchall()
        return int(subscription_id)

    def end(self, subscription_id: int, at: str) -> None:
        self.connection.execute(
            "update subscription set during = tstzrange(lower(during), %s) where id = %s", (utc(at), subscription_id)
        )

    def change(self, subscription_id: int, plan: str, at: str) -> int:
        self.end(subscription_id, at)
        [(changed_id,)] = self.connection.execute(
            """insert into subscription (service_id, plan_version_id, during)
               select u.service_id, v.id, tstzrange(%s, null) from subscription u, plan_version v
               join plan p on p.id = v.plan_id where u.id = %s and p.name = %s returning id""",
            (utc(at), subscription_id, plan),
        ).fetchall()
        return int(changed_id)

    def until(self, now: str) -> None:
        """Whatever the rater does up to an instant; done again, it changes nothing; and the books are right."""
        self.until_unchecked(now)
        before = self.connection.execute("select count(*) from entry").fetchone()
        self.connection.execute(
            "update cycle_due set due_at = '2026-01-01' where subscription_id in (select id from subscription)"
        )
        self.until_unchecked(now)
        assert self.connection.execute("select count(*) from entry").fetchone() == before
        self.prove()

    def prove(self) -> None:
        """The laws of money hold; those of sessions are not these stories'."""
        found = reconcile(self.connection, self.shelf)
        assert not found.ledger_differences
        assert {law.text for law in found.laws} >= LAWS
        broken = [law for law in found.laws if law.violations and law.text in LAWS]
        assert not broken, broken

    def until_unchecked(self, now: str) -> None:
        while open_cycles(self.connection, self.shelf, now=utc(now), limit=50) == 50:
            pass

    def charges(self) -> list[str]:
        """Each as "cycle, component, kind, service period, amount"."""
        rows = self.connection.execute(
            """select c.starts_at at time zone a.zone, k.name, h.kind, h.from_at at time zone a.zone,
                      h.until_at at time zone a.zone, h.amount_minor
               from charge h join cycle c on c.id = h.cycle_id join account a on a.id = h.account_id
               join component k on k.id = h.component_id order by h.from_at, h.amount_minor desc, h.id"""
        ).fetchall()
        return [f"{row[0]:%m-%d} {row[1]} {row[2]} {row[3]:%m-%d}..{row[4]:%m-%d} {row[5]}" for row in rows]

    def balances(self) -> dict[str, int]:
        return {row.ledger_account: row.balance_minor for row in list_balances(self.connection) if row.balance_minor}

    def revenue(self) -> list[tuple[str, int]]:
        """By the day that a cycle begins on, in UTC."""
        rows = self.connection.execute(
            """select c.starts_at, sum(case when e.credit like 'revenue:%' then e.amount_minor
                                            when e.debit like 'revenue:%' then -e.amount_minor else 0 end)::bigint
               from entry e join cycle c on c.id = e.cycle_id group by 1 order by 1"""
        ).fetchall()
        return [(f"{row[0]:%m-%d}", row[1]) for row in rows]
