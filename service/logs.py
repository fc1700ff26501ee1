"""The log: an object of JSON a line for machines, or text for people; gunicorn's lines and Python's warnings included.

What a client sent may get into a message, but never starts a line of its own. Images, texts and keys are not logged.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from flask import g, has_request_context
from gunicorn.glogging import Logger

from service.config import ServiceConfig

OURS = ("service", "captioner", "gunicorn.error")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class JsonFormatter(logging.Formatter):
    """A line: time, level, logger, message, and what the record carries as ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of ASCII."""
        entry = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """A line for people; a traceback follows it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, or several with a traceback."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        lines = [f"{_time(record)} {record.levelname:7} {record.getMessage()}{fields}"]
        if record.exc_info:
            lines += ["  " + line for line in self.formatException(record.exc_info).split("\n")]
        return "\n".join(CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in lines)


class GunicornLogger(Logger):  # type: ignore[misc]
    """Gunicorn's own lines, sent where all others go."""

    def setup(self, cfg: Any) -> None:
        """Leave it to the root logger."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def configure(config: ServiceConfig) -> None:
    """Send all logging of this process, and of those it forks, to standard error."""
    as_text = config.log_format == "text" or (config.log_format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(config.log_level.upper())
    logging.captureWarnings(True)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What the record carries, without what is not known, and the request that it belongs to."""
    fields = {"request_id": g.get("request_id")} if has_request_context() else {}
    fields |= getattr(record, "fields", {})
    return {name: value for name, value in fields.items() if value is not None}
