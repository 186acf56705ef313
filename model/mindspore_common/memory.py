"""Whether the weights and the KV cache fit into memory, asked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model.errors import CapacityError
from model.mindspore_common.settings import KEY_GROUP, GraphSettings

_RUNTIME_BYTES = 1 << 30  # MindSpore, mindformers and compiled graphs: 0.9 to 1.0 GB measured


class Sizes(Protocol):
    """What of a model decides how much memory it takes."""

    @property
    def num_layers(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def max_position(self) -> int: ...
    def tensors(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of all weights, by name."""


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a runner will allocate."""

    weights: int
    kv_cache: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.runtime


def kv_block_bytes(sizes: Sizes, settings: GraphSettings) -> int:
    """Keys and values of one block over all layers. On CPU a value's head is padded to whole vectors."""
    item = 4 if settings.device == "CPU" else 2
    head = sizes.head_dim
    padded = -(-head // KEY_GROUP) * KEY_GROUP if settings.device == "CPU" else head
    return sizes.num_layers * sizes.num_kv_heads * settings.block_size * (head + padded) * item


def memory_need(
    sizes: Sizes, settings: GraphSettings, table_bytes: int = 0, weight_bytes: int | None = None
) -> MemoryNeed:
    """What the runner will take, its own tables among it. On Ascend the two caches lie in device memory."""
    item = 4 if settings.device == "CPU" else 2
    parameters = sum(map(math.prod, sizes.tensors().values()))
    buckets = settings.effective_buckets()
    samples = max(bucket.samples for bucket in buckets)
    activations = 4 * (buckets[-1].tokens * sizes.intermediate_size * 4 + samples * sizes.vocab_size)
    return MemoryNeed(
        weights=parameters * item if weight_bytes is None else weight_bytes,
        kv_cache=kv_block_bytes(sizes, settings) * settings.num_blocks,
        runtime=_RUNTIME_BYTES + activations + table_bytes,
    )


def require_memory(need: MemoryNeed, block_bytes: int, settings: GraphSettings, available: int) -> None:
    """Raises CapacityError, with what to change, when the need exceeds ``available`` bytes. ``block_bytes``: of keys
    and values of one block over all layers."""
    if need.total <= available:
        return
    left = available - need.weights - need.runtime
    blocks = left // block_bytes
    advice = (
        f"lower num_blocks from {settings.num_blocks} to at most {blocks}" if blocks > 0 else "use a smaller model"
    )
    raise CapacityError(
        f"the model needs {_gib(need.total)} of memory (KV cache {_gib(need.kv_cache)} for "
        f"{settings.num_blocks} blocks of {settings.block_size} tokens, weights {_gib(need.weights)}, "
        f"runtime {_gib(need.runtime)}), "
        f"but {_gib(available)} is available; {advice}, or give the process more memory"
    )


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still allocate: what the machine has, within its control group's limit."""
    return min(_machine_available(root), *_control_group_rooms(root))


def _machine_available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise CapacityError("cannot determine the available memory: /proc/meminfo has no MemAvailable")


def _control_group_rooms(root: Path) -> list[int]:
    """Limit less usage of every group above this process, version 2 and version 1."""
    rooms = [1 << 62]
    for line in _read_lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, usage = (
                root / "sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            )
        else:
            continue
        group = base / path.lstrip("/")
        for directory in (group, *group.parents):
            rooms += _room(directory / limit, directory / usage, directory / "memory.stat")
            if directory == base:
                break
    return rooms


def _room(limit: Path, usage: Path, stat: Path) -> list[int]:
    """Page cache counts as used but is given back under pressure, so it is room."""
    try:
        most, used = int(limit.read_text()), int(usage.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return []
    cache = [
        int(line.split()[1]) for line in _read_lines(stat) if line.startswith(("inactive_file ", "active_file "))
    ]
    return [most - max(0, used - sum(cache))]


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
