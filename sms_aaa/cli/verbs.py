"""The shape of every command: loaded when it runs, and guarded so that whatever goes wrong ends in one line.

`sms-aaa --help` has to answer at once, so a group knows its commands' short help from a table, and imports a command's
module only when that command is asked for.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any

import click

from sms_aaa.cli.exits import Exit, Failure

Table = Mapping[str, tuple[str, str]]
"""Command by name: ("module:attribute", its short help)."""


class Verb(click.Command):
    """A command that ends with one of the documented exit codes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.callback is not None:
            self.callback = guarded(self.callback)


class Verbs(click.Group):
    """A group whose `.command()` makes verbs."""

    command_class = Verb


class DefaultVerbs(Verbs):
    """A group one of whose commands need not be named: `usage alice` is `usage show alice`."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if args and args[0] in known else [self._default, *args])


class LazyGroup(click.Group):
    """A group that imports a command's module when it is needed."""

    def __init__(self, *args: Any, table: Table, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table, which is the order of learning."""
        return [*self._table, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])


def guarded(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The callback with what it raises told as a Failure."""

    @wraps(callback)
    def guard(*args: Any, **kwargs: Any) -> Any:
        try:
            return callback(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (click.Abort, KeyboardInterrupt, EOFError):
            raise Failure(Exit.ABORTED, "aborted", "nothing was changed") from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our output left (`| head`): click ends quietly
            from sms_aaa.cli.failures import failure_of

            raise failure_of(error) from error

    return guard
