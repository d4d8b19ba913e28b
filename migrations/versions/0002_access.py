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
"""


def upgrade() -> None:
    for part in (DECISIONS, CREDENTIALS, TERMS, NASES, LIMITS, PLACES, IMPORTS, REPLICA):
        if part.strip():
            op.execute(part)
