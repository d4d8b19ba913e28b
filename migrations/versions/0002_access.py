"""Access: what a login is decided by, proved with, limited by and remembered as. A section a theme."""

from alembic import op

revision = "0002"
down_revision = "0001"

DECISIONS = """
"""

CREDENTIALS = """
alter table credential drop constraint credential_form_check;
alter table credential add constraint credential_form_check check (form between 1 and 18);
comment on column credential.form is 'What is stored: 1 cleartext with its NT hash, 2 NT hash, 3 md5, 4 smd5, 5 sha, 6 ssha, 7 sha224, 8 ssha224, 9 sha256, 10 ssha256, 11 sha384, 12 ssha384, 13 sha512, 14 ssha512, 15 pbkdf2, 16 scrypt, 17 argon2, 18 crypt.';
comment on column credential.sealed is 'AES-GCM under the node''s key; the service id is bound in, the form is said inside.';
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
