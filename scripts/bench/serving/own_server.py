"""RingServe, started from a configuration file for the time of a run."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Configuration, ConfigurationError, load_configuration
from scripts.lab.errors import BenchError
from scripts.lab.processes import Running, started

_START_TIMEOUT_S = 600.0
_SCALED = ("fixed_ms", "per_token_ms", "per_row_ms", "per_cached_token_ms", "jitter_ms")


@dataclass(frozen=True, slots=True)
class OwnServer:
    file: Path
    overrides: tuple[str, ...]
    config: Configuration
    time_scale: float

    @classmethod
    def prepare(cls, file: Path, overrides: Sequence[str], time_scale: float) -> OwnServer:
        """Any free port; with a time scale, a device that is so many times as fast. Raises BenchError."""
        every = (*overrides, "serving_config.server_port=0")
        config = _load(file, every)
        runner = config.pipeline.runner
        if time_scale != 1.0:
            if runner.kind != "emulated":
                raise BenchError(
                    f"--time-scale {time_scale:g}: only an emulated device can be made faster, and {file} has "
                    f"pipeline.runner.kind {runner.kind}; leave --time-scale out"
                )
            every += _faster(runner.cost_model or {}, time_scale)
        return cls(file, every, _load(file, every), time_scale)

    @property
    def device(self) -> str:
        """Says "emulated" where nothing real computes."""
        runner = self.config.pipeline.runner
        if runner.kind != "emulated":
            return f"{self.config.model_config.model_name} on {runner.device}"
        scale = f", {self.time_scale:g} times as fast as it is" if self.time_scale != 1.0 else ""
        return f"emulated: {runner.name or 'device'}{scale}"

    @contextlib.contextmanager
    def running(self, log: Path) -> Iterator[Running]:
        """Raises BenchError."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        command = [sys.executable, "-m", "pipeline.launch", "--config", str(self.file), *sets]
        with started(command, log, _listening, timeout_s=_START_TIMEOUT_S) as server:
            yield server


def _load(file: Path, overrides: Sequence[str]) -> Configuration:
    try:
        return load_configuration(file, overrides)
    except ConfigurationError as error:
        raise BenchError(str(error)) from error


def _faster(cost: Mapping[str, float], time_scale: float) -> tuple[str, ...]:
    """What a step costs, all parts of it, divided by the scale."""
    return tuple(
        f"pipeline.runner.cost_model.{name}={float(cost[name]) / time_scale!r}" for name in _SCALED if name in cost
    )


def _listening(said: str) -> str | None:
    """The launcher's last line comes when everything is there."""
    if "try: curl" not in said:
        return None
    return next(line.split()[-1] for line in said.splitlines() if "listening on" in line)


_COUNTERS = {
    "ringserve_num_preemptions_total": "preemptions",
    'ringserve_steps_total{stage="inference"}': "steps",
    "ringserve_prefix_cache_hits_total": "prefix_cache_hits",
}


def server_counters(base_url: str, headers: Mapping[str, str]) -> dict[str, float]:
    """What a RingServe at that address has counted so far; empty where there is none."""
    request = urllib.request.Request(f"{base_url}/metrics", headers=dict(headers))  # noqa: S310 - checked to be http
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
            lines = answer.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.rsplit(" ", 1) for line in lines)
    return {_COUNTERS[pair[0]]: float(pair[1]) for pair in pairs if pair[0] in _COUNTERS}
