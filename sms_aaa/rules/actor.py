"""Who does something: every provisioning flow takes an Actor and leaves it in the audit row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Door(StrEnum):
    """By which way somebody came in."""

    CLI = "cli"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Actor:
    """`name` as the door knows it (the login name of the terminal), `ticket` as the operator's own reference."""

    name: str
    door: Door
    ticket: str | None = None
