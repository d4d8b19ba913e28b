"""`sms-aaa bucket`: amounts that are used before usage costs anything, and what sessions hold of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sms_aaa.cli.bucket_amounts import read_amount, read_quantity
from sms_aaa.cli.bucket_cells import bucket_cells, quantity_cell
from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.options import (
    confirm,
    listing_options,
    parse_duration,
    parse_instant,
    ticket_option,
    yes_option,
)
from sms_aaa.cli.output import Cell, Format, document, facts, heading, listing, money, say
from sms_aaa.cli.verbs import Verbs

if TYPE_CHECKING:
    from sms_aaa.flows.provisioning.buckets import ToGrant
    from sms_aaa.rules.buckets import BucketKind

_MEASURES = ("upload", "download", "total", "seconds", "events", "units")
_TABLE_COLUMNS = ("id", "subscriber", "name", "kind", "priority", "until", "granted", "used", "reserved", "left")
_ENTRY_COLUMNS = ("id", "at", "kind", "quantity", "run", "reservation")
_HOLD_COLUMNS = ("session", "account", "quantity", "expires_at")

_measure = click.option(
    "--measure", type=click.Choice(_MEASURES), default="total", show_default=True, help="What the quantity counts."
)
_session = click.option(
    "--session", required=True, metavar="NAME", help="A session's id, whose usage uses the hold; or any other name."
)


@click.group(cls=Verbs)
def bucket() -> None:
    """What may be used before usage costs anything: allowances, top-ups, promotions, rollover; of volume or of money.

    Example: sms-aaa bucket list alice
    """


@bucket.command("list")
@click.argument("name", required=False)
@click.option("--all", "also_closed", is_flag=True, help="Those that are closed, too.")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=1000, show_default=True, help="The first so many.")
@listing_options
@pass_caller
def list_(caller: Caller, name: str | None, *, also_closed: bool, limit: int, form: Format) -> None:
    """List buckets in the order of use: a subscriber's, with those that its group shares; or everybody's.

    Example: sms-aaa bucket list alice
    """
    from sms_aaa.db.buckets import list_buckets
    from sms_aaa.flows.provisioning.accounts import get_account

    with caller.connect() as connection:
        accounts = [get_account(connection, name).id] if name is not None else []
        rows = list_buckets(connection, accounts, also_closed=also_closed, limit=limit)
    cells = [bucket_cells(row) for row in rows]
    columns = _TABLE_COLUMNS if form is Format.TABLE or not cells else tuple(cells[0])
    listing(columns, [[known[column] for column in columns] for known in cells], form, empty="no bucket")


@bucket.command()
@click.argument("bucket_id", metavar="ID", type=int)
@listing_options
@pass_caller
def show(caller: Caller, bucket_id: int, form: Format) -> None:
    """Show a bucket with its entries, whose sums its figures are, and who holds of it. CSV: the entries.

    Example: sms-aaa bucket show 17
    """
    from sms_aaa.db.buckets import list_entries
    from sms_aaa.db.reservations import list_reservations
    from sms_aaa.flows.provisioning.buckets import get_bucket

    with caller.connect() as connection:
        row = get_bucket(connection, bucket_id)
        entries = list_entries(connection, bucket_id)
        held = list_reservations(connection, account_id=None, bucket_ids=[bucket_id])
    rows: list[list[Cell]] = [
        [entry.id, entry.at, entry.kind, quantity_cell(row, entry.quantity), entry.run_id, entry.reservation_id]
        for entry in entries
    ]
    holds: list[list[Cell]] = [
        [one.session, one.account_id, quantity_cell(row, one.quantity), one.expires_at] for one in held
    ]
    if form is Format.JSON:
        document(
            {
                **bucket_cells(row),
                "entries": [dict(zip(_ENTRY_COLUMNS, cells, strict=True)) for cells in rows],
                "reservations": [dict(zip(_HOLD_COLUMNS, cells, strict=True)) for cells in holds],
            }
        )
        return
    if form is Format.CSV:
        listing(_ENTRY_COLUMNS, rows, form)
        return
    facts(bucket_cells(row), form)
    heading("entries")
    listing(_ENTRY_COLUMNS, rows, form)
    if holds:
        heading("held")
        listing(_HOLD_COLUMNS, holds, form)


@bucket.command()
@click.argument("name")
@click.argument("quantity", metavar="QUANTITY")
@_measure
@click.option("--money", "is_money", is_flag=True, help="QUANTITY is an amount such as 10.00; it pays for anything.")
@click.option("--as", "bucket_name", default="gift", show_default=True, metavar="NAME", help="What it is called.")
@click.option("--priority", type=click.IntRange(0, 10**6), default=100, show_default=True, help="Lower is used first.")
@click.option("--component", "components", multiple=True, metavar="NAME", help="It is for these prices only.")
@click.option("--shared", is_flag=True, help="The whole charging group may use it.")
@click.option("--from", "from_text", metavar="TIME", help="When it begins; else now.")
@click.option("--until", metavar="TIME", help="When it ends; else --valid says so, else never.")
@click.option("--valid", metavar="DURATION", help="How long it lasts, such as 30d.")
@ticket_option
@pass_caller
def grant(
    caller: Caller,
    name: str,
    quantity: str,
    *,
    measure: str,
    is_money: bool,
    bucket_name: str,
    priority: int,
    components: tuple[str, ...],
    shared: bool,
    from_text: str | None,
    until: str | None,
    valid: str | None,
    ticket: str | None,
) -> None:
    """Give a subscriber a bucket, of a volume, a time, a count or money. Usage since --from is rated again.

    Example: sms-aaa bucket grant alice "5 GB" --valid 30d --ticket T-7
    """
    from sms_aaa.flows.provisioning.buckets import grant_bucket
    from sms_aaa.rules.buckets import BucketKind

    now = datetime.now(UTC)
    zone = caller.settings.rating.zone
    from_at = parse_instant(from_text, zone, option="--from") if from_text is not None else now
    new = _to_grant(
        name, quantity, measure=None if is_money else measure, kind=BucketKind.PROMOTION, bucket_name=bucket_name,
        priority=priority, components=components, is_shared=shared, from_at=from_at,
        until_at=_until(until, valid, from_at, zone),
    )  # fmt: skip
    with caller.connect() as connection:
        bucket_id = grant_bucket(caller.desk(connection, ticket), new, now=now)
    say(f"bucket {bucket_id} granted to {name}")


@bucket.command("top-up")
@click.argument("name")
@click.argument("quantity", metavar="AMOUNT")
@click.option(
    "--measure", type=click.Choice(_MEASURES), help="AMOUNT is not money but a quantity of this, such as 5 GB."
)
@click.option("--credit", is_flag=True, help="The money is no bucket, but the customer's credit.")
@click.option("--as", "bucket_name", default="top-up", show_default=True, metavar="NAME", help="What it is called.")
@click.option("--until", metavar="TIME", help="When it ends; else --valid says so, else never.")
@click.option("--valid", metavar="DURATION", help="How long it lasts, such as 90d.")
@click.option("--note", default="", metavar="TEXT", help="Kept with the ledger's entry of a --credit.")
@yes_option
@ticket_option
@pass_caller
def top_up(
    caller: Caller,
    name: str,
    quantity: str,
    *,
    measure: str | None,
    credit: bool,
    bucket_name: str,
    until: str | None,
    valid: str | None,
    note: str,
    yes: bool,
    ticket: str | None,
) -> None:
    """Take money that came in: cash, and a bucket that pays for usage (deferred revenue), or the customer's credit.

    With --measure a volume that was paid for elsewhere: the ledger is not touched.

    Example: sms-aaa bucket top-up alice 10.00 --valid 90d
    """
    from sms_aaa.flows.provisioning.accounts import get_account
    from sms_aaa.flows.provisioning.buckets import take_payment
    from sms_aaa.flows.provisioning.buckets import top_up as top_up_bucket
    from sms_aaa.rules.buckets import BucketKind

    if credit and (measure is not None or until is not None or valid is not None):
        raise click.UsageError("--credit excludes --measure, --until and --valid: it is money, and does not end.")
    now = datetime.now(UTC)
    zone = caller.settings.rating.zone
    new = _to_grant(
        name, quantity, measure=measure, kind=BucketKind.TOP_UP, bucket_name=bucket_name, priority=100,
        components=(), is_shared=False, from_at=now, until_at=_until(until, valid, now, zone),
    )  # fmt: skip
    with caller.connect() as connection:
        currency = get_account(connection, name).currency
        connection.commit()  # nothing stays locked while somebody thinks
        if measure is None:
            confirm(f"{quantity} {currency} of {name} go into the ledger as cash, for good. Post?", yes=yes)
        desk = caller.desk(connection, ticket)
        if credit:
            amount_minor = take_payment(desk, name, read_amount(quantity, place="AMOUNT"), note)
            say(f"{money(amount_minor, currency).text} are credit of {name}")
        else:
            say(f"bucket {top_up_bucket(desk, new, now=now)} granted to {name}")


@bucket.command()
@click.argument("bucket_id", metavar="ID", type=int)
@yes_option
@ticket_option
@pass_caller
def expire(caller: Caller, bucket_id: int, *, yes: bool, ticket: str | None) -> None:
    """End a bucket now: what is left of it is lost, and does not roll over; what is held of it is given back.

    Example: sms-aaa bucket expire 17 --ticket T-8
    """
    from sms_aaa.flows.provisioning.buckets import end_bucket, get_bucket

    with caller.connect() as connection:
        row = get_bucket(connection, bucket_id)
        connection.commit()
        left = quantity_cell(row, row.granted - row.used).text
        confirm(
            f"Bucket {bucket_id} ({row.name} of {row.subscriber}) has {left} left, which are lost. End it?", yes=yes
        )
        end_bucket(caller.desk(connection, ticket), bucket_id, now=datetime.now(UTC))
    say(f"bucket {bucket_id} ended")


@bucket.command()
@click.argument("name")
@_session
@click.option("--quantity", required=True, metavar="QUANTITY", help='How much it asks for, such as "100 MB".')
@_measure
@click.option("--key", default="default", show_default=True, metavar="NAME", help="The rating key of its usage.")
@click.option("--lasts", default="1h", show_default=True, metavar="DURATION", help="How long all that it holds lasts.")
@listing_options
@pass_caller
def reserve(
    caller: Caller, name: str, *, session: str, quantity: str, measure: str, key: str, lasts: str, form: Format
) -> None:
    """Promise a session usage, of buckets and then of money; a second time adds to what it holds.

    Example: sms-aaa bucket reserve alice --session 4711 --quantity "100 MB"
    """
    from sms_aaa.flows.provisioning.accounts import get_account
    from sms_aaa.flows.provisioning.desk import Refused, RefusedKind
    from sms_aaa.flows.reserving import Asked, NoTariff
    from sms_aaa.flows.reserving import reserve as reserve_quantity
    from sms_aaa.flows.shelf import PlanShelf
    from sms_aaa.rules.measure import Measure

    counted = Measure(measure)
    asked_for = read_quantity(quantity, counted, place="--quantity")
    seconds = parse_duration(lasts, option="--lasts")
    with caller.connect() as connection:
        account = get_account(connection, name)
        asked = Asked(
            account_id=account.id, session=session, measure=counted, quantity=asked_for,
            lasts=timedelta(seconds=seconds), key=key,
        )  # fmt: skip
        made = reserve_quantity(connection, PlanShelf(), asked, now=datetime.now(UTC))
        if isinstance(made, NoTariff):
            raise Refused(RefusedKind.CONFLICT, made.reason, "see `sms-aaa subscriber show`")
    facts(
        {
            "session": session,
            "asked": asked_for,
            "granted": made.granted,
            "final": made.granted < asked_for,
            "buckets": ", ".join(f"{hold.bucket_id}: {hold.quantity}" for hold in made.holds) or None,
            "owed_picounits": made.owed_picounits,
        },
        form,
    )


@bucket.command()
@click.argument("name")
@_session
@listing_options
@pass_caller
def release(caller: Caller, name: str, *, session: str, form: Format) -> None:
    """Give back all that a session holds.

    Example: sms-aaa bucket release alice --session 4711
    """
    from sms_aaa.flows.provisioning.accounts import get_account
    from sms_aaa.flows.provisioning.desk import Refused, RefusedKind
    from sms_aaa.flows.reserving import release as release_session

    with caller.connect() as connection:
        released = release_session(connection, get_account(connection, name).id, session)
        if not released:
            raise Refused(RefusedKind.NOT_FOUND, f"session {session} of {name} holds nothing", "see `bucket show`")
    facts({"session": session, "released": released}, form)


def _to_grant(
    name: str,
    quantity: str,
    *,
    measure: str | None,
    kind: BucketKind,
    bucket_name: str,
    priority: int,
    components: tuple[str, ...],
    is_shared: bool,
    from_at: datetime,
    until_at: datetime | None,
) -> ToGrant:
    """`measure` None: of money."""
    from sms_aaa.flows.provisioning.buckets import ToGrant
    from sms_aaa.flows.provisioning.desk import Invalid
    from sms_aaa.rules.buckets import BucketTerms
    from sms_aaa.rules.measure import Measure
    from sms_aaa.rules.money import PICOUNITS
    from sms_aaa.rules.tariff import named

    counted = Measure(measure) if measure is not None else None
    amount = (
        int(read_amount(quantity, place="AMOUNT") * PICOUNITS)
        if counted is None
        else read_quantity(quantity, counted, place="QUANTITY")
    )
    try:
        named(bucket_name)
    except ValueError as fault:
        raise Invalid("--as", str(fault), "write lower-case letters, digits and hyphens") from fault
    terms = BucketTerms(
        bucket_name, counted, amount, kind=kind, priority=priority, components=components, is_shared=is_shared
    )
    return ToGrant(name, terms, from_at, until_at)


def _until(until: str | None, valid: str | None, from_at: datetime, zone: str) -> datetime | None:
    if until is not None and valid is not None:
        raise click.UsageError("--until and --valid exclude each other: give one.")
    if until is not None:
        return parse_instant(until, zone, option="--until")
    return from_at + timedelta(seconds=parse_duration(valid, option="--valid")) if valid is not None else None
