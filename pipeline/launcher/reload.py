"""Which changes of a configuration take effect while the server runs, and which need a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pipeline.config import Configuration, live_keys, load_configuration, values_of, with_values


@dataclass(frozen=True, slots=True)
class Reload:
    """`live` are the settings that may change at any time, by dotted key, with their values now."""

    config: Configuration
    live: Mapping[str, Any]
    changed: tuple[str, ...]
    waiting: tuple[str, ...]  # changed in the file; they take effect at the next start of the server

    @classmethod
    def of(cls, current: Configuration, new: Configuration) -> Self:
        """Raises ConfigurationError when the settings that can change contradict those that can't."""
        old, wanted, keys = values_of(current), values_of(new), live_keys()
        different = [key for key in old if old[key] != wanted[key]]
        config = with_values(current, {key: wanted[key] for key in keys})
        require_loadable(config)
        return cls(
            config,
            {key: wanted[key] for key in keys},
            tuple(key for key in different if key in keys),
            tuple(key for key in different if key not in keys),
        )

    def describe(self) -> str:
        """For the log: keys and new values."""
        values = ", ".join(f"{key} = {self.live[key]}" for key in self.changed)
        text = f"configuration reloaded: {values or 'nothing that can change while the server runs has changed'}"
        return text + (f"; needs a restart: {', '.join(self.waiting)}" if self.waiting else "")


def require_loadable(config: Configuration) -> None:
    """Raises ConfigurationError. The configuration is loaded as the next stage that starts will load it."""
    fd = os.memfd_create("ringserve-reload", os.MFD_CLOEXEC)
    try:
        os.write(fd, config.to_yaml().encode())
        load_configuration(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
