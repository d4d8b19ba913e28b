"""Something to do while the server works: a connection that would wait for its answer lets its owner go on instead.

One thread all the same. psycopg speaks with the server by generators that say when they have to wait; here that is
where work is done, a little at a time, and the socket is looked at in between. So neither waits for the other: there
is no lock to be passed on, and what is done meanwhile is done at known places and never in the middle of something.
"""

from __future__ import annotations

import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import Connection as PsycopgConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from psycopg.abc import PQGen

Result = TypeVar("Result")

LOOK_MILLISECONDS = 5
"""While there is nothing to do: from one look for work to the next."""

_READABLE, _WRITABLE, _ERROR = 1, 2, 4
"""The first two as psycopg's generators say what they wait for, and as they are told what came."""

_EVENTS = {
    _READABLE: select.POLLIN,
    _WRITABLE: select.POLLOUT,
    _READABLE | _WRITABLE: select.POLLIN | select.POLLOUT,
}


class BusyConnection(PsycopgConnection[Any]):
    """`meanwhile` does a little work at each call, some tenths of a millisecond; False: there is none now."""

    meanwhile: Callable[[], bool] | None = None

    def wait(self, gen: PQGen[Result], *rest: Any, **named: Any) -> Result:
        work = self.meanwhile
        if work is not None:
            gen = _worked_through(gen, self.pgconn.socket, work)
        return super().wait(gen, *rest, **named)


@contextmanager
def busy_with(connection: PsycopgConnection[Any], work: Callable[[], bool]) -> Iterator[None]:
    """Within it `work` is done whenever the server is waited for. It must not use the connection."""
    assert isinstance(connection, BusyConnection), "engine.connect makes no other"
    connection.meanwhile = work
    try:
        yield
    finally:
        connection.meanwhile = None


def _worked_through(gen: PQGen[Result], socket: int, work: Callable[[], bool]) -> Generator[Any, Any, Result]:
    """The same conversation, which is waited for here; its errors are left to whoever waits outside."""
    poller = select.poll()
    try:
        wanted = next(gen)
        while True:
            poller.register(socket, _EVENTS[wanted])
            ready = _ready(poller.poll(0))
            while not ready:
                ready = _ready(poller.poll(0 if work() else LOOK_MILLISECONDS))
            wanted = gen.send((yield wanted) if ready & _ERROR else ready)
    except StopIteration as done:
        result: Result = done.value
        return result


def _ready(polled: list[tuple[int, int]]) -> int:
    """Of what was waited for, what came; 0: nothing yet."""
    for _, seen in polled:
        ready = (_READABLE if seen & select.POLLIN else 0) | (_WRITABLE if seen & select.POLLOUT else 0)
        return ready or _ERROR
    return 0
