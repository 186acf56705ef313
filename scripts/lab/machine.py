"""What the figures depend on: the machine and the versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from scripts.bench.ipc.transports import NAMES, transport_class


def describe_machine() -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not readable",
        "python": platform.python_version(),
    }


def describe_versions(skipped: dict[str, str]) -> dict[str, str]:
    """Of numpy, of this package, and of every rival."""
    packages = ["ringserve", "numpy", *filter(None, (transport_class(name).package for name in NAMES))]
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = skipped.get(package, "not installed")
    return versions


def _cpu_model() -> str:
    fields = dict(line.split(":", 1) for line in _read("/proc/cpuinfo").splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in fields.items()}
    # Arm's cpuinfo has no name, only numbers of its designer and part
    return (
        names.get("model name")
        or " ".join(f"{key} {names[key]}" for key in ("CPU implementer", "CPU part") if key in names)
        or "unknown"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
