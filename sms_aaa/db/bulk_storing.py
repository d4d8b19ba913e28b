"""What bulk rating stores: rated usage, totals and buckets with their entries, how far groups are rated.

All from bulk_priced (db/bulk_rating.py), a statement each. Totals and buckets are found where they were read, by ctid:
one that somebody changed since is elsewhere, or no longer what it was. That is Outrun, and the batch is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.db.engine import Outrun

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection


def insert_rated_usage(connection: Connection, run_id: int, rounds: int) -> int:
    """A row a slice and component; and one for a delta that no component counts anything of. How many."""
    uses, join, uncovered = "null", "", "0"
    if rounds:
        numbers = range(1, rounds + 1)
        uses = " || ".join(
            f"case when w.cov{r} > 0 or w.over{r} > 0 then array[s.b{r}, w.cov{r}, w.cov{r}] end" for r in numbers
        )
        uncovered = " + ".join(f"w.over{r}" for r in numbers)
        join = "left join bulk_purse s on s.account_id = w.account_id and s.cycle_no = w.cycle_no"
    rated = connection.execute(
        f"""insert into rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice,
                                     generation, to_at, run_id, quantity, covered, uncovered, total_before, numerator,
                                     uses)
            select w.account_id, m.cycle_id, m.subscription_id, m.component_id, w.session_id, w.seq, w.slice, 1,
                   w.to_at, %s, w.quantity, w.quantity - w.priced - ({uncovered}), {uncovered}, w.total_before,
                   w.numerator, {uses}
            from bulk_priced w join bulk_meter m on m.n = w.meter_n {join}""".encode(),  # noqa: S608 - numbers only
        (run_id,),
    ).rowcount
    empty = connection.execute(
        """insert into rated_usage (account_id, cycle_id, subscription_id, component_id, session_id, seq, slice,
                                    generation, to_at, run_id, quantity, covered, uncovered, total_before, numerator)
           select m.account_id, m.cycle_id, m.subscription_id, m.component_id, d.session_id, d.seq, 0, 1, d.to_at, %s,
                  0, 0, 0, 0, 0
           from bulk_delta d
           join bulk_owner o on o.account_id = d.account_id and o.service_id = d.service_id
           join bulk_calendar c on c.n = o.calendar_n
           join bulk_part k on k.plan_version_id = o.plan_version_id and k.ordinal = 0
           join bulk_meter m on m.owner_n = o.n and m.cycle_no = c.cycles[width_bucket(d.from_at, c.edges)]
             and m.part_n = k.n
           where d.octets_in = 0 and d.octets_out = 0
             and not exists (select from bulk_priced w where w.session_id = d.session_id and w.seq = d.seq)""",
        (run_id,),
    ).rowcount
    return rated + empty


def move_totals(connection: Connection, run_id: int) -> int:
    """Totals move by the sums of their slices, and the ledger by what their rounded prices move by; entries made.

    The rounding is rules.pricing.amount_minor: discount, cap, the component's scale, then the currency's. A price so
    far is never below zero.
    """
    row = connection.execute(
        """with moved as (
             select meter_n, int8_total(priced) as priced, int8_total(quantity - priced) as covered,
                    sum(numerator) as numerator
             from bulk_priced group by meter_n),
           shaped as (
             select m.*, w.priced, w.covered, m.numerator + w.numerator as numerator_after, k.mode, k.scale,
                    k.minor_scale, k.currency, k.debit, k.credit,
                    case when w.numerator = 0 then null else least((m.numerator + w.numerator) * k.kept, k.cap) end
                      as shaped, k.denominator
             from moved w join bulk_meter m on m.n = w.meter_n join bulk_part k on k.n = m.part_n),
           scaled as (
             select *, case mode when 0 then div(2 * shaped * scale + denominator, 2 * denominator)
                                 when 1 then div(shaped * scale + denominator - 1, denominator)
                                 else div(shaped * scale, denominator) end as own
             from shaped),
           posted as materialized (
             select *, case when own is null then posted_minor
                            else case mode when 0 then div(2 * own * minor_scale + scale, 2 * scale)
                                           when 1 then div(own * minor_scale + scale - 1, scale)
                                           else div(own * minor_scale, scale) end::bigint end as now_minor
             from scaled),
           entered as (
             insert into entry (account_id, cycle_id, subscription_id, component_id, run_id, amount_minor, debit,
                                credit, currency)
             select account_id, cycle_id, subscription_id, component_id, %s, abs(now_minor - posted_minor),
                    case when now_minor > posted_minor then debit else credit end,
                    case when now_minor > posted_minor then credit else debit end, currency
             from posted where now_minor <> posted_minor returning 1),
           stored as (
             update usage_total t
             set quantity = p.quantity + p.priced, covered = t.covered + p.covered, numerator = p.numerator_after,
                 posted_minor = p.now_minor
             from posted p
             where t.ctid = p.row_id and t.account_id = p.account_id and t.cycle_id = p.cycle_id
               and t.subscription_id = p.subscription_id and t.component_id = p.component_id
               and t.quantity = p.quantity returning 1)
           select (select count(*) from posted), (select count(*) from stored), (select count(*) from entered)""",
        (run_id,),
    ).fetchone()
    assert row is not None
    if row[0] != row[1]:
        raise Outrun
    return int(row[2])


def move_session_totals(connection: Connection) -> None:
    """Of components whose price runs up over a session."""
    connection.execute(
        """insert into session_total (session_id, subscription_id, component_id, quantity)
           select w.session_id, m.subscription_id, m.component_id, max(w.total_before + w.priced)
           from bulk_priced w join bulk_meter m on m.n = w.meter_n join bulk_part k on k.n = w.part_n
           where k.is_session group by 1, 2, 3
           on conflict (session_id, subscription_id, component_id) do update set quantity = excluded.quantity"""
    )


def use_buckets(connection: Connection, run_id: int, rounds: int) -> None:
    """Buckets move by what they covered, with an entry each; Outrun where somebody else used or held one meanwhile."""
    if not rounds:
        return
    numbers = range(1, rounds + 1)
    sums = ", ".join(f"int8_total(cov{r}) as cov{r}, int8_total(over{r}) as over{r}" for r in numbers)
    sides = ", ".join(f"(s.b{r}, s.row{r}, s.left{r}, w.cov{r}, w.over{r})" for r in numbers)
    row = connection.execute(
        f"""with summed as (select account_id, cycle_no, {sums} from bulk_priced group by 1, 2),
            used as materialized (
              select e.* from summed w join bulk_purse s using (account_id, cycle_no)
              cross join lateral (values {sides}) e(bucket_id, row_id, available, covered, overrun)
              where e.covered > 0 or e.overrun > 0),
            entered as (
              insert into bucket_entry (bucket_id, kind, quantity, run_id)
              select bucket_id, 'use', covered, %(run)s from used where covered > 0
              union all select bucket_id, 'overrun', overrun, %(run)s from used where overrun > 0),
            stored as (
              update bucket b set used = b.used + u.covered, overrun = b.overrun + u.overrun
              from used u
              where b.ctid = u.row_id and b.id = u.bucket_id and b.granted - b.used = u.available and b.reserved = 0
                and b.closed_at is null
              returning 1)
            select (select count(*) from used), (select count(*) from stored)""".encode(),  # noqa: S608 - numbers only
        {"run": run_id},
    ).fetchone()
    assert row is not None
    if row[0] != row[1]:
        raise Outrun


def note_order(connection: Connection, reason: str) -> None:
    """How far the groups are rated of which the order matters; those that got a slice too late become dirty."""
    connection.execute(
        """insert into dirty_group (head_account_id, from_at, reason)
           select w.account_id, min(w.end_at), %s
           from bulk_priced w join rated_until u on u.head_account_id = w.account_id
           where (w.end_at, w.session_id, w.seq) < (u.to_at, u.session_id, u.seq) group by 1
           on conflict (head_account_id) do update set from_at = least(dirty_group.from_at, excluded.from_at)""",
        (reason,),
    )
    connection.execute(
        """insert into rated_until as u (head_account_id, to_at, session_id, seq)
           select distinct on (w.account_id) w.account_id, w.end_at, w.session_id, w.seq from bulk_priced w
           where w.is_last and (
             w.account_id in (select account_id from bulk_bucket)
             or w.account_id in (select m.account_id from bulk_meter m join bulk_part k on k.n = m.part_n
                                 where k.is_session)
             or exists (select from rated_until o where o.head_account_id = w.account_id))
           order by w.account_id, w.end_at desc, w.session_id desc, w.seq desc
           on conflict (head_account_id) do update
             set to_at = excluded.to_at, session_id = excluded.session_id, seq = excluded.seq
             where (u.to_at, u.session_id, u.seq) < (excluded.to_at, excluded.session_id, excluded.seq)"""
    )
