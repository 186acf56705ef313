"""Tests of paths that never raise: a path that may not be read, or has an impossible name, does not exist."""

from __future__ import annotations

import stat
from pathlib import Path


def is_there(path: Path) -> bool:
    return _mode(path) is not None


def is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path) or 0)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
