"""Accounting: sessions that are cheap to keep up and easy to find for years, usage by hour and day. A section a theme."""

from alembic import op

revision = "0003"
down_revision = "0002"

FACTS = """
alter table session
    add column framed_interface_id text,
    add column acct_multi_session_id text,
    add column acct_link_count bigint,
    add column acct_authentic bigint,
    add column service_type bigint,
    add column framed_protocol bigint,
    add column connect_info text,
    add column circuit_id text,
    add column remote_id text,
    add column vendor_attributes text,
    add column addressed_at timestamptz;
comment on column session.acct_multi_session_id is 'What ties the links of a multilink bundle, each a session with counters of its own.';
comment on column session.circuit_id is 'Agent-Circuit-Id, whichever vendor''s attribute it came in; remote_id likewise.';
comment on column session.vendor_attributes is 'A JSON object, name -> text or list of texts: as first told, and as told by the Stop; a second address, too. No secrets, bounded.';
comment on column session.addressed_at is 'Since when it has the addresses of this row; null: since its start. What it had before: session_address.';

create table session_address (
    session_id bigint not null,
    kind text not null check (kind in ('framed_ip', 'framed_ipv6_prefix', 'delegated_ipv6_prefix', 'framed_ipv6_address')),
    address inet not null,
    from_at timestamptz not null,
    heard_at timestamptz not null,
    to_at timestamptz not null,
    primary key (session_id, kind, address, from_at),
    check (from_at <= heard_at and heard_at <= to_at)
);
comment on table session_address is 'Addresses that a session had before those in its row; written only when one changes in mid-session.';
comment on column session_address.heard_at is 'The last record that told it: sure until here. It ended somewhere until to_at, when another was told.';
create index session_address_at on session_address using gist (address inet_ops);

alter table usage_delta add column late boolean not null default false;
comment on column usage_delta.late is 'Of a reading that came late: it lies inside of what earlier deltas count, and adds what they lack.';
create table late_reading (
    session_id bigint not null,
    seconds bigint not null,
    octets_in bigint not null,
    octets_out bigint not null,
    at timestamptz not null,
    node text not null,
    sequence bigint not null,
    record_offset bigint not null,
    primary key (session_id, seconds, octets_in, octets_out)
);
comment on table late_reading is 'Readings that came late. With the deltas they are all that a session was counted with: where the next late one stands.';
"""

SETTLING = """
alter table usage_delta drop constraint usage_delta_session_id_fkey;
alter table anomaly drop constraint anomaly_session_id_fkey;
comment on column usage_delta.session_id is 'In session, or in session_history once it was moved there; `reconcile` proves it.';
alter table session add column version integer not null default 1;
comment on column session.version is 'Counted up by whoever changes the row: a settler that has it in memory sees whether it still knows it.';
alter table session add column begun_at timestamptz;
comment on column session.begun_at is 'When it began, by our clock and what its NAS counts of time: the same whatever the NAS''s clock says. Null: not told.';
-- An interim changes nothing that an index has, so its row stays in its page (HOT) as long as there is room: half of it.
-- The check for silent sessions reads the open ones instead of an index that every interim would have to move in.
alter table session set (fillfactor = 50);
drop index session_heard;
-- Services tell their accounts: nobody asks for sessions by account.
drop index session_account;
-- The name first, so that a session is found by it alone too.
alter table session
    drop constraint session_nas_id_nas_key_acct_session_id_life_key,
    add constraint session_name unique (acct_session_id, nas_id, nas_key, life);
-- Services, accounts and NASes are never deleted; here each new session would have to look for three rows and lock them.
-- `reconcile` proves that they are there.
alter table session
    drop constraint session_nas_id_fkey, drop constraint session_service_id_fkey, drop constraint session_account_id_fkey;
"""

ROLLUPS = """
create table usage_hour (
    account_id bigint not null,
    service_id bigint not null,
    hour_at timestamptz not null,
    octets_in bigint not null check (octets_in >= 0),
    octets_out bigint not null check (octets_out >= 0),
    seconds bigint not null check (seconds >= 0),
    primary key (account_id, service_id, hour_at)
) partition by range (hour_at);
comment on table usage_hour is 'Usage of a service by hours of its account''s zone; a delta is shared over the hours that it touches as slices are.';
create table usage_hour_default partition of usage_hour default;

create table usage_day (
    account_id bigint not null,
    service_id bigint not null,
    day date not null,
    octets_in bigint not null check (octets_in >= 0),
    octets_out bigint not null check (octets_out >= 0),
    seconds bigint not null check (seconds >= 0),
    primary key (account_id, service_id, day)
) partition by range (day);
comment on table usage_day is 'The same by days of the account''s zone: the sum of the day''s hours.';
create table usage_day_default partition of usage_day default;
"""

HISTORY = """
create table session_history (like session including comments) partition by range (stopped_at);
alter table session_history alter column stopped_at set not null, add primary key (id, stopped_at);
comment on table session_history is 'Sessions that have ended for good: moved here some days after their end, never changed again.';
create table session_history_default partition of session_history default;
-- Whoever had an address at an instant is asked for by the first three columns; the end leads, since an instant leaves
-- most of the older rows of an address behind it, and whole partitions.
create index session_history_ip on session_history (framed_ip, stopped_at, started_at) where framed_ip is not null;
create index session_history_ip6 on session_history (framed_ipv6_address, stopped_at, started_at)
    where framed_ipv6_address is not null;
create index session_history_prefix on session_history (framed_ipv6_prefix, stopped_at, started_at)
    where framed_ipv6_prefix is not null;
create index session_history_delegated on session_history (delegated_ipv6_prefix, stopped_at, started_at)
    where delegated_ipv6_prefix is not null;
create index session_history_service on session_history (service_id, started_at desc);
create index session_history_username on session_history (username, started_at desc);
create index session_history_account on session_history (account_id, started_at);
create index session_history_name on session_history (acct_session_id, nas_id);

create index session_ended on session (stopped_at) where stopped_at is not null;
create index session_ip on session (framed_ip) where framed_ip is not null;
create index session_ip6 on session (framed_ipv6_address) where framed_ipv6_address is not null;
create index session_prefix on session (framed_ipv6_prefix) where framed_ipv6_prefix is not null;
create index session_delegated on session (delegated_ipv6_prefix) where delegated_ipv6_prefix is not null;
comment on index session_ended is 'What the mover takes next: no interim changes it.';
create index place_change_session on place_change (session_id);
comment on index place_change_session is 'A session moves only when no node has to hear of it any more.';

create table session_boundary (
    before timestamptz not null default '-infinity',
    erased_before timestamptz not null default '-infinity'
);
comment on table session_boundary is 'One row. What ended before `before` may have been moved to the history; moves with what is moved.';
comment on column session_boundary.erased_before is 'Deltas that ended before it are past their retention and erased: no proof asks for them.';
insert into session_boundary default values;

create view session_all as select * from session union all select * from session_history;
comment on view session_all is 'Every session there is: what is asked for by people is asked for here.';
"""

PORT_BLOCKS = """
create table port_block (
    session_id bigint not null,
    address inet not null,
    port_from integer not null check (port_from between 0 and 65535),
    port_to integer not null check (port_to between port_from and 65535),
    protocol smallint not null check (protocol between 0 and 255),
    from_at timestamptz not null,
    to_at timestamptz check (to_at >= from_at),
    node text not null,
    sequence bigint not null,
    record_offset bigint not null,
    primary key (session_id, address, port_from, port_to, protocol, from_at)
) partition by range (from_at);
comment on table port_block is 'Ports of an address outside a NAT that a session had, and the record that told it.';
comment on column port_block.protocol is 'IANA''s number; 0: all of them.';
comment on column port_block.to_at is 'When it was told to be free again. Null: until its session ends, which is not repeated here.';
create table port_block_default partition of port_block default;
create index port_block_held on port_block (address, port_from, from_at);
"""

JOURNAL = """
alter table quarantine
    add column tries integer not null default 0,
    add column resolution text check (resolution in ('settled', 'dismissed')),
    add column resolved_by text,
    add column note text not null default '';
update quarantine set resolution = 'dismissed' where resolved_at is not null;
alter table quarantine add check ((resolved_at is null) = (resolution is null));
comment on column quarantine.raw is 'The journal record as it was framed; of a damaged stretch its first octets.';
comment on column quarantine.reason is 'Why it could not be settled, at the last try.';
comment on column quarantine.note is 'Why it was dismissed.';
create index quarantine_waiting on quarantine (reason, id) where resolved_at is null;
"""

QUEUE = """
alter table rating_queue rename to rating_queue_0002;
alter table rating_queue_0002 rename constraint rating_queue_pkey to rating_queue_0002_pkey;

create table rating_queue (
    id bigint generated by default as identity,
    shard smallint not null check (shard between 0 and 7),
    queued_at timestamptz not null default now(),
    deltas integer not null check (deltas > 0),
    session_id bigint[] not null check (cardinality(session_id) = deltas),
    seq integer[] not null check (cardinality(seq) = deltas),
    account_id bigint[] not null check (cardinality(account_id) = deltas),
    service_id bigint[] not null check (cardinality(service_id) = deltas),
    from_at timestamptz[] not null check (cardinality(from_at) = deltas),
    to_at timestamptz[] not null check (cardinality(to_at) = deltas),
    octets_in bigint[] not null check (cardinality(octets_in) = deltas),
    octets_out bigint[] not null check (cardinality(octets_out) = deltas),
    primary key (shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table rating_queue is 'Deltas that wait for the rater, many to a row: written with them, consumed with their rated usage.';
comment on column rating_queue.shard is 'account_id % 8: one rater at a time works at the accounts of a shard.';
-- Octets are not worth the time that it takes to compress them, and no row stays for long.
alter table rating_queue
    alter session_id set storage external, alter seq set storage external, alter account_id set storage external,
    alter service_id set storage external, alter from_at set storage external, alter to_at set storage external,
    alter octets_in set storage external, alter octets_out set storage external;

create view queued_delta as
    select q.id as queue_id, q.shard, q.queued_at, d.*
    from rating_queue q
    cross join unnest(q.session_id, q.seq, q.account_id, q.service_id, q.from_at, q.to_at, q.octets_in, q.octets_out)
      d(session_id, seq, account_id, service_id, from_at, to_at, octets_in, octets_out);
comment on view queued_delta is 'The rating queue, a row a delta.';

create table rating_shard (shard smallint primary key, version bigint not null default 0) with (fillfactor = 10);
comment on table rating_shard is 'Who works at the accounts of a shard holds its row; several of them in the order of their numbers.';
comment on column rating_shard.version is 'Counted up by whoever changes usage totals of the shard: a rater that has them in memory sees whether it still knows them.';
insert into rating_shard select generate_series(0, 7);

-- Found for every delta and every cycle that is opened; the indexes of the exclusions take four times as long.
create index subscription_service on subscription (service_id);
create index assignment_service on assignment (service_id);

-- A dozen look-ups and row locks for a cycle that is opened, five for a posting: `reconcile` proves instead, and proves
-- more: that each stands in a cycle of its own account, and on a component of its subscription's plan.
alter table usage_total drop constraint usage_total_account_id_fkey, drop constraint usage_total_cycle_id_fkey,
    drop constraint usage_total_subscription_id_fkey, drop constraint usage_total_component_id_fkey;
alter table charge drop constraint charge_account_id_fkey, drop constraint charge_cycle_id_fkey,
    drop constraint charge_subscription_id_fkey, drop constraint charge_component_id_fkey;
alter table entry drop constraint entry_account_id_fkey, drop constraint entry_cycle_id_fkey,
    drop constraint entry_subscription_id_fkey, drop constraint entry_component_id_fkey,
    drop constraint entry_run_id_fkey;
create trigger cycle_stays before delete or truncate on cycle for each statement execute function refuse_change();
create trigger component_is_final before update or delete on component for each row execute function refuse_change();

insert into rating_queue (shard, queued_at, deltas, session_id, seq, account_id, service_id, from_at, to_at, octets_in,
                          octets_out)
    select q.account_id % 8, min(q.queued_at), count(*), array_agg(session_id), array_agg(seq),
           array_agg(q.account_id), array_agg(d.service_id), array_agg(d.from_at), array_agg(to_at),
           array_agg(d.octets_in), array_agg(d.octets_out)
    from (select *, row_number() over (partition by account_id % 8 order by queued_at) / 500 as part
          from rating_queue_0002) q
    join usage_delta d using (session_id, seq, to_at) group by q.account_id % 8, q.part order by 2;
drop table rating_queue_0002;
"""

LISTINGS = """
create index session_started on session (started_at, id);
create index session_station on session (calling_station_id, started_at);
create index session_history_started on session_history (started_at, id);
create index session_history_station on session_history (calling_station_id, started_at);
create index session_history_nas on session_history (nas_id, started_at);
create index anomaly_at on anomaly (at);
comment on index session_started is 'The newest first, and no further than a listing goes; of each partition of the history, too.';
"""


def upgrade() -> None:
    for part in (FACTS, SETTLING, ROLLUPS, HISTORY, PORT_BLOCKS, JOURNAL, QUEUE, LISTINGS):
        if part.strip():
            op.execute(part)
