"""The command line's door: the table of its commands and what they share.

Nothing heavy is imported here. What a command does stands in its own module.
"""

from __future__ import annotations

import click

from sms_aaa import __version__
from sms_aaa.cli.caller import Caller
from sms_aaa.cli.exits import EPILOG
from sms_aaa.cli.verbs import LazyGroup

COMMANDS = {
    "serve": ("sms_aaa.cli.serve:serve", "Run the server: RADIUS, settling, rating, with its own PostgreSQL."),
    "demo": ("sms_aaa.cli.demo:demo", "Show the whole way on one screen: logins, usage, money."),
    "status": ("sms_aaa.cli.status:status", "Say how the running server does."),
    "nas": ("sms_aaa.cli.nas:nas", "The access servers that may ask: add, show, set, rotate-secret, drops."),
    "plan": ("sms_aaa.cli.plan:plan", "What is sold: add a plan file, list, show."),
    "tariff": ("sms_aaa.cli.tariff:tariff", "Tariffs as files: check examples, price usage, JSON Schemas."),
    "subscriber": ("sms_aaa.cli.subscriber:subscriber", "Who may log in: add, show, suspend, block, bind and more."),
    "realm": ("sms_aaa.cli.realm:realm", "The realms of user names: add, list, show, set, remove."),
    "credential": ("sms_aaa.cli.credential:credential", "Passwords, in the clear or hashed: set, show."),
    "sessions": ("sms_aaa.cli.sessions:sessions", "Who is online, or was: narrowed down, counted, watched."),
    "session": ("sms_aaa.cli.session:session", "One session, down to its records: show."),
    "stale": ("sms_aaa.cli.stale:stale", "Who misses interims, and which NAS is silent."),
    "anomalies": ("sms_aaa.cli.anomalies:anomalies", "What was odd about accounting records: list, show."),
    "whohad": ("sms_aaa.cli.whohad:whohad", "Whose an address, prefix or port was at an instant."),
    "why": ("sms_aaa.cli.why:why", "Why a login was let in or refused."),
    "rejects": ("sms_aaa.cli.rejects:rejects", "The last refusals, with their reasons."),
    "lockouts": ("sms_aaa.cli.lockouts:lockouts", "Who is kept out after failed logins: list, clear."),
    "cycle": ("sms_aaa.cli.cycle:cycle", "Billing cycles: list, close."),
    "account": ("sms_aaa.cli.account:account", "How subscribers are charged: show, set, join, leave."),
    "bucket": ("sms_aaa.cli.bucket:bucket", "What is used before usage costs: grant, top-up, reserve and more."),
    "usage": ("sms_aaa.cli.usage:usage", "What was used, when, and what it costs: show, export."),
    "explain": ("sms_aaa.cli.explain:explain", "From an amount down to the packets."),
    "ledger": ("sms_aaa.cli.ledger:ledger", "The books: entries, and the trial balance."),
    "rating": ("sms_aaa.cli.rating:rating", "How usage becomes money: status, rerate, dry-run, suspense."),
    "reconcile": ("sms_aaa.cli.reconcile:reconcile", "Prove that counted = rated = posted."),
    "journal": ("sms_aaa.cli.journal:journal", "What was answered and is kept: status, show, verify, replay."),
    "quarantine": (
        "sms_aaa.cli.quarantine:quarantine",
        "Records that could not be settled: list, show, retry, dismiss.",
    ),
    "replica": ("sms_aaa.cli.replica:replica", "The node's copy of what a login needs: status, verify, rebuild."),
    "config": ("sms_aaa.cli.settings:config", "The settings: show, check."),
    "db": ("sms_aaa.cli.database:db", "The database's schema: upgrade, check, status."),
    "load": ("sms_aaa.cli.load:load", "Send logins and accounting as many NASes would."),
}


@click.group(cls=LazyGroup, table=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="FILE", help="The settings; else SMS_AAA_CONFIG, else /etc/sms-aaa/sms-aaa.toml.")
@click.version_option(__version__, prog_name="sms-aaa")
@click.pass_context
def main(ctx: click.Context, config: str | None) -> None:
    """A telecom operator's subscriber server.

    RADIUS, sessions and usage, rating, in one program on PostgreSQL. Listings take --json and --csv.

    Example: sms-aaa why alice
    """
    ctx.obj = Caller(config)
