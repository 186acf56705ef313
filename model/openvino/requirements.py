"""What the openvino engine needs: a processor, a package, and a model without what its attention can't do.

Importing this imports no OpenVINO: every process may ask.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from model.errors import ConfigurationError
from model.families import Spec

BLOCK_SIZE = 32
"""Tokens of a KV block: the CPU plugin knows no other size."""

_FIRST, _END = (2026, 4), (2026, 5)  # as in pyproject.toml, where the reason stands
_INSTALL = "pip install 'ringserve[openvino]'"
_INSTEAD = "pipeline.runner.kind: mindspore"
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_FLAGS = {"x86_64": "avx2", "aarch64": "sve"}


def missing_flag(root: Path = Path("/")) -> str | None:
    """What this processor lacks: without it OpenVINO answers wrongly, or not at all."""
    flag = _FLAGS.get(platform.machine())
    if flag is None:
        return "x86-64"
    return None if flag in processor_flags(root) else flag.upper()


def computes_bfloat16(root: Path = Path("/")) -> bool:
    """Else it would be converted back and forth."""
    return not _BFLOAT16.isdisjoint(processor_flags(root))


def processor_flags(root: Path) -> set[str]:
    """Of the processor, as the kernel names them."""
    lines = (root / "proc/cpuinfo").read_text().splitlines()
    return {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}


def missing_package() -> str | None:
    """What is wrong with the installed package; None: nothing."""
    try:
        version = metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return "openvino is not installed"
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if _FIRST <= found < _END:
        return None
    return f"openvino {version} is installed, but its attention is private and known for 2026.4 only"


def unsupported_feature(spec: Spec) -> str | None:
    """What of the model the engine can't compute."""
    if spec.experts is not None:
        return "a mixture of experts"
    if spec.score_softcap:
        return "a softcap of attention's scores"
    return None


def require_openvino(spec: Spec, *, bfloat16: bool = False) -> None:
    """Raises ConfigurationError that names what would work. ``bfloat16``: it is computed in."""
    if (flag := missing_flag()) is not None:
        raise ConfigurationError(f"the openvino engine needs {flag}, which this processor lacks; use {_INSTEAD}")
    if (package := missing_package()) is not None:
        raise ConfigurationError(f"{package}; {_INSTALL}, or use {_INSTEAD}")
    if (feature := unsupported_feature(spec)) is not None:
        raise ConfigurationError(
            f"model_type {spec.family!r} has {feature}, which the openvino engine can't compute; use {_INSTEAD}"
        )
    if bfloat16 and not computes_bfloat16():
        raise ConfigurationError(
            "weight_dtype is 'bf16', but this processor has no arithmetic in bfloat16 (AVX512_BF16 or AMX); "
            "use f32 or int8, or leave it out"
        )
