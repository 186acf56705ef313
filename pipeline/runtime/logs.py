"""Log lines of all stages: readable, or one JSON object per line; each names its stage."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson

from pipeline.runtime.nonblocking_stderr import NonblockingStderr

ROOT = "ringserve"


class TextFormatter(logging.Formatter):
    """``2025-01-31 12:00:00.123 front INFO message``"""

    def __init__(self, stage: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d {stage:<10} %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One object per line. What a caller passed as ``extra={"fields": {...}}`` is beside the message."""

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


class StderrHandler(logging.Handler):
    """Writes to standard error without ever blocking. Lines that are dropped are counted and reported later."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stderr = NonblockingStderr()

    def emit(self, record: logging.LogRecord) -> None:
        if dropped := self._stderr.dropped:
            notice = logging.makeLogRecord({
                "name": record.name, "levelno": logging.WARNING, "levelname": "WARNING",
                "msg": "%d log lines were dropped: standard error was not read", "args": (dropped,),
            })  # fmt: skip
            if not self._write(notice):
                self._stderr.dropped = dropped + 1
                return
        self._write(record)

    def close(self) -> None:
        self._stderr.close()
        super().close()

    def _write(self, record: logging.LogRecord) -> bool:
        return self._stderr.write(self.format(record).encode("utf-8", "replace") + b"\n")


def configure_logging(stage: str, *, level: str = "info", form: str = "text") -> logging.Logger:
    """Send this process's log lines to standard error. Returns the stage's logger. `form` is "text" or "json"."""
    handler = StderrHandler(JsonFormatter(stage) if form == "json" else TextFormatter(stage))
    root = logging.getLogger(ROOT)
    for old in root.handlers:
        old.close()
    root.handlers, root.propagate = [handler], False
    root.setLevel(level.upper())
    return root.getChild(stage)
