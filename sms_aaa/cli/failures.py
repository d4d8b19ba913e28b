"""What goes wrong below becomes an exit code and one line: no traceback, no secret.

Imported only when something went wrong, since it knows the exceptions of every room.
"""

from __future__ import annotations

import traceback

from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.config import SettingsError
from sms_aaa.db.engine import Conflict, Misfit, Unavailable
from sms_aaa.flows.provisioning.desk import Invalid, Refused, RefusedKind
from sms_aaa.rules.plan_table import PlanInvalidError
from sms_aaa.server.postgres import PostgresError


def failure_of(error: Exception) -> Failure:
    """The failure that tells the user of an error; one that nobody expected is a bug, named by its place alone."""
    if isinstance(error, Refused):
        code = Exit.NOT_FOUND if error.kind is RefusedKind.NOT_FOUND else Exit.CONFLICT
        return Failure(code, error.reason, error.remedy)
    if isinstance(error, Invalid | PlanInvalidError | SettingsError):
        return Failure(Exit.INVALID, f"{error.place}: {error.reason}", error.remedy)
    if isinstance(error, PostgresError):
        return Failure(Exit.UNAVAILABLE, error.reason, error.remedy)
    return _of_database(error) or _of_system(error) or _of_bug(error)


def _of_database(error: Exception) -> Failure | None:
    if isinstance(error, Conflict):
        return Failure(Exit.CONFLICT, "somebody changed the same thing meanwhile", "try again")
    if isinstance(error, Unavailable):
        said = str(error).strip().partition("\n")[0]
        return Failure(Exit.UNAVAILABLE, f"the database: {said}", "try again when it is there")
    if isinstance(error, Misfit):
        return Failure(
            Exit.UNAVAILABLE, f"the database cannot be used as it is ({type(error).__name__})", "see `sms-aaa db check`"
        )
    return None


def _of_system(error: Exception) -> Failure | None:
    if not isinstance(error, OSError):
        return None
    place = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or type(error).__name__
    return Failure(Exit.UNAVAILABLE, f"{place}{reason}", "run it as the user that the daemon runs as")


def _of_bug(error: Exception) -> Failure:
    # The text of an error may quote what it stumbled over; its place cannot.
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "an unknown place"
    return Failure(Exit.BUG, f"this is a bug: {type(error).__name__} at {place}", "please report it with this line")
