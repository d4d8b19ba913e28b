"""/metrics for Prometheus, /healthz for a load balancer: one thread of the supervisor, one request at a time."""

from __future__ import annotations

import json
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
    """`problems` empty: all is well. Each says what is wrong, in words."""

    problems: tuple[str, ...]


class Watchman:
    """The HTTP server; `start` binds, `stop` ends it."""

    def __init__(self, listen: str, collector: Collector, health: Callable[[], Health]) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._server = HTTPServer(parse_listen(listen), _handler(registry, health))
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    @property
    def address(self) -> str:
        """`host:port` as bound."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(registry: CollectorRegistry, health: Callable[[], Health]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS_MAX

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._reply(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif self.path == "/healthz":
                problems = health().problems
                body = json.dumps({"status": "degraded" if problems else "ok", "problems": problems}) + "\n"
                self._reply(503 if problems else 200, "application/json", body.encode())
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
