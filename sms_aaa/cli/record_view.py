"""A journal record on the screen: for people with all that it says, for programs by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sms_aaa.cli.output import Cell, heading, say

if TYPE_CHECKING:
    from sms_aaa.flows.reading_records import ReadRecord

RECORD_COLUMNS = (
    "at", "stream", "place", "nas", "source", "status", "username", "session", "fault", "octets",
)  # fmt: skip


def show_record(one: ReadRecord, names: dict[int, str], *, raw: bool) -> None:
    """A record for people, with all that it says."""
    at = f"{one.at:%Y-%m-%d %H:%M:%S.%f}Z" if one.at is not None else "at a time unknown"
    nas = _nas_text(one, names)
    heading(" ".join(f"{at}  {one.status or one.fault}  {one.username} {nas}".split(" ")).rstrip())
    say(f"  {one.stream.name.lower()} {one.sequence}:{one.offset}{f', from {one.source}' if one.source else ''}")
    for name, value in one.attributes:
        say(f"  {name} = {value}")
    if one.octets and (raw or one.fault is not None):
        say(f"  0x{one.octets}")


def _nas_text(one: ReadRecord, names: dict[int, str]) -> str:
    return f"on {names.get(one.nas_id, f'NAS {one.nas_id}')}" if one.nas_id else ""


def record_cells(one: ReadRecord, names: dict[int, str]) -> tuple[Cell, ...]:
    """By column."""
    return (
        one.at, one.stream.name.lower(), f"{one.sequence}:{one.offset}", names.get(one.nas_id), one.source or None,
        one.status or None, one.username, one.session or None, one.fault, one.octets or None,
    )  # fmt: skip


def record_document(one: ReadRecord, names: dict[int, str], *, raw: bool) -> dict[str, object]:
    """For programs: the columns, and every attribute."""
    cells = dict(zip(RECORD_COLUMNS, record_cells(one, names), strict=True))
    if not raw:
        del cells["octets"]
    attributes = [{"name": name, "value": value} for name, value in one.attributes]
    return {**cells, "attributes": attributes}
