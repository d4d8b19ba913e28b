"""One JSON line an event, at the doors only, and never per packet. Journald and people with jq read it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Log:
    """`log.info("event-name", key=value)`: fields may be names and numbers, never secrets."""

    def __init__(self, process: str, level: str) -> None:
        import time

        formatter = _JsonFormatter()
        formatter.converter = time.gmtime
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        self._logger = logging.getLogger(process)
        self._logger.handlers = [handler]
        self._logger.propagate = False
        self._logger.setLevel(level.upper())

    def debug(self, event: str, **fields: object) -> None:
        self._logger.debug(event, extra={"fields": fields})

    def info(self, event: str, **fields: object) -> None:
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, **fields: object) -> None:
        self._logger.error(event, extra={"fields": fields})

    def bug(self, event: str, **fields: object) -> None:
        """A fault of ours, with its trace."""
        self._logger.exception(event, extra={"fields": fields})  # noqa: LOG004 - called in one
