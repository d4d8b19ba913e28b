"""Accounting: sessions that are cheap to keep up and easy to find for years, usage by hour and day. A section a theme."""

from alembic import op

revision = "0003"
down_revision = "0002"

FACTS = """
"""

SETTLING = """
alter table usage_delta drop constraint usage_delta_session_id_fkey;
alter table anomaly drop constraint anomaly_session_id_fkey;
comment on column usage_delta.session_id is 'In session, or in session_history once it was moved there; `reconcile` proves it.';
alter table session add column version integer not null default 1;
comment on column session.version is 'Counted up by whoever changes the row: a settler that has it in memory sees whether it still knows it.';
-- An interim changes nothing that an index has, so its row stays in its page (HOT) as long as there is room: half of it.
-- The check for silent sessions reads the open ones instead of an index that every interim would have to move in.
alter table session set (fillfactor = 50);
drop index session_heard;
-- Services tell their accounts: nobody asks for sessions by account.
drop index session_account;
-- Services, accounts and NASes are never deleted; to look for each at each new session costs more than to store it.
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

create table session_boundary (before timestamptz not null);
comment on table session_boundary is 'One row: what ended before it may have been moved to the history. Moves with what is moved.';
insert into session_boundary values ('-infinity');

create view session_all as select * from session union all select * from session_history;
comment on view session_all is 'Every session there is: what is asked for by people is asked for here.';
"""

PORT_BLOCKS = """
"""

JOURNAL = """
"""

QUEUE = """
"""


def upgrade() -> None:
    for part in (FACTS, SETTLING, ROLLUPS, HISTORY, PORT_BLOCKS, JOURNAL, QUEUE):
        if part.strip():
            op.execute(part)
