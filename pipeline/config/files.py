"""Tests of paths that never raise: a path that may not be read, or has an impossible name, does not exist. And where
compiled graphs are kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
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


def default_compile_cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """In the user's cache (XDG base directories); None without a home."""
    named = environment.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if named.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    place = next(place for place in (base, *base.parents) if place.exists())
    return base / "ringserve" / "compile" if os.access(place, os.W_OK | os.X_OK) else None
