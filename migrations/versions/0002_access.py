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
"""

REPLICA = """
"""


def upgrade() -> None:
    for part in (DECISIONS, CREDENTIALS, TERMS, NASES, LIMITS, PLACES, IMPORTS, REPLICA):
        if part.strip():
            op.execute(part)
