"""/metrics for Prometheus, /healthz for a load balancer: one thread of the supervisor, one request at a time."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from sms_aaa.config import parse_listen

if TYPE_CHECKING:
    from collections.abc import Callable

    from sms_aaa.metrics import Collector

REQUEST_SECONDS_MAX = 10
"""How long a client may take over its request: there is one at a time."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is wrong, each in words; nothing in either: all is well.

    `unanswered` keeps logins or accounting from being answered now: a load balancer is to choose another node.
    `impaired` does not: were PostgreSQL's absence told like that, every node of it would be taken out at once.
    """

    unanswered: tuple[str, ...]
    impaired: tuple[str, ...]

    def reply(self) -> tuple[int, bytes]:
        """HTTP status and JSON; `status` is ok, degraded (it answers, with problems) or down."""
        status = "down" if self.unanswered else "degraded" if self.impaired else "ok"
        body = json.dumps({"status": status, "problems": [*self.unanswered, *self.impaired]}) + "\n"
        return (503 if self.unanswered else 200), body.encode()


class Watchman:
    """The HTTP server; `start` binds, `stop` ends it."""

    def __init__(self, listen: str, collector: Collector, health: Callable[[], Health]) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._server = _Server(parse_listen(listen), _handler(registry, health))
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` as bound; an IPv6 address stands in brackets, as in a URL."""
        host, port = self._server.server_address[:2]
        is_ipv6 = self._server.address_family == socket.AF_INET6
        return f"[{host!s}]:{port}" if is_ipv6 else f"{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(HTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


def _handler(registry: CollectorRegistry, health: Callable[[], Health]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS_MAX

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._reply(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif self.path == "/healthz":
                status, body = health().reply()
                self._reply(status, "application/json", body)
            else:
                self._reply(404, "text/plain", b"/metrics or /healthz\n")

        def _reply(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Scrapes are not events."""

    return Handler
