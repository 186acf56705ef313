"""Settings that may change while the server runs, and configurations as flat values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .configuration import Configuration
from .setting import build, fields_of, settings_of


def live_keys() -> frozenset[str]:
    """Dotted keys of the settings that a reload can change."""
    return frozenset(key for key, setting in settings_of(Configuration, "") if setting.live)


def values_of(config: Configuration) -> dict[str, Any]:
    """Every setting by dotted key."""
    return {key: _value(config, key) for key, _ in settings_of(Configuration, "")}


def with_values(config: Configuration, values: Mapping[str, Any]) -> Configuration:
    """The configuration with other values for these keys. They are not checked."""
    flat = values_of(config) | dict(values)
    sections = {name: build(kind, flat, name) for name, kind in fields_of(Configuration) if isinstance(kind, type)}
    return dataclasses.replace(config, **sections)


def _value(config: Configuration, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value
