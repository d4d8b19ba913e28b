"""The heart of bulk rating: deltas that are known to fit -> slices, what buckets cover of them, what the rest costs.

One statement, put together for what the batch has: each bucket of an account is a running sum over what the buckets
before it left, the total of a component another, and its price is looked up in the component's steps. It is held equal
to rules/charging.py by a property test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection

_ORDER = "order by end_at, session_id, seq, slice, part_n rows unbounded preceding"
_IS_LAST = f"lead(true) over (partition by account_id, cycle_no {_ORDER}) is null as is_last"
"""The same window as that of the running sums: the rows go through it once for both."""


class Features(Struct, frozen=True, gc=False):
    """What a batch needs. `rounds`: buckets of the account that has most.

    `has_steps`: a price that is no line (rules.set_wise.Steps). `has_stops`: a bucket beyond which usage is not simply
    charged.
    """

    rounds: int
    has_sessions: bool
    has_increments: bool
    has_steps: bool
    has_stops: bool
    has_order: bool


_PLACED = """
placed as materialized (
  select d.session_id, d.seq, d.account_id, d.from_at, d.to_at, d.octets_in, d.octets_out, d.seconds, d.owner_n,
         d.calendar_n, d.plan_version_id, d.slots[d.i] as slot, d.cycles[d.i] as cycle_no,
         d.to_at > d.edges[d.i + 1] as is_cut
  from (select d.*, o.n as owner_n, o.calendar_n, c.plan_version_id, c.edges, c.slots, c.cycles,
               width_bucket(d.from_at, c.edges) as i
        from bulk_delta d
        join bulk_owner o on o.account_id = d.account_id and o.service_id = d.service_id
        join bulk_calendar c on c.n = o.calendar_n offset 0) d),
piece as (
  select p.session_id, p.seq, p.account_id, p.to_at, 0 as slice, p.from_at as begin_at, p.to_at as end_at, p.owner_n,
         p.cycle_no, p.slot, k.n as part_n,
         p.octets_in * k.is_in + p.octets_out * k.is_out + p.seconds * k.is_seconds
           + case when p.seq = 1 then k.is_event else 0 end as quantity
  from placed p
  join bulk_part k on k.plan_version_id = p.plan_version_id and (k.slots >> p.slot) & 1 = 1
  where not p.is_cut
  union all
  select session_id, seq, account_id, to_at, slice, begin_at, end_at, owner_n, cycle_no, slot, part_n,
         case when begin_at = from_at and is_whole_first or end_at = to_at and is_whole_last then one + other
              when is_whole_first or is_whole_last then 0
              else div(2 * one * end_us + all_us, 2 * all_us) - div(2 * one * begin_us + all_us, 2 * all_us)
                + case when other = 0 then 0
                  else div(2 * other * end_us + all_us, 2 * all_us) - div(2 * other * begin_us + all_us, 2 * all_us) end
         end::bigint
  from (select w.*, extract(epoch from begin_at - from_at) * 1000000 as begin_us,
               extract(epoch from end_at - from_at) * 1000000 as end_us,
               extract(epoch from to_at - from_at) * 1000000 as all_us
        from (select p.session_id, p.seq, p.account_id, p.from_at, p.to_at, g.i - p.i as slice, p.owner_n,
               c.cycles[g.i] as cycle_no, c.slots[g.i] as slot, k.n as part_n,
               greatest(p.from_at, c.edges[g.i]) as begin_at, least(p.to_at, c.edges[g.i + 1]) as end_at,
               (p.octets_in * k.is_in + p.seconds * k.is_seconds
                 + case when p.seq = 1 then k.is_event else 0 end)::numeric as one,
               (p.octets_out * k.is_out)::numeric as other,
               c.switch = 1 or k.is_event = 1 as is_whole_first, c.switch = 2 and k.is_event = 0 as is_whole_last
        from (select p.*, width_bucket(p.from_at, c.edges) as i,
                     width_bucket(p.to_at - interval '1 microsecond', c.edges) as j
              from placed p join bulk_calendar c on c.n = p.calendar_n where p.is_cut) p
        join bulk_calendar c on c.n = p.calendar_n
        cross join lateral generate_series(p.i, p.j) g(i)
        join bulk_part k on k.plan_version_id = c.plan_version_id and (k.slots >> c.slots[g.i]) & 1 = 1) w) w)"""


def insert_priced(connection: Connection, features: Features) -> int:
    """Fills bulk_priced from what db/bulk_rating.py prepared; how many rows."""
    return connection.execute(_statement(features, _PLACED).encode()).rowcount


def insert_pieces_priced(connection: Connection, features: Features) -> int:
    """The same, where the slices are in bulk_piece already."""
    return connection.execute(_statement(features, "piece as (select * from bulk_piece)").encode()).rowcount


def _statement(features: Features, pieces: str) -> str:
    rounds = features.rounds
    levels = [_entry(features)]
    levels += [_round(number, features) for number in range(1, rounds + 1)]
    covers = ", ".join(f"cov{number}, over{number}" for number in range(1, rounds + 1))
    columns = f", {covers}" if covers else ""
    inner = levels[0]
    for level in levels[1:]:
        inner = level.format(inner=inner)
    last = "is_last" if rounds else "null::boolean"
    if not rounds and features.has_order:
        inner = f"select *, {_IS_LAST} from ({inner}) w"  # noqa: S608 - no value of anybody's
        last = "is_last"
    steps = ""
    if features.has_steps:
        steps = """, width_bucket(greatest(after - 1, 0), begins) as after_step,
             width_bucket(greatest(before - 1, 0), begins) as before_step"""
    # A session's total goes on over cycles, a meter's does not.
    scope = "account_id, part_n, scope, scope_meter" if features.has_sessions else "account_id, cycle_no, meter_n"
    return f"""
with {pieces},
totalled as (
  select *, start + int8_total(rest{rounds}) over (partition by {scope} {_ORDER})
              as total_after
  from ({inner}) w)
insert into bulk_priced (session_id, seq, to_at, slice, end_at, account_id, cycle_no, meter_n, part_n, quantity,
                         priced, total_before, numerator, is_last{columns})
select session_id, seq, to_at, slice, end_at, account_id, cycle_no, meter_n, part_n, quantity, rest{rounds},
       total_before,
       case when rest{rounds} = 0 then 0
            when total_after <= narrow_max
              then (({_narrow("after", features)}) - ({_narrow("before", features)})) * factor
            else ({_wide("after", features)}) - ({_wide("before", features)}) end,
       {last}{columns}
from (select *{steps}
      from (select t.*, k.*, total_after - rest{rounds} as total_before,
                   {_billable("t.total_after", features)} as after,
                   {_billable(f"(t.total_after - t.rest{rounds})", features)} as before
            from totalled t join bulk_part k on k.n = t.part_n offset 0) p offset 0) p"""  # noqa: S608 - numbers and columns only


def _entry(features: Features) -> str:
    """Slices with the totals that they move and the buckets that they may use."""
    purse = [
        f"""w.left{r}, (k.covers[w.terms{r}] >> p.slot) & 1 = 1 and w.from{r} <= p.begin_at
            and (w.until{r} is null or p.end_at < w.until{r} or p.end_at = w.until{r} and p.end_at > p.begin_at)
            as may{r}"""
        for r in range(1, features.rounds + 1)
    ]
    lasts = ", false as halted0, w.stops, w.swallows" if features.has_stops else ""
    columns = "".join(f", {column}" for column in purse)
    start = "m.quantity as start"
    join = (
        "left join bulk_purse w on w.account_id = p.account_id and w.cycle_no = p.cycle_no" if features.rounds else ""
    )
    scope = ""
    if features.has_sessions:
        start = "case when k.is_session then coalesce(s.quantity, 0) else m.quantity end as start"
        scope = """, case when k.is_session then p.session_id else 0 end as scope,
                        case when k.is_session then 0 else m.n end as scope_meter"""
        join += """ left join session_total s on k.is_session and s.session_id = p.session_id
                     and s.subscription_id = m.subscription_id and s.component_id = k.component_id"""
    return f"""select p.session_id, p.seq, p.to_at, p.slice, p.end_at, p.account_id, p.cycle_no, m.n as meter_n,
                      k.n as part_n, p.quantity, p.quantity as rest0, {start}{scope}{lasts}{columns}
               from piece p
               join bulk_part k on k.n = p.part_n
               join bulk_meter m on m.owner_n = p.owner_n and m.cycle_no = p.cycle_no and m.part_n = p.part_n
               {join} where p.quantity > 0"""  # noqa: S608 - numbers and columns only


def _round(number: int, features: Features) -> str:
    """One bucket of each account covers what it can of what is left, in canonical order."""
    r, before = number, number - 1
    last = f", {_IS_LAST}" if number == 1 else ""
    may, columns = f"may{r}", f"rest{before} - cov{r} as rest{r}, 0 as over{r}"
    if features.has_stops:
        may = f"may{r} and not halted{before}"
        swallowed = f"is_over{r} and (swallows >> {r}) & 1 = 1"
        columns = f"""case when {swallowed} then 0 else rest{before} - cov{r} end as rest{r},
       case when {swallowed} then rest{before} - cov{r} else 0 end as over{r},
       halted{before} or is_over{r} and (stops >> {r}) & 1 = 1 as halted{r}"""
    return f"""
select *, {columns}
from (select *, want{r} > cov{r} as is_over{r}
      from (select *, greatest(least(want{r}, left{r} - upto{r} + want{r}), 0) as cov{r}
            from (select *, int8_total(want{r}) over (partition by account_id, cycle_no {_ORDER}) as upto{r}{last}
                  from (select *, case when {may} then rest{before} else 0 end as want{r}
                        from ({{inner}}) w) w) w) w) w"""  # noqa: S608 - numbers only


def _billable(quantity: str, features: Features) -> str:
    """rules.pricing.billable."""
    if not features.has_increments:
        return quantity
    return f"""case when {quantity} <= k.grace then 0
      else k.initial + (greatest({quantity}, k.least, k.initial) - k.initial + k.following - 1) / k.following
        * k.following end"""


def _narrow(side: str, features: Features) -> str:
    """P over the factor, where all of it fits a bigint."""
    whole = f"narrow_bases[1] + {side} * narrow_units[1] + case when {side} > 0 then narrow_connect else 0 end"
    if features.has_steps:
        whole = f"""narrow_bases[{side}_step]
          + (greatest({side} - origins[{side}_step], 0) + increments[{side}_step] - 1) / increments[{side}_step]
            * increments[{side}_step] * narrow_units[{side}_step]
          + case when {side} > 0 then narrow_connect else 0 end"""
    return f"case when {side} = 0 and is_session then 0 else least({whole}, narrow_maximum) end"


def _wide(side: str, features: Features) -> str:
    """P as it is, however large."""
    whole = f"bases[1] + {side} * units[1] + case when {side} > 0 then connect else 0 end"
    if features.has_steps:
        whole = f"""bases[{side}_step]
          + div(greatest({side}::numeric - origins[{side}_step], 0) + increments[{side}_step] - 1,
                increments[{side}_step]) * increments[{side}_step] * units[{side}_step]
          + case when {side} > 0 then connect else 0 end"""
    return f"case when {side} = 0 and is_session then 0 else least({whole}, maximum) end"
