"""Why a login was let in or refused: code, label and text of a reason stand on one line.

The order is the order of precedence, and so the order of the checks in rules/access.py. Texts go to the subscriber
in Reply-Message: before the credential has been proved they are all the same, so that nobody learns which user
names exist (an unknown user and a wrong password look alike).
"""

from __future__ import annotations

from enum import Enum

_UNPROVED = "Authentication failed."


class Reason(Enum):
    """(code, label, text). The code is stored and never reused; the label is for metrics, --json and people."""

    UNSUPPORTED_METHOD = (10, "unsupported-auth-method", _UNPROVED)
    UNKNOWN_USER = (11, "unknown-user", _UNPROVED)
    NO_CREDENTIAL = (12, "no-usable-credential", _UNPROVED)
    BAD_PASSWORD = (13, "bad-password", _UNPROVED)
    SUSPENDED = (20, "suspended", "Your service is suspended. Please contact support.")
    CANCELLED = (21, "cancelled", "Your service has ended.")
    NO_PLAN = (22, "no-entitlement-for-service", "No plan is assigned to your service.")
    CONCURRENT_LIMIT = (30, "concurrent-limit", "You are already online as often as your plan allows.")
    ACCEPTED = (0, "accepted", "")

    def __init__(self, code: int, label: str, text: str) -> None:
        self.code = code
        self.label = label
        self.text = text

    @classmethod
    def by_code(cls, code: int) -> Reason:
        """The reason of a stored code; ValueError if this program never had it."""
        found = _BY_CODE.get(code)
        if found is None:
            raise ValueError(f"no reason has code {code}")
        return found


_BY_CODE = {reason.code: reason for reason in Reason}
