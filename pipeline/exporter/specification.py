"""What the launcher passes to the exporter. The launcher imports it, and no package of OpenTelemetry."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExporterSpecification:
    """What the launcher passes, as JSON in an anonymous file; descriptors are inherited."""

    endpoint: str
    rings: tuple[tuple[int, ...], ...]  # descriptors of each
    death_fd: int
    stats_fd: int
    topology: dict[str, int]
    log_level: str
    log_format: str

    def to_json(self) -> bytes:
        return json.dumps({name: getattr(self, name) for name in self.__slots__}).encode()
