"""What can go wrong, and what is right then: the table that the auditor holds the server to. Read this first.

The rule behind all rows. A *reading* is what a NAS said of one session's counters. Of the readings that arrived, taken
in their true order, every octet between two of one counter run is counted once; of a new run, what its readings say.
Nothing is counted that was not used. What could not be counted although a record spoke of it is named in an anomaly.
Each true session of which anything arrived is one life, and each life is one true session. An anomaly that no row
below allows is a fault of the server.

None of this depends on the order of arrival. Only the name does: what a late reading brings to light is a late reading,
not the reset that it would have been in time. And where a late reading shows that a fall was taken for another one than
it was, what was counted stays, and the reading is named stale.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

LATE = "late-reading"
CLOCK, WRAP, RESET, SLIP = "nas-clock", "counter-wrap", "counter-reset", "counter-slip"
STALE, UNKNOWN, READDRESSED = "stale-reading", "unknown-service", "re-addressed"


class Fault(Enum):
    # Of the NAS: world.py
    CLOCK_1970 = auto()
    CLOCK_AHEAD = auto()
    CLOCK_BEHIND = auto()
    CLOCK_DRIFTING = auto()
    CLOCK_SET = auto()
    NO_TIMESTAMP = auto()
    NO_SESSION_TIME = auto()
    NO_GIGAWORDS = auto()
    NO_CLASS = auto()
    SHARED_PREFIX = auto()
    ID_AGAIN = auto()
    COUNTER_WRAP = auto()
    COUNTER_RESET = auto()
    COUNTER_SLIP = auto()
    REBOOT = auto()
    REBOOT_OFF = auto()
    REBOOT_IN_WORD = auto()
    SILENT_DEATH = auto()
    RELOGIN = auto()
    MULTILINK = auto()
    STRANGER = auto()
    NO_SESSION_ID = auto()
    IMPLAUSIBLE = auto()
    UNKNOWN_STATUS = auto()
    # Of the network: network.py
    LOST = auto()
    DUPLICATED = auto()
    DELAYED = auto()
    ANSWER_LOST = auto()
    FAILED_OVER = auto()
    HELD_BACK = auto()
    BACKLOG = auto()
    # Of the server: through_daemon.py
    WORKER_KILLED = auto()
    SETTLER_KILLED = auto()
    NODE_KILLED = auto()
    POSTGRES_STOPPED = auto()
    DISK_FULL = auto()
    # Both
    SILENCE = auto()


@dataclass(frozen=True, slots=True)
class Right:
    """What is right: in words; names that must or may stand there because of it.

    `must`: the auditor works out for each session whether it could be seen in what arrived; if so it must be named.
    """

    outcome: str
    must: str | None = None
    may: tuple[str, ...] = ()


_NOTHING = "changes nothing"

RIGHT = {
    Fault.CLOCK_1970: Right("dated by receipt and Acct-Delay-Time; octets as ever", must=CLOCK),
    Fault.CLOCK_AHEAD: Right("dated by receipt and Acct-Delay-Time; octets as ever", must=CLOCK),
    Fault.CLOCK_BEHIND: Right("believed within seven days: times are the NAS's, octets as ever", may=(CLOCK,)),
    Fault.CLOCK_DRIFTING: Right("believed: times are the NAS's, octets as ever", may=(CLOCK,)),
    Fault.CLOCK_SET: Right(
        "one life through it, octets as ever; named if set on by more than the session lasted", must=CLOCK
    ),
    Fault.NO_TIMESTAMP: Right("dated by receipt and Acct-Delay-Time; octets as ever"),
    Fault.NO_SESSION_TIME: Right(
        "ordered by event times; octets as ever, but a counter that begins anew where an earlier record stood is taken "
        "for a repetition of that one"
    ),
    Fault.NO_GIGAWORDS: Right("octets as ever until 32 bits are full"),
    Fault.NO_CLASS: Right("the service is found by its user name"),
    Fault.SHARED_PREFIX: Right("boxes of one prefix with equal Acct-Session-Ids stay apart by NAS-Identifier"),
    Fault.ID_AGAIN: Right("another life, whether or not the Stop of the one before came, and in any order"),
    Fault.COUNTER_WRAP: Right(
        "counted on where a counter wrapped once, from the upper half of 32 bits into the lower; another fall is "
        "anything, and never counts more than was used",
        must=WRAP,
        may=(LATE, STALE, RESET, SLIP),
    ),
    Fault.COUNTER_RESET: Right(
        "counted from zero where a fall is seen that is more than a slip. Lost: what stood on the counters between the "
        "last reading that arrived and the reset, and where the next reading is no lower, as much again. Where it "
        "seemed a slip until a late record showed the reset, up to a 64th is counted too much, under both names",
        must=RESET,
        may=(LATE, STALE, SLIP),
    ),
    Fault.COUNTER_SLIP: Right("not counted, nor is what makes up for it", must=SLIP, may=(LATE, STALE, RESET)),
    Fault.REBOOT: Right("ends what began before it, at its last update, as an estimate; late records still count"),
    Fault.REBOOT_OFF: Right("as REBOOT; a Stop that comes as well wins"),
    Fault.REBOOT_IN_WORD: Right("the same lives go on with the next record"),
    Fault.SILENT_DEATH: Right("ends at the last update, as an estimate, when its silence has lasted long enough"),
    Fault.RELOGIN: Right("the same life, under the new login from then on", may=(READDRESSED,)),
    Fault.MULTILINK: Right("each link is a life with its own counters, of the one service"),
    Fault.STRANGER: Right("kept, counted, excluded by name", must=UNKNOWN),
    Fault.NO_SESSION_ID: Right("quarantined as no-acct-session-id; the others go on"),
    Fault.IMPLAUSIBLE: Right("quarantined as implausible-counters; the next reading counts what it would have"),
    Fault.UNKNOWN_STATUS: Right("answered, on record in the journal, and nothing else"),
    Fault.LOST: Right("what the next reading of the run tells is counted then; what none tells is not"),
    Fault.DUPLICATED: Right(_NOTHING),
    Fault.DELAYED: Right(_NOTHING),
    Fault.ANSWER_LOST: Right("comes again with a new Identifier and a grown Acct-Delay-Time; " + _NOTHING),
    Fault.FAILED_OVER: Right("settled from two journals in no order; " + _NOTHING),
    Fault.HELD_BACK: Right("counted when it comes, at its own time"),
    Fault.BACKLOG: Right("counted when the journal is settled"),
    Fault.WORKER_KILLED: Right("what was answered is there; what was not is asked again"),
    Fault.SETTLER_KILLED: Right(_NOTHING),
    Fault.NODE_KILLED: Right("what was answered is there; what was not is asked again"),
    Fault.POSTGRES_STOPPED: Right("answered all the same, counted afterwards"),
    Fault.DISK_FULL: Right("not answered while it lasts, then answered and counted"),
    Fault.SILENCE: Right("open sessions end softly; a newer record opens the same life again"),
}
assert RIGHT.keys() == set(Fault), "for every fault it is written what is right"


def allowed_names(faults: set[Fault]) -> set[str]:
    """The anomalies that these faults of a session and its NAS explain."""
    return {name for fault in faults for name in (RIGHT[fault].must, *RIGHT[fault].may) if name is not None}
