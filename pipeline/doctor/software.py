"""Python, packages and compiled extensions. MindSpore is not imported: its version is read from its metadata."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module, metadata

from model.mindspore_common.native import LIBRARY
from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Host, Plan

TOPIC = "software"
_LEAST_PYTHON = (3, 11)
_FOR_THE_MODEL = ("mindspore", "mindformers")
_NEEDED_BY = {"mindformers": _FOR_THE_MODEL, "mindspore": ("mindspore",), "openvino": ("openvino",), "emulated": ()}
_EXTENSIONS = ("ipc._core", "model.sampling._kernels", "model.emulated._device", "pipeline.inference._step")
_REBUILD = "rebuild: pip install -e . (a C and a C++ compiler are needed)"


def check_python(_: Host) -> Iterator[Finding]:
    version = sys.version.split()[0]
    if sys.version_info < _LEAST_PYTHON:
        yield fail(TOPIC, f"Python {version}", "use Python 3.11")
    else:
        yield ok(TOPIC, f"Python {version}")


def check_packages(_: Host, plan: Plan | None) -> Iterator[Finding]:
    """Against the ranges that this project declares."""
    try:
        required = metadata.requires("ringserve") or []
    except metadata.PackageNotFoundError:
        yield fail(TOPIC, "ringserve is not installed", "pip install -e .")
        return
    needed = _FOR_THE_MODEL if plan is None else _NEEDED_BY[plan.config.pipeline.runner.kind]
    fine = []
    for requirement in required:
        name, ranges = split_requirement(requirement)
        if name not in needed and ("extra ==" in requirement or name in _FOR_THE_MODEL):
            continue
        version = _version(name)
        if version is None or not fits(version, ranges):
            found = "is missing" if version is None else f"is {version}"
            yield fail(TOPIC, f"{name} {found}; {ranges} is needed", f"pip install '{name}{ranges}'")
        elif name in ("numpy", *needed):
            fine.append(f"{name} {version}")
    yield ok(TOPIC, ", ".join(fine))


def split_requirement(requirement: str) -> tuple[str, str]:
    """``numpy<2,>=1.26; …`` to ``numpy`` and ``<2,>=1.26``."""
    match = re.match(r"([\w.-]+)\s*([^;]*)", requirement)
    assert match is not None  # of this project's own metadata
    return match[1].lower(), match[2].strip()


def fits(version: str, ranges: str) -> bool:
    """The part of PEP 440 that pyproject.toml uses: ``>=`` and ``<``."""
    for bound in filter(None, ranges.split(",")):
        lower = bound.strip().startswith(">=")
        if (_numbers(version) >= _numbers(bound)) is not lower:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """Trailing zeros do not count: 2.0 is 2."""
    release = re.search(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else [0]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_extensions(_: Host, plan: Plan | None) -> Iterator[Finding]:
    broken = {name: error for name in _EXTENSIONS if (error := _import_error(name))}
    for name, error in broken.items():
        yield fail(TOPIC, f"{name} can't be loaded: {error}", _REBUILD)
    if (plan is None or plan.on_cpu) and not LIBRARY.exists():
        yield fail(TOPIC, f"{LIBRARY.name}, the model's operator on CPU, is not built", _REBUILD)
    elif not broken:
        yield ok(TOPIC, "the compiled extensions can be loaded")


def _import_error(name: str) -> str:
    try:
        import_module(name)
    except ImportError as error:
        return str(error)
    return ""


def check_compiler(_: Host) -> Iterator[Finding]:
    """Needed to install, not to run."""
    compilers = {"C": os.environ.get("CC", "cc"), "C++": os.environ.get("CXX", "c++")}
    missing = [language for language, command in compilers.items() if not shutil.which(command.split()[0])]
    if missing:
        text = f"no {' and no '.join(missing)} compiler: the installed extensions run, but they can't be rebuilt"
        yield warn(TOPIC, text, "apt-get install gcc g++")
    else:
        yield ok(TOPIC, "a C and a C++ compiler are installed")
