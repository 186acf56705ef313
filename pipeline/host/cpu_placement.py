"""CPUs that stages are pinned to, and how long their waits spin, on this host.

A wait may spin where a CPU has nothing else to do; it must never take CPU time from the model. So a stage other than
inference spins only if there are CPUs for all beside those that the models compute on. Inference does not compute
while it waits, and spins unless there is only one CPU, or less than two for each process that computes.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import fields
from pathlib import Path

from ipc import DEFAULT_SPIN_US
from pipeline.config import Configuration, CpuConfig, SpinConfig
from pipeline.host.cgroups import cpu_quota
from pipeline.host.facts import HostError
from pipeline.host.npu import device_cpus
from pipeline.wire.topology import INFERENCE, STAGES, Topology, device_of

DEVICE = "device"


def fit_to_host(config: Configuration, replica: int = 0) -> Configuration:
    """The configuration with CPUs and spin times set for this host: what the stages of this replica get, and of the
    first one the front. Raises HostError."""
    pipeline = config.pipeline
    cpus = CpuConfig(**{stage: _cpus_of(stage, config, replica) for stage in STAGES})
    fitted = dataclasses.replace(config, pipeline=dataclasses.replace(pipeline, cpus=cpus))
    spin = SpinConfig(**{field.name: spin_us(field.name, fitted, usable_cpus()) for field in fields(SpinConfig)})
    return dataclasses.replace(fitted, pipeline=dataclasses.replace(fitted.pipeline, spin_us=spin))


def fit_as(config: Configuration, fitted: Configuration) -> Configuration:
    """The configuration with the CPUs and spin times of one that was fitted before."""
    pipeline = dataclasses.replace(config.pipeline, cpus=fitted.pipeline.cpus, spin_us=fitted.pipeline.spin_us)
    return dataclasses.replace(config, pipeline=pipeline)


def usable_cpus(root: Path = Path("/")) -> float:
    """CPUs that this process may use: their number, or the quota if that is lower."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = cpu_quota(root)
    return allowed if quota is None else min(allowed, quota)


# ---- pinning -----------------------------------------------------------------------------------------------------


def _cpus_of(stage: str, config: Configuration, replica: int) -> tuple[int, ...] | None:
    asked: tuple[int, ...] | str | None = getattr(config.pipeline.cpus, stage)
    return near_device(stage, config, replica) if isinstance(asked, str) else asked


def near_device(stage: str, config: Configuration, replica: int = 0) -> tuple[int, ...]:
    """CPUs next to this replica's device that this process may use. Raises HostError.

    The lookup has not been run on a device so far.
    """
    key = f"pipeline.cpus.{stage}"
    try:
        near = device_cpus(device_of(config, replica))
    except HostError as error:
        raise HostError(f"{key} is {DEVICE}, but {error}; name the CPUs, or leave it out") from error
    usable = tuple(sorted(set(near) & os.sched_getaffinity(0)))
    if not usable:
        raise HostError(f"{key} is {DEVICE}, but this process may use none of the CPUs near it; name others")
    return usable


# ---- spinning ----------------------------------------------------------------------------------------------------


def spin_us(stage: str, config: Configuration, cpus: float) -> float:
    """Microseconds that a wait of this stage may spin, with so many CPUs for the server: as configured, else as long
    as it takes no CPU time from the model."""
    asked: float | None = getattr(config.pipeline.spin_us, stage)
    if asked is not None:
        return asked
    if stage == INFERENCE.name:
        # on one CPU, what it waits for could not run
        return DEFAULT_SPIN_US if cpus >= 2 * config.pipeline.engine_processes else 0.0
    apart = _apart_from_inference(stage, config.pipeline.cpus)
    beside = sum(stage.name != INFERENCE.name for stage in Topology.of(config).stages)
    return DEFAULT_SPIN_US if apart or cpus - model_cpus(config, cpus) >= beside else 0.0


def model_cpus(config: Configuration, cpus: float) -> float:
    """CPUs that compute during a step of every replica: on CPU the model's threads, else the processes that wait for
    their devices."""
    runner, processes = config.pipeline.runner, config.pipeline.engine_processes
    if runner.kind == "emulated" or runner.device != "CPU":
        return float(processes)
    return float(runner.threads * processes if runner.threads else cpus)


def _apart_from_inference(stage: str, cpus: CpuConfig) -> bool:
    """Pinned to CPUs that no thread of the model is on."""
    own, model = getattr(cpus, stage), cpus.inference
    return bool(own) and bool(model) and not set(own) & set(model or ())
