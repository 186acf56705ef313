"""Limits on descriptors, processes and threads."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan
from pipeline.host.cgroups import tasks_left
from pipeline.host.facts import descriptors_needed, more_descriptors

TOPIC = "limits"
_TASKS = 64
"""Processes and threads: five processes with two threads each, and what MindSpore starts beside one per CPU."""


def check_descriptors(_: Host, plan: Plan) -> Iterator[Finding]:
    needed = descriptors_needed(plan.config)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        text = f"{needed} file descriptors are needed, {hard} are allowed"
        yield fail(TOPIC, text, more_descriptors(plan.config, hard))
        return
    raised = "" if soft == resource.RLIM_INFINITY or soft >= needed else f"; the launcher raises its limit of {soft}"
    connections = plan.config.pipeline.max_connections
    yield ok(TOPIC, f"{needed} file descriptors are needed for {connections} connections{raised}")


def check_tasks(host: Host, plan: Plan) -> Iterator[Finding]:
    needed = plan.config.pipeline.replicas * (_TASKS + 2 * (plan.config.pipeline.runner.threads or 0))
    left = tasks_left(host.root)
    if left is None or left >= needed:
        yield ok(TOPIC, "processes and threads: " + ("no limit" if left is None else f"{left} more are allowed"))
    else:
        text = f"{left} more processes and threads are allowed, up to {needed} are needed"
        yield warn(TOPIC, text, "raise the limit: TasksMax= of the unit, --pids-limit of the container")
