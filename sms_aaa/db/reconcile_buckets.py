"""Laws of buckets: what is cached in one is what its entries, holds and rated usage say, and never above the grant."""

from __future__ import annotations

from typing import LiteralString

BUCKET_LAWS: tuple[tuple[str, LiteralString], ...] = (
    (
        "used and reserved of a bucket are within what was granted",
        """select format('bucket %s of account %s', id, account_id),
                  format('used %s and reserved %s of %s', used, reserved, granted)
           from bucket where used + reserved > granted or least(used, reserved, granted, overrun) < 0""",
    ),
    (
        "a bucket is what its entries make it",
        """select format('bucket %s', coalesce(b.id, e.bucket_id)),
                  format('granted %s, used %s, reserved %s, overrun %s; by its entries %s, %s, %s, %s', b.granted,
                         b.used, b.reserved, b.overrun, e.granted, e.used, e.reserved, e.overrun)
           from bucket b
           full join (select bucket_id,
                             coalesce(sum(quantity) filter (where kind in ('grant', 'roll-in')), 0) as granted,
                             coalesce(sum(quantity) filter (where kind in ('use', 'adjust')), 0) as used,
                             coalesce(sum(case kind when 'reserve' then quantity when 'release' then -quantity end), 0)
                               as reserved,
                             coalesce(sum(quantity) filter (where kind = 'overrun'), 0) as overrun
                      from bucket_entry group by 1) e on e.bucket_id = b.id
           where (b.granted, b.used, b.reserved, b.overrun)
                 is distinct from (e.granted, e.used, e.reserved, e.overrun)""",
    ),
    (
        "what is reserved of a bucket is held for somebody",
        """select 'bucket ' || id, format('reserved %s, held %s', b.reserved, coalesce(r.held, 0))
           from bucket b
           full join (select bucket_id as id, sum(quantity) as held from reservation where bucket_id is not null
                      group by 1) r using (id)
           where coalesce(b.reserved, -1) <> coalesce(r.held, 0)""",
    ),
    (
        "what rated usage took of a unit bucket is what rating entered there",
        """select 'bucket ' || bucket_id,
                  format('rated usage took %s and left %s uncovered, entered %s and %s', coalesce(r.taken, 0),
                         coalesce(r.uncovered, 0), coalesce(e.used, 0), coalesce(e.overrun, 0))
           from (select u.bucket_id, sum(u.taken) as taken, sum(u.uncovered) as uncovered
                 from rated_now r
                 cross join lateral (
                   select r.uses[3 * n + 1] as bucket_id, r.uses[3 * n + 3] as taken,
                          case when n = cardinality(r.uses) / 3 - 1 then r.uncovered else 0 end as uncovered
                   from generate_series(0, cardinality(r.uses) / 3 - 1) n) u
                 where r.uses is not null group by 1) r
           full join (select e.bucket_id, coalesce(sum(e.quantity) filter (where e.kind in ('use', 'adjust')), 0)
                               as used,
                             coalesce(sum(e.quantity) filter (where e.kind = 'overrun'), 0) as overrun
                      from bucket_entry e join bucket b on b.id = e.bucket_id and b.measure is not null
                      where e.run_id is not null group by 1) e using (bucket_id)
           where (coalesce(r.taken, 0), coalesce(r.uncovered, 0)) <> (coalesce(e.used, 0), coalesce(e.overrun, 0))""",
    ),
    (
        "what buckets cover of rated usage is written with it, each bucket by its use",
        """select format('session %s delta %s component %s slice %s', r.session_id, r.seq, r.component_id, r.slice),
                  format('covered %s and uncovered %s, by buckets %s', r.covered, r.uncovered, r.uses)
           from rated_usage r
           where (r.covered > 0 or r.uncovered > 0 or r.uses is not null)
             and r.covered <> coalesce((select sum(r.uses[3 * n + 2])
                                        from generate_series(0, cardinality(r.uses) / 3 - 1) n), 0)""",
    ),
    (
        # What a member settled by itself is known of the bucket alone.
        "shares of members and sessions are what rated usage took",
        """select format('bucket %s account %s', bucket_id, account_id),
                  format('taken %s, rated %s; by all, %s more than rated, of %s settled', taken, rated, beyond, settled)
           from (select bucket_id, account_id, coalesce(m.taken, 0) as taken, coalesce(r.taken, 0) as rated,
                        sum(coalesce(m.taken, 0) - coalesce(r.taken, 0)) over (partition by bucket_id) as beyond
                 from (select m.* from bucket_member m
                       join bucket b on b.id = m.bucket_id and b.measure is not null) m
                 full join (select u.bucket_id, r.account_id, sum(u.taken) as taken
                            from rated_now r
                            cross join lateral (select r.uses[3 * n + 1] as bucket_id, r.uses[3 * n + 3] as taken
                                                from generate_series(0, cardinality(r.uses) / 3 - 1) n) u
                            join bucket b on b.id = u.bucket_id and b.terms->>'member_maximum' is not null
                            where r.uses is not null group by 1, 2) r using (bucket_id, account_id)) s
           cross join lateral (select coalesce(sum(e.quantity), 0) as settled from bucket_entry e
                               where e.bucket_id = s.bucket_id and e.kind = 'use' and e.reservation_id is not null) e
           where taken < rated or beyond <> settled""",
    ),
    (
        # A bucket counts picounits and the ledger minor units: so each member's part of the whole is compared.
        "shares of members in money are what the ledger says that it paid for them",
        """select format('bucket %s account %s', bucket_id, account_id),
                  format('taken %s of %s, by the ledger %s of %s', coalesce(m.taken, 0), b.used, coalesce(e.paid, 0),
                         coalesce(e.whole, 0))
           from bucket_member m
           full join (select bucket_id, account_id, paid, sum(paid) over (partition by bucket_id) as whole
                      from (select bucket_id, account_id,
                                   sum(case when credit like 'revenue:%' then amount_minor else -amount_minor end)
                                     as paid
                            from entry where bucket_id is not null and component_id is not null group by 1, 2) p) e
             using (bucket_id, account_id)
           join (select id, used from bucket where measure is null and terms->>'member_maximum' is not null) b
             on b.id = bucket_id
           where coalesce(m.taken, 0) * greatest(coalesce(e.whole, 0), 1) <> coalesce(e.paid, 0) * b.used""",
    ),
)
