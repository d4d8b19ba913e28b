"""Access: what a login is decided by, proved with, limited by and remembered as. A section a theme."""

from alembic import op

revision = "0002"
down_revision = "0001"

DECISIONS = """
"""

CREDENTIALS = """
"""

TERMS = """
"""

NASES = """
"""

LIMITS = """
"""

PLACES = """
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
"""


def upgrade() -> None:
    for part in (DECISIONS, CREDENTIALS, TERMS, NASES, LIMITS, PLACES, IMPORTS, REPLICA):
        if part.strip():
            op.execute(part)
