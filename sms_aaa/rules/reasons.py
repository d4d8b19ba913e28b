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

    RATE_LIMITED = (15, "rate-limited", _UNPROVED)
    LOCKED_OUT = (16, "locked-out", _UNPROVED)
    REALM_UNKNOWN = (14, "realm-unknown", _UNPROVED)
    UNSUPPORTED_METHOD = (10, "unsupported-auth-method", _UNPROVED)
    UNKNOWN_USER = (11, "unknown-user", _UNPROVED)
    NO_CREDENTIAL = (12, "no-usable-credential", _UNPROVED)
    BAD_PASSWORD = (13, "bad-password", _UNPROVED)
    BLOCKED = (23, "blocked", "Your service is blocked. Please contact support.")
    SUSPENDED = (20, "suspended", "Your service is suspended. Please contact support.")
    NOT_YET_ACTIVE = (24, "not-yet-active", "Your service has not begun yet.")
    EXPIRED = (25, "expired", "Your service has ended.")
    NO_PLAN = (22, "no-entitlement-for-service", "No plan is assigned to your service.")
    NAS_NOT_ALLOWED = (26, "nas-not-allowed", "Your service cannot be used here.")
    PORT_MISMATCH = (27, "port-mismatch", "Your service cannot be used on this line.")
    MAC_NOT_BOUND = (28, "mac-not-bound", "Your service cannot be used with this device.")
    CONCURRENT_LIMIT = (30, "concurrent-limit", "You are already online as often as your plan allows.")
    BACKEND_UNAVAILABLE = (31, "backend-unavailable", "Please try again in a moment.")
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


UNPROVED = frozenset(reason for reason in Reason if reason.text == _UNPROVED)
"""The refusals that come before or in place of a proof of identity: to whoever asks they have to look alike."""

_BY_CODE = {reason.code: reason for reason in Reason}
