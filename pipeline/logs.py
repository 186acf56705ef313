"""Log lines of all stages: readable, or one JSON object per line; each names its stage."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

ROOT = "ringserve"


class TextFormatter(logging.Formatter):
    """``2025-01-31 12:00:00.123 front INFO message``"""

    def __init__(self, stage: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d {stage:<10} %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One object per line. What a caller passed as ``extra={"fields": {...}}`` stands beside the message."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage = stage

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "stage": self._stage,
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure_logging(stage: str, *, level: str = "info", form: str = "text") -> logging.Logger:
    """Send this process's lines to standard error; the logger of the stage. `form` is "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(stage) if form == "json" else TextFormatter(stage))
    root = logging.getLogger(ROOT)
    root.handlers, root.propagate = [handler], False
    root.setLevel(level.upper())
    return root.getChild(stage)
