"""All checks, in order. A check that raises is a finding, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline.doctor import ascend, cpus, kernel, limits, memory, place, software
from pipeline.doctor.finding import Finding, fail
from pipeline.doctor.subject import Host, Plan

_HOST_CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    kernel.check_version,
    kernel.check_calls,
    kernel.check_proc,
    kernel.check_ring,
    kernel.check_clock,
    software.check_python,
    software.check_compiler,
    cpus.check_quota,
    cpus.check_governor,
    memory.check_swap,
    memory.check_huge_pages,
    memory.check_address_space,
)
_EITHER_CHECKS: tuple[Callable[[Host, Plan | None], Iterator[Finding]], ...] = (
    software.check_packages,
    software.check_extensions,
    cpus.check_count,
)
_PLAN_CHECKS: tuple[Callable[[Host, Plan], Iterator[Finding]], ...] = (
    memory.check_shared_memory,
    memory.check_room,
    memory.check_locked_memory,
    limits.check_descriptors,
    limits.check_tasks,
    cpus.check_pinning,
    cpus.check_nodes,
    place.check_port,
    place.check_keys,
    place.check_compile_cache,
    ascend.check_ascend,
)


def examine(host: Host, plan: Plan | None) -> list[Finding]:
    """Without a plan, only the checks that need no configuration."""
    found: list[Finding] = []
    for check in _HOST_CHECKS:
        found += _run(check, host)
    for check_either in _EITHER_CHECKS:
        found += _run(check_either, host, plan)
    for check_plan in _PLAN_CHECKS if plan is not None else ():
        found += _run(check_plan, host, plan)
    return found


def _run(check: Callable[..., Iterator[Finding]], *arguments: object) -> list[Finding]:
    try:
        return list(check(*arguments))
    except Exception as error:  # noqa: BLE001 - the other checks still run
        name = check.__name__.removeprefix("check_")
        text = f"the check {name!r} itself failed: {type(error).__name__}: {error}"
        return [fail("doctor", text, "please report it as a bug of RingServe")]
