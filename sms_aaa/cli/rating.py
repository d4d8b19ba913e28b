"""`sms-aaa rating`: how usage becomes money: how far it is, rating again, trying a tariff, usage that waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.options import confirm, listing_options, parse_instant, ticket_option, yes_option
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, money, octets, say, seconds
from sms_aaa.cli.rating_dry import dry_run
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.db.engine import Connection
    from sms_aaa.flows.rerating import Rerated
    from sms_aaa.rules.actor import Actor

RUNS_SHOWN = 5
DIRTY_SHOWN = 20
STATEMENT_TIMEOUT_SECONDS = 3600
_SECOND = timedelta(seconds=1)
_REMEDIES = {
    "no-subscription": "give its service a plan: it is rated within a minute",
    "implausible-times": "mend the clock of its NAS; such usage stays unrated",
    "refused": "see the rater's log and PostgreSQL's, mend that, then retry",
}
_MOVED_COLUMNS = ("account_id", "cycle_id", "subscription_id", "component_id", "before", "after", "difference")
_PAID_COLUMNS = ("account_id", "bucket_id", "paid")


@click.group(cls=Verbs)
def rating() -> None:
    """How usage becomes money. The rater does it by itself; here it is seen, repeated and tried.

    Example: sms-aaa rating status
    """


@rating.command()
@listing_options
@pass_caller
def status(caller: Caller, form: Format) -> None:
    """Show how much usage waits, what is in suspense, which groups are to be rated again, and the last runs.

    Example: sms-aaa rating status --json
    """
    from sms_aaa.db.rating_queue import queue_length
    from sms_aaa.db.rating_state import list_dirty, list_runs
    from sms_aaa.db.suspense import count_suspense

    with caller.connect() as connection:
        waiting, since = queue_length(connection)
        suspense = count_suspense(connection)
        dirty = list_dirty(connection, limit=DIRTY_SHOWN)
        runs = list_runs(connection, limit=RUNS_SHOWN)
    lag = max((datetime.now(UTC) - since) // _SECOND, 0) if since is not None else 0
    told: dict[str, Cell] = {
        "waiting": waiting,
        "oldest_waits_seconds": seconds(lag),
        "in_suspense": sum(count for _, count in suspense),
        "dirty_groups": len(dirty),
    }
    reasons: list[dict[str, Cell]] = [dict(zip(("reason", "deltas"), row, strict=True)) for row in suspense]
    groups: list[dict[str, Cell]] = [
        {"account_id": one.head_account_id, "subscriber": one.subscriber, "from_at": one.from_at, "since": one.since,
         "reason": one.reason}
        for one in dirty
    ]  # fmt: skip
    done: list[dict[str, Cell]] = [
        {"run": one.id, "kind": one.kind, "program": one.program, "started_at": one.started_at, "deltas": one.deltas}
        for one in runs
    ]
    if form is Format.JSON:
        document({**told, "suspense": reasons, "dirty": groups, "runs": done})
        return
    facts(told, form)
    if form is Format.CSV:
        return
    for title, rows in (("suspense", reasons), ("to be rated again", groups), ("last runs", done)):
        if rows:
            heading(title)
            listing(tuple(rows[0]), [tuple(row.values()) for row in rows], form)


@rating.command()
@click.argument("name")
@click.option("--from", "start", metavar="TIME", help="Slices that end then or later; else all of the open cycles.")
@click.option("--dry-run", is_flag=True, help="Show what would move, and write nothing.")
@yes_option
@ticket_option
@listing_options
@pass_caller
def rerate(
    caller: Caller, name: str, start: str | None, ticket: str | None, form: Format, *, dry_run: bool, yes: bool
) -> None:
    """Rate the open cycles of a subscriber's accounts again, with the charging groups that they are in.

    What comes out otherwise is written as a new generation, and totals, buckets and the ledger move by the difference:
    nothing, if the rater did its work. Closed cycles stay. From an instant on means: to the end, as usage before
    changes what usage after it costs.

    Example: sms-aaa rating rerate alice --dry-run
    """
    with caller.connect(statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS) as connection:
        heads, zone = _heads(connection, name)
        since = parse_instant(start, zone, option="--from") if start is not None else None
        if not dry_run:
            confirm(f"{name}'s open cycles are rated again, and the ledger moves by what differs. Rate?", yes=yes)
        done = _rerate(connection, heads, since, caller.actor(ticket))
        if dry_run:
            connection.rollback()
    _tell(done, form, dry_run=dry_run)


rating.add_command(dry_run)


@rating.group(cls=Verbs)
def suspense() -> None:
    """Usage that no tariff could rate: it waits by name, and is rated once that is mended.

    Example: sms-aaa rating suspense list
    """


@suspense.command("list")
@click.option("--reason", metavar="REASON", help="With this reason.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The newest so many.")
@listing_options
@pass_caller
def list_suspended(caller: Caller, reason: str | None, limit: int, form: Format) -> None:
    """List usage in suspense, the newest first, with its reason and what helps.

    Example: sms-aaa rating suspense list --reason no-subscription
    """
    from sms_aaa.db.suspense import count_suspense, list_suspense

    with caller.connect() as connection:
        rows = list_suspense(connection, reason=reason, limit=limit)
        counts = count_suspense(connection)
    columns = (
        "session_id", "seq", "account_id", "subscriber", "reason", "since", "from_at", "to_at", "octets_up",
        "octets_down", "seconds",
    )  # fmt: skip
    cells: list[tuple[Cell, ...]] = [
        (
            row.session_id, row.seq, row.account_id, row.subscriber, row.reason, row.since, row.from_at, row.to_at,
            octets(row.octets_in), octets(row.octets_out), seconds(row.seconds),
        )
        for row in rows
    ]  # fmt: skip
    listing(columns, cells, form, empty="nothing is in suspense")
    if form is Format.TABLE and counts:
        say()
        for kind, count in counts:
            say(f"{kind}: {count}; {_REMEDIES.get(kind.partition(':')[0], 'see the log of the rater')}")


@suspense.command()
@click.option("--reason", metavar="REASON", help="Every one with this reason.")
@click.option("--all", "every", is_flag=True, help="Every one.")
@yes_option
@ticket_option
@listing_options
@pass_caller
def retry(caller: Caller, reason: str | None, ticket: str | None, form: Format, *, every: bool, yes: bool) -> None:
    """Queue usage again that can be rated by now; the rater takes it within seconds. What cannot be stays.

    The exit code is 1 when some stays.

    Example: sms-aaa rating suspense retry --reason "refused: CheckViolation"
    """
    from sms_aaa.flows.suspense import retry_suspense

    if (reason is not None) == every:
        raise click.UsageError("say which: --reason or --all.")
    confirm("What can be rated by now is queued for the rater. Retry?", yes=yes)
    with caller.connect() as connection:
        done = retry_suspense(connection, reason=reason, now=datetime.now(UTC), actor=caller.actor(ticket))
    names = sorted({*done.queued, *done.left})
    rows = [(name, done.queued.get(name, 0), done.left.get(name, 0)) for name in names]
    listing(("reason", "queued", "left"), rows, form, empty="nothing is in suspense")
    if done.left:
        raise click.exceptions.Exit(Exit.DIFFERENT)


def _heads(connection: Connection, name: str) -> tuple[list[int], str]:
    """The heads of the charging groups of a subscriber's accounts, and the zone of one of them."""
    from sms_aaa.db.charging import list_heads_of
    from sms_aaa.flows.provisioning.subscribers import get_subscriber

    accounts = {row.account_id: row.zone or "UTC" for row in get_subscriber(connection, name) if row.account_id}
    if not accounts:
        raise Failure(Exit.NOT_FOUND, f"{name} has no account", "see `sms-aaa subscriber show`")
    return list_heads_of(connection, accounts), next(iter(accounts.values()))


def _rerate(connection: Connection, heads: list[int], since: datetime | None, actor: Actor) -> list[Rerated]:
    from sms_aaa.flows.rerating import rerate_group
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.instants import INSTANT_MIN, instant_us

    since_us = INSTANT_MIN if since is None else instant_us(since)
    shelf = PlanShelf()
    return [
        rerate_group(connection, shelf, head, since_us=since_us, now=datetime.now(UTC), actor=actor) for head in heads
    ]


def _tell(done: list[Rerated], form: Format, *, dry_run: bool) -> None:
    rows: list[tuple[Cell, ...]] = [
        (
            key.account_id, key.cycle_id, key.subscription_id, key.component_id, money(before, currency),
            money(after, currency), money(after - before, currency),
        )
        for one in done
        for key, currency, before, after in one.moved
    ]  # fmt: skip
    paid: list[tuple[Cell, ...]] = [
        (account_id, bucket_id, money(amount_minor, currency))
        for one in done
        for account_id, bucket_id, currency, amount_minor in one.paid
    ]
    deltas, written = sum(one.deltas for one in done), sum(one.rows for one in done)
    if form is Format.JSON:
        document({
            "dry_run": dry_run,
            "deltas": deltas,
            "rows": written,
            "moved": [dict(zip(_MOVED_COLUMNS, row, strict=True)) for row in rows],
            "paid": [dict(zip(_PAID_COLUMNS, row, strict=True)) for row in paid],
        })  # fmt: skip
        return
    listing(_MOVED_COLUMNS, rows, form, empty="no amount differs")
    if form is Format.TABLE:
        would = "would be" if dry_run else "were"
        say(f"{deltas} deltas looked at, {written} rated rows {would} written anew")
        if paid:
            heading(f"what was owed and {would} paid by money buckets")
            listing(_PAID_COLUMNS, paid, form)
