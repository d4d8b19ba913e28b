"""The chain: from a NAS and a service to sessions, usage, rated usage and the ledger.

Forward only. The constraints carry the invariants; each table says in its comment what it may never do. Times are
`timestamptz`, octets `bigint`, money integer minor units, exact prices `numeric` without a fraction over the
component's denominator.
"""

from alembic import op

revision = "0001"
down_revision = None

PEOPLE = """
create extension if not exists btree_gist;

create table installation (
    singleton boolean primary key default true check (singleton),
    database_id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now()
);
comment on table installation is 'One row. A journal is bound to one database by this id and refuses another.';
insert into installation default values;

create table subscriber (
    id bigint generated always as identity primary key,
    name text not null check (name <> ''),
    full_name text not null default '',
    email text not null default '',
    phone text not null default '',
    source text not null default '',
    created_at timestamptz not null default now(),
    removed_at timestamptz
);
comment on column subscriber.source is 'How this subscriber was won; acquisition reports group by it.';
create unique index subscriber_name on subscriber (name) where removed_at is null;

create table account (
    id bigint generated always as identity primary key,
    subscriber_id bigint not null references subscriber,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    zone text not null,
    anchor_day smallint not null check (anchor_day between 1 and 31),
    charging_mode text not null default 'postpaid' check (charging_mode in ('postpaid', 'prepaid')),
    created_at timestamptz not null default now()
);
create index account_subscriber on account (subscriber_id);

create table service (
    id bigint generated always as identity primary key,
    subscriber_id bigint not null references subscriber,
    identity_kind smallint not null check (identity_kind in (1, 2)),
    identity text not null check (octet_length(identity) between 1 and 253),
    state smallint not null check (state in (1, 2, 3)),
    state_reason text not null default '',
    static_ipv4 inet check (family(static_ipv4) = 4 and masklen(static_ipv4) = 32),
    created_at timestamptz not null default now()
);
comment on table service is 'A cancelled service keeps its row, because sessions point at it, and frees its identity.';
create unique index service_identity on service (identity_kind, identity) where state <> 3;
create unique index service_static_ipv4 on service (static_ipv4) where state <> 3;
create index service_subscriber on service (subscriber_id);
create index service_username on service (identity) include (id, created_at);

create table service_state (
    service_id bigint not null references service,
    state smallint not null check (state in (1, 2, 3)),
    reason text not null,
    during tstzrange not null check (not isempty(during)),
    exclude using gist (service_id with =, during with &&)
);
comment on table service_state is 'The states that a service was in, dated; the open row is the present one.';

create table assignment (
    service_id bigint not null references service,
    account_id bigint not null references account,
    during tstzrange not null check (not isempty(during)),
    exclude using gist (service_id with =, during with &&)
);
comment on table assignment is 'Which account pays for a service, and when.';

create table credential (
    service_id bigint primary key references service,
    form smallint not null check (form = 1),
    sealed bytea not null,
    changed_at timestamptz not null default now()
);
comment on column credential.sealed is 'AES-GCM under the node''s key; the service id is bound in. Form 1: cleartext with its NT hash.';

create table nas (
    id integer generated always as identity primary key,
    name text not null check (name <> ''),
    prefix cidr not null,
    dialect text not null check (dialect in ('generic', 'mikrotik')),
    message_authenticator text not null check (message_authenticator in ('auto', 'yes', 'no')),
    coa_port integer not null default 3799 check (coa_port between 1 and 65535),
    created_at timestamptz not null default now(),
    removed_at timestamptz
);
create unique index nas_name on nas (name) where removed_at is null;
create unique index nas_prefix on nas (prefix) where removed_at is null;

create table nas_secret (
    id integer generated always as identity primary key,
    nas_id integer not null references nas,
    sealed bytea not null,
    created_at timestamptz not null default now(),
    retired_at timestamptz
);
create index nas_secret_nas on nas_secret (nas_id) where retired_at is null;
"""

PLANS = """
create table plan (
    id integer generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    created_at timestamptz not null default now()
);

create table plan_version (
    id integer generated always as identity primary key,
    plan_id integer not null references plan,
    version integer not null check (version > 0),
    document jsonb not null,
    digest text not null,
    effective_at timestamptz not null default now(),
    unique (plan_id, version)
);
comment on table plan_version is 'Policy and tariff as they were sold: never changed, a change is a new version.';

create table component (
    id integer generated always as identity primary key,
    plan_version_id integer not null references plan_version,
    name text not null,
    kind text not null check (kind in ('usage', 'recurring')),
    unique (plan_version_id, name)
);

create table subscription (
    id bigint generated always as identity primary key,
    service_id bigint not null references service,
    plan_version_id integer not null references plan_version,
    during tstzrange not null check (not isempty(during)),
    exclude using gist (service_id with =, during with &&)
);
comment on table subscription is 'The plan version that a service is on, dated: never two at an instant.';
create index subscription_plan_version on subscription (plan_version_id);
"""

USAGE = """
create table journal_position (
    node text not null,
    stream smallint not null check (stream in (1, 2)),
    sequence bigint not null,
    position bigint not null check (position >= 0),
    finished boolean not null default false,
    updated_at timestamptz not null default now(),
    primary key (node, stream, sequence)
);
comment on table journal_position is 'How far a journal file is settled; moved by compare-and-set with the rows it stands for.';

create table quarantine (
    id bigint generated always as identity primary key,
    node text not null,
    stream smallint not null,
    sequence bigint not null,
    record_offset bigint not null,
    reason text not null,
    raw bytea not null,
    at timestamptz not null default now(),
    resolved_at timestamptz,
    unique (node, stream, sequence, record_offset)
);

create table session (
    id bigint generated by default as identity primary key,
    nas_id integer not null references nas,
    nas_key text not null,
    acct_session_id text not null,
    life integer not null check (life > 0),
    state smallint not null check (state in (1, 2, 3)),
    service_id bigint references service,
    account_id bigint references account,
    excluded text check (excluded is null or service_id is null),
    username text not null,
    token bytea,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    stopped_at timestamptz,
    seconds bigint not null check (seconds >= 0),
    octets_in bigint not null check (octets_in >= 0),
    octets_out bigint not null check (octets_out >= 0),
    reading_at timestamptz not null,
    reading_seconds bigint not null,
    reading_in bigint not null,
    reading_out bigint not null,
    reading_gigawords boolean not null,
    reading_node text not null,
    reading_sequence bigint not null,
    reading_offset bigint not null,
    run integer not null,
    deltas integer not null check (deltas >= 0),
    terminate_cause bigint,
    estimated boolean not null default false,
    received_at timestamptz not null,
    framed_ip inet,
    framed_ipv6_prefix cidr,
    delegated_ipv6_prefix cidr,
    framed_ipv6_address inet,
    nas_ip inet,
    nas_identifier text,
    nas_port bigint,
    nas_port_id text,
    nas_port_type bigint,
    calling_station_id text,
    called_station_id text,
    unique (nas_id, nas_key, acct_session_id, life),
    check ((service_id is null) = (excluded is not null)),
    check (updated_at >= started_at)
) with (fillfactor = 80);
comment on table session is 'Octets in: from the subscriber (upload), octets out: to the subscriber. Totals equal the sum of the deltas.';
create index session_live on session (nas_id, nas_key) where state = 1;
create index session_heard on session (received_at) where state = 1;
create index session_held on session (service_id) where state = 1;
create index session_service on session (service_id, started_at desc);
create index session_username on session (username, started_at desc);
create index session_account on session (account_id, started_at);

create table usage_delta (
    session_id bigint not null references session,
    seq integer not null check (seq > 0),
    account_id bigint,
    service_id bigint,
    from_at timestamptz not null,
    to_at timestamptz not null check (to_at >= from_at),
    octets_in bigint not null check (octets_in >= 0),
    octets_out bigint not null check (octets_out >= 0),
    seconds bigint not null check (seconds >= 0),
    run integer not null,
    wrapped boolean not null default false,
    before_in bigint not null,
    before_out bigint not null,
    after_in bigint not null,
    after_out bigint not null,
    before_node text,
    before_sequence bigint,
    before_offset bigint,
    after_node text not null,
    after_sequence bigint not null,
    after_offset bigint not null,
    primary key (session_id, seq, to_at)
) partition by range (to_at);
comment on table usage_delta is 'A fact: octets and seconds between two readings of one session. Never cut, never changed.';
create index usage_delta_account on usage_delta (account_id, to_at);

create table anomaly (
    id bigint generated always as identity primary key,
    session_id bigint references session,
    nas_id integer not null references nas,
    kind text not null,
    event_at timestamptz not null,
    octets_in bigint not null,
    octets_out bigint not null,
    node text not null,
    sequence bigint not null,
    record_offset bigint not null,
    at timestamptz not null default now()
);
comment on table anomaly is 'What was odd about a record, by name. The same oddity of the same reading is named once.';
create unique index anomaly_once on anomaly (session_id, kind, event_at, octets_in, octets_out);

create table decision (
    at timestamptz not null,
    node text not null,
    sequence bigint not null,
    record_offset bigint not null,
    nas_id integer not null,
    service_id bigint,
    plan_version_id integer,
    reason smallint not null,
    method smallint not null,
    username text not null,
    calling_station_id text not null,
    nas_port text not null,
    token bytea,
    sessions_seen integer not null,
    sessions_max integer not null,
    duration_us integer not null,
    primary key (node, sequence, record_offset, at)
) partition by range (at);
create index decision_username on decision (username, at desc);
create index decision_at on decision using brin (at);
"""

MONEY = """
create table rating_queue (
    session_id bigint not null,
    seq integer not null,
    to_at timestamptz not null,
    account_id bigint not null,
    queued_at timestamptz not null default now(),
    primary key (session_id, seq)
);
comment on table rating_queue is 'Deltas that wait for the rater: written with the delta, consumed with its rated usage.';
create index rating_queue_order on rating_queue (queued_at);
create index rating_queue_account on rating_queue (account_id);

create table suspense (
    session_id bigint not null,
    seq integer not null,
    to_at timestamptz not null,
    account_id bigint not null,
    reason text not null,
    since timestamptz not null default now(),
    primary key (session_id, seq)
);
comment on table suspense is 'Usage that no tariff can rate, by name, until that is mended.';

create table cycle (
    id bigint generated always as identity primary key,
    account_id bigint not null references account,
    starts_at timestamptz not null,
    ends_at timestamptz not null check (ends_at > starts_at),
    state smallint not null default 1 check (state in (1, 2)),
    unique (account_id, starts_at),
    exclude using gist (account_id with =, tstzrange(starts_at, ends_at) with &&)
);
comment on table cycle is 'An account''s billing periods: they tile, none overlaps another.';

create table rating_run (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('live', 'bulk', 'rerate', 'dry')),
    program text not null,
    started_at timestamptz not null,
    deltas integer not null check (deltas >= 0)
);

create table usage_total (
    account_id bigint not null references account,
    cycle_id bigint not null references cycle,
    subscription_id bigint not null references subscription,
    component_id integer not null references component,
    quantity bigint not null check (quantity >= 0),
    numerator numeric not null check (numerator = trunc(numerator)),
    posted_minor bigint not null,
    primary key (account_id, cycle_id, subscription_id, component_id)
) with (fillfactor = 70);
comment on table usage_total is 'Running total of a component in a cycle: exact as numerator, and what the ledger has of it.';

create table rated_usage (
    account_id bigint not null,
    session_id bigint not null,
    seq integer not null,
    component_id integer not null,
    slice smallint not null,
    generation smallint not null,
    to_at timestamptz not null,
    cycle_id bigint not null,
    subscription_id bigint not null,
    run_id bigint not null,
    quantity bigint not null check (quantity >= 0),
    total_before bigint not null check (total_before >= 0),
    numerator numeric not null check (numerator = trunc(numerator)),
    primary key (account_id, session_id, seq, component_id, slice, generation, to_at)
) partition by range (to_at);
comment on table rated_usage is 'What a slice of a delta cost, exactly: numerator over the component''s denominator. Never rounded.';

create table cycle_due (
    subscription_id bigint primary key references subscription on delete cascade,
    due_at timestamptz not null
);
comment on table cycle_due is 'When the next cycle of a subscription is to be opened; idle accounts are found by it too.';
create index cycle_due_at on cycle_due (due_at);

create function subscription_begins() returns trigger language plpgsql as $$
begin
    insert into cycle_due (subscription_id, due_at) values (new.id, lower(new.during));
    return null;
end $$;
create trigger subscription_begins after insert on subscription for each row execute function subscription_begins();

create table charge (
    id bigint generated always as identity primary key,
    account_id bigint not null references account,
    cycle_id bigint not null references cycle,
    subscription_id bigint not null references subscription,
    component_id integer not null references component,
    amount_minor bigint not null,
    charged_at timestamptz not null default now(),
    unique (cycle_id, subscription_id, component_id)
);
comment on table charge is 'A recurring fee of one cycle: once, however often the rater looks.';

create table entry (
    id bigint generated always as identity primary key,
    account_id bigint not null references account,
    cycle_id bigint not null references cycle,
    subscription_id bigint not null references subscription,
    component_id integer not null references component,
    run_id bigint references rating_run,
    debit text not null,
    credit text not null check (credit <> debit),
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null,
    posted_at timestamptz not null default now()
);
comment on table entry is 'The ledger: each row is balanced by construction and is never edited.';
create index entry_account on entry (account_id, cycle_id);
"""

TRACE = """
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null,
    door text not null,
    ticket text,
    action text not null,
    object_kind text not null,
    object_id bigint not null,
    before jsonb,
    after jsonb
);
create index audit_object on audit (object_kind, object_id, at);

create table event (
    id bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default now(),
    kind text not null,
    object_kind text not null,
    object_id bigint not null,
    payload jsonb not null
);
comment on table event is 'Outbox of domain events, written in the transaction that makes them true.';

create table feed (
    id bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default now(),
    kind text not null check (kind in ('service', 'nas', 'plan')),
    object_id bigint not null
);
comment on table feed is 'What changed, for every node''s replica: read by snapshot, not by id, so that a late commit is not missed.';
create index feed_xid on feed (xid);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is never changed: a correction is a new row', tg_table_name
        using errcode = 'restrict_violation';
end $$;

create trigger entry_is_final before update or delete on entry for each row execute function refuse_change();
create trigger plan_version_is_final before update or delete on plan_version
    for each row execute function refuse_change();
create trigger audit_is_final before update or delete on audit for each row execute function refuse_change();
create trigger usage_delta_is_final before update on usage_delta for each row execute function refuse_change();

create function feed_changes() returns trigger language plpgsql as $$
begin
    execute format('insert into feed (kind, object_id) select distinct %L, %I from changed', tg_argv[0], tg_argv[1]);
    notify sms_aaa_feed;
    return null;
end $$;
comment on function feed_changes is 'Statement triggers: whoever changes a row, and however, the nodes hear of it.';
"""

FEEDS = [
    ("service", "service", "id"),
    ("credential", "service", "service_id"),
    ("subscription", "service", "service_id"),
    ("assignment", "service", "service_id"),
    ("nas", "nas", "id"),
    ("nas_secret", "nas", "nas_id"),
    ("plan_version", "plan", "id"),
]


def upgrade() -> None:
    for part in (PEOPLE, PLANS, USAGE, MONEY, TRACE):
        op.execute(part)
    for table, kind, key in FEEDS:
        for verb, alias in (("insert", "new"), ("update", "new"), ("delete", "old")):
            op.execute(
                f"create trigger feed_{verb} after {verb} on {table} referencing {alias} table as changed "
                f"for each statement execute function feed_changes('{kind}', '{key}')"
            )
    for table in ("usage_delta", "decision", "rated_usage"):
        op.execute(f"create table {table}_default partition of {table} default")
