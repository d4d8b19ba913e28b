"""Access: what a login is decided by, proved with, limited by and remembered as. A section a theme."""

from alembic import op

revision = "0002"
down_revision = "0001"

DECISIONS = """
alter table decision drop constraint decision_pkey;
alter table decision add column item smallint not null default 0;
alter table decision add column saw text not null default '';
comment on table decision is 'Each Access answer. Stored once because the position of its journal record moves with it: no key is kept up for it, which would cost every login.';
"""

CREDENTIALS = """
alter table credential drop constraint credential_form_check;
alter table credential add constraint credential_form_check check (form between 1 and 18);
comment on column credential.form is 'What is stored: 1 cleartext with its NT hash, 2 NT hash, 3 md5, 4 smd5, 5 sha, 6 ssha, 7 sha224, 8 ssha224, 9 sha256, 10 ssha256, 11 sha384, 12 ssha384, 13 sha512, 14 ssha512, 15 pbkdf2, 16 scrypt, 17 argon2, 18 crypt.';
comment on column credential.sealed is 'AES-GCM under the node''s key; the service id is bound in, the form is said inside.';
"""

TERMS = """
alter table service drop constraint service_state_check, add check (state in (1, 2, 3, 4));
alter table service_state drop constraint service_state_state_check, add check (state in (1, 2, 3, 4));
alter table service
    add column valid_from timestamptz(0),
    add column valid_until timestamptz(0),
    add column learns_mac_since timestamptz,
    add constraint service_validity check (valid_from < valid_until);
comment on column service.learns_mac_since is
    'A service that is bound to no MAC is bound to that of its first login since then; null: it is not.';
create index service_learns_mac on service (id) where learns_mac_since is not null;
comment on column service.valid_until is 'The first instant at which a login is refused; null: it does not end.';

create table service_binding (
    service_id bigint not null references service,
    kind smallint not null check (kind in (1, 2, 3)),
    value text not null check (octet_length(value) between 1 and 253),
    created_at timestamptz not null default now(),
    primary key (service_id, kind, value),
    check (kind <> 1 or value ~ '^[0-9a-f]{12}$'),
    check (kind <> 2 or value ~ '^[0-9]+$')
);
comment on table service_binding is
    'Whence a service may log in. 1: device by MAC, 2: NAS by id, 3: line as the NAS names it. Any of a kind will do.';
create index service_binding_value on service_binding (value);

create table realm (
    id integer generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z0-9][a-z0-9._-]{0,126}$'),
    is_stripped boolean not null,
    plan_id integer references plan,
    created_at timestamptz not null default now()
);
comment on column realm.plan_id is 'For services that are added in this realm without a plan.';

create table realm_nas (
    realm_id integer not null references realm on delete cascade,
    nas_id integer not null references nas,
    primary key (realm_id, nas_id)
);
comment on table realm_nas is 'Where a realm''s services may log in that are bound to no NAS themselves; none: anywhere.';

create index subscriber_removed on subscriber (name) where removed_at is not null;
create index decision_spelling on decision (service_id, at desc) where username ~ '\\\\|@.*[A-Z]';

alter table feed drop constraint feed_kind_check, add check (kind in ('service', 'nas', 'plan', 'realm'));
"""

TERMS_FEEDS = [
    ("service_binding", "service", "service_id"),
    ("realm", "realm", "id"),
    ("realm_nas", "realm", "realm_id"),
]

NASES = """
alter table nas
    add column observed_from timestamptz not null default date_trunc('second', now()),
    add column signs_since timestamptz;
comment on column nas.observed_from is 'From when on what it sends counts as evidence; whole seconds.';
comment on column nas.signs_since is 'When a node first saw a signed login of it: from then on the policy auto requires that.';
alter table nas_secret
    add column strength text check (strength in ('strong', 'short', 'guessable', 'uniform'));
comment on column nas_secret.strength is 'Judged when it was sealed; null: sealed before that was done.';

create table nas_evidence (
    nas_id integer not null references nas,
    node text not null,
    run bigint not null,
    since timestamptz not null,
    signed bigint not null,
    unsigned bigint not null,
    last_unsigned_at timestamptz,
    last_unsigned_port integer,
    secret_id integer not null,
    old_secret bigint not null,
    new_secret bigint not null,
    last_old_at timestamptz,
    last_new_at timestamptz,
    primary key (nas_id, node, run)
);
comment on table nas_evidence is 'Which Access-Requests were signed, and which of two secrets was proved. Run: of the node''s server; 0: its earlier ones.';

create table nas_drop (
    node text not null,
    worker text not null,
    window_at timestamptz not null,
    address text not null,
    fault text not null,
    nas_id integer,
    packets bigint not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    last_port integer not null,
    primary key (node, worker, window_at, address, fault)
);
comment on table nas_drop is 'What was dropped in silence, by source and fault. Address empty: sources beyond those that a window names.';
create index nas_drop_last on nas_drop (last_at);

create index decision_refused on decision (at) where reason <> 0;
"""

LIMITS = """
"""

PLACES = """
create table place_change (
    xid xid8 not null default pg_current_xact_id(),
    at timestamptz not null default now(),
    session_id bigint not null
);
comment on table place_change is
    'Sessions that began, ended or moved to another node, for the other nodes'' live sets; kept for minutes.';
create index place_change_xid on place_change (xid);
insert into place_change (session_id) values (0); -- no session; how far back the changes reach is seen from the oldest

create table place (
    service_id bigint not null,
    token bytea not null,
    device text not null,
    node text not null,
    until timestamptz not null,
    primary key (service_id, token)
);
comment on table place is
    'Logins under a strict limit that were let in and have no session yet. Who is online stands in session.';

create function place_device(nas_id integer, station text, port_id text, port bigint) returns text
    language sql immutable parallel safe
    return case when station <> '' then nas_id || '/s/' || station
                when port_id <> '' then nas_id || '/i/' || port_id
                when port > 0 then nas_id || '/p/' || port
                else '' end;

create function claim_places(
    services bigint[], tokens bytea[], nas_ids integer[], stations text[], port_ids text[], ports bigint[],
    maxima integer[], replacing boolean[], its_node text, seconds integer
) returns table (item integer, is_admitted boolean, seen integer) language plpgsql
    set enable_seqscan = off -- a connection keeps the plans of its first claims, which met empty tables
as $$
declare
    lock_key integer;
    own text;
begin
    -- In one order for everybody, so that two claims never wait in a circle.
    for lock_key in select distinct hashint8(s) from unnest(services) s order by 1 loop
        perform pg_advisory_xact_lock(1397642064, lock_key);
    end loop;
    for at in 1 .. cardinality(services) loop
        item := at;
        own := place_device(nas_ids[item], stations[item], port_ids[item], ports[item]);
        -- A row that is locked is being spent by a settler: nobody waits for it.
        delete from place where ctid = any(array(
            select p.ctid from place p
            where p.service_id = services[item]
              and (p.until < clock_timestamp() or p.token = tokens[item] or (own <> '' and p.device = own))
            for update skip locked));
        select count(distinct case when replacing[item] and h.device <> '' then h.device else h.login end) into seen
        from (
            select p.device, encode(p.token, 'hex') as login from place p
            where p.service_id = services[item] and p.until >= clock_timestamp()
            union all
            select place_device(s.nas_id, s.calling_station_id, s.nas_port_id, s.nas_port),
                   coalesce(encode(s.token, 'hex'), 'session ' || s.id)
            from session s where s.service_id = services[item] and s.state = 1
        ) h
        where h.login <> encode(tokens[item], 'hex') and not (replacing[item] and own <> '' and h.device = own);
        is_admitted := maxima[item] = 0 or seen < maxima[item];
        if is_admitted then
            insert into place (service_id, token, device, node, until)
            values (services[item], tokens[item], own, its_node, clock_timestamp() + make_interval(secs => seconds))
            on conflict (service_id, token) do update set until = excluded.until;
        end if;
        return next;
    end loop;
end $$;
comment on function claim_places is
    'Logins take their places one after the other, under a lock of their service. Needs READ COMMITTED.';
"""

IMPORTS = """
create table import_run (
    id bigint generated always as identity primary key,
    digest bytea not null check (octet_length(digest) = 32),
    updates boolean not null,
    actor text not null,
    octets_total bigint not null,
    octets bigint not null check (octets between 0 and octets_total),
    line bigint not null,
    added bigint not null default 0,
    updated bigint not null default 0,
    unchanged bigint not null default 0,
    rejected bigint not null default 0,
    rejects_octets bigint not null default 0,
    started_at timestamptz not null default now(),
    moved_at timestamptz not null default now(),
    finished_at timestamptz
);
comment on table import_run is 'A file of subscribers (by its SHA-256) and how far it is committed; moved by compare-and-set with the rows of a batch.';
comment on column import_run.rejects_octets is 'How long the rejects file was then: what is behind it was not committed.';
create unique index import_run_open on import_run (digest, updates) where finished_at is null;

create table import_row (
    import_id bigint not null references import_run,
    line bigint not null,
    subscriber_id bigint not null references subscriber,
    primary key (import_id, line)
);
comment on table import_row is 'Which line of which import made or changed a subscriber: a line is imported once, and a name of a file once.';
create unique index import_row_subscriber on import_row (subscriber_id, import_id);
"""

REPLICA = """
create index subscription_begins on subscription (lower(during));
create index subscription_ends on subscription (upper(during)) where not upper_inf(during);
create index assignment_begins on assignment (lower(during));
create index assignment_ends on assignment (upper(during)) where not upper_inf(during);
insert into feed (kind, object_id) values ('plan', 0);  -- whether a cursor is covered is told by the oldest row
comment on index subscription_begins is 'What begins or ends by its date alone reaches the replicas by these four.';
"""


def upgrade() -> None:
    for part in (DECISIONS, CREDENTIALS, TERMS, NASES, LIMITS, PLACES, IMPORTS, REPLICA):
        if part.strip():
            op.execute(part)
    for table, kind, key in TERMS_FEEDS:
        for verb, alias in (("insert", "new"), ("update", "new"), ("delete", "old")):
            op.execute(
                f"create trigger feed_{verb} after {verb} on {table} referencing {alias} table as changed "
                f"for each statement execute function feed_changes('{kind}', '{key}')"
            )
