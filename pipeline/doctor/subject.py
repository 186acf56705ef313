"""What is examined: a host, and the sizes that a configuration asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from model.runner import RunnerFacts
from pipeline.config import Configuration
from pipeline.runtime.engines import make_runner, shapes_of
from pipeline.wire.step import Shapes


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration, and the sizes that follow from it."""

    config: Configuration
    shapes: Shapes
    facts: RunnerFacts

    @classmethod
    def of(cls, config: Configuration) -> Plan:
        """Raises ModelError."""
        runner = make_runner(config)
        return cls(config, shapes_of(config, runner), runner.facts)

    @property
    def on_ascend(self) -> bool:
        runner = self.config.pipeline.runner
        return runner.kind != "emulated" and runner.device == "Ascend"

    @property
    def on_cpu(self) -> bool:
        """The model itself computes on the host's CPUs."""
        runner = self.config.pipeline.runner
        return runner.kind != "emulated" and runner.device == "CPU"


@dataclass(frozen=True, slots=True)
class Host:
    """Files of the host are looked for under `root`; calls go to the kernel that runs."""

    root: Path = field(default=Path("/"))

    def text(self, path: str) -> str:
        """A small file's content, "" if there is none."""
        try:
            return (self.root / path).read_text(errors="replace").strip()
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def names(self, directory: str, pattern: str) -> list[Path]:
        return sorted((self.root / directory).glob(pattern))
