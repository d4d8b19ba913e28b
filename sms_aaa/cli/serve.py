"""`sms-aaa serve`: the daemon in the foreground, for systemd or a terminal."""

from __future__ import annotations

import click

from sms_aaa.cli.caller import Caller, pass_caller
from sms_aaa.cli.exits import Exit, Failure
from sms_aaa.cli.verbs import Verb


@click.command(cls=Verb)
@pass_caller
def serve(caller: Caller) -> None:
    """Run the server until it is told to stop.

    It answers RADIUS, settles and rates, and runs its own PostgreSQL unless database.dsn names one. SIGTERM or Ctrl-C
    ends it in order, SIGHUP makes it read its settings again. The log goes to stderr.

    Example: sms-aaa --config /etc/sms-aaa/sms-aaa.toml serve
    """
    from sms_aaa.server.supervisor import StartError, Supervisor

    try:
        Supervisor(caller.load_settings).run()
    except StartError as fault:
        reason, _, remedy = str(fault).rpartition("; ")
        raise Failure(Exit.CONFLICT, reason, remedy) from fault
