"""How much memory the openvino engine takes, known before it allocates any."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.families import Spec
from model.mindspore_common.memory import MemoryNeed
from model.openvino.settings import OpenVinoSettings

_RUNTIME_BYTES = 400 << 20  # Python, OpenVINO, scratch memory, and kernels made for shapes: 120 to 330 MB measured
_KV_BITS = {"f32": 32, "f16": 16, "bf16": 16, "u8": 8}
_U8_FACTORS = 8  # bytes of scale and zero point beside each 8-bit vector
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_MADV_COLLAPSE = 25  # Linux 6.1


def kv_block_bytes(spec: Spec, settings: OpenVinoSettings) -> int:
    """Keys and values of one block over all layers."""
    dtype = settings.kv_dtype or settings.inference_dtype
    vectors = 2 * spec.num_layers * spec.num_kv_heads * settings.block_size
    factors = _U8_FACTORS if dtype == "u8" else 0
    return vectors * (spec.head_dim * _KV_BITS[dtype] // 8 + factors)


def memory_need(spec: Spec, settings: OpenVinoSettings, weight_bytes: int, max_length: int) -> MemoryNeed:
    """``weight_bytes``: as they are stored for the engine."""
    largest = settings.effective_buckets()[-1]
    activations = 4 * (largest.tokens * spec.intermediate_size * 4 + largest.samples * spec.vocab_size)
    tables = 4 * len(spec.ropes) * max_length * spec.head_dim
    return MemoryNeed(
        weights=weight_bytes,
        kv_cache=kv_block_bytes(spec, settings) * (settings.num_blocks + 1),
        runtime=_RUNTIME_BYTES + activations + tables,
    )


def trim_heap() -> None:
    """Give back what malloc holds free, 20 MB after warm-up; glibc alone can."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def use_huge_pages() -> None:
    """For memory that is filled already: each step reads all packed weights, which takes 5 to 8 % longer in pages of
    4 KiB. Caches stay as they are where no step has written yet, since huge pages there would fill them up. Nothing
    happens on kernels that can't, or where an operator has chosen "never"."""
    try:
        if "[never]" in (_HUGE_PAGES / "enabled").read_text():
            return
        size = int((_HUGE_PAGES / "hpage_pmd_size").read_text())
        regions = list(_private_memory())
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for begin, end in regions:
        first, count = -(-begin // size) * size, end // size - -(-begin // size)
        if count <= 0:
            continue
        resident = np.zeros(count * size // mmap.PAGESIZE, np.uint8)
        libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(count * size), ctypes.c_void_p(resident.ctypes.data))
        filled = (resident.reshape(count, -1) & 1).all(1)
        for number in np.flatnonzero(filled).tolist():
            libc.madvise(ctypes.c_void_p(first + number * size), ctypes.c_size_t(size), _MADV_COLLAPSE)


def _private_memory() -> Iterator[tuple[int, int]]:
    """First and last address of each mapping of this process that has no file and that it may write to."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, mode, _, _, inode = line.split()[:5]
        if mode == "rw-p" and inode == "0":
            begin, end = where.split("-")
            yield int(begin, 16), int(end, 16)


def weight_bytes(spec: Spec, settings: OpenVinoSettings, stored: int | None) -> int:
    """What the plugin has packed, for weights that stay bfloat16 once for few rows and once for many; and what it has
    packed from, unless that is a file. ``stored``: bytes of the weights as the checkpoint has them; None: float32."""
    full = 4 * sum(map(math.prod, spec.tensors().values()))
    unpacked = 0 if settings.compile_cache_dir else 1
    if settings.weight_dtype is None and stored is not None and stored < full:
        return (2 + unpacked) * stored
    return (1 + unpacked) * full // {"f32": 1, "bf16": 2, "int8": 4, None: 1}[settings.weight_dtype]
