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
"""

REPLICA = """
create index subscription_begins on subscription (lower(during));
create index subscription_ends on subscription (upper(during)) where not upper_inf(during);
create index assignment_begins on assignment (lower(during));
create index assignment_ends on assignment (upper(during)) where not upper_inf(during);
comment on index subscription_begins is 'What begins or ends by its date alone reaches the replicas by these four.';
"""


def upgrade() -> None:
    for part in (DECISIONS, CREDENTIALS, TERMS, NASES, LIMITS, PLACES, IMPORTS, REPLICA):
        if part.strip():
            op.execute(part)
