"""How much memory the openvino engine takes, known before it allocates any."""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.families import Spec
from model.huge_pages import collapse, private_memory, whole_pages
from model.mindspore_common.memory import MemoryNeed
from model.openvino.settings import OpenVinoSettings

_RUNTIME_BYTES = 400 << 20  # Python, OpenVINO, scratch memory, and kernels made for shapes: 120 to 330 MB measured
_KV_BITS = {"f32": 32, "f16": 16, "bf16": 16, "u8": 8}
_U8_FACTORS = 8  # bytes of scale and zero point beside each 8-bit vector
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")


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
        regions = list(private_memory())
    except OSError:
        return
    collapse((page for begin, end, _ in regions for page in _filled(whole_pages(begin, end, size))), size)


def _filled(pages: range) -> Iterator[int]:
    """Those of which the kernel has every small page in memory."""
    if not pages:
        return
    size = len(pages) * pages.step
    resident = np.zeros(size // mmap.PAGESIZE, np.uint8)
    ctypes.CDLL(None).mincore(
        ctypes.c_void_p(pages.start), ctypes.c_size_t(size), ctypes.c_void_p(resident.ctypes.data)
    )
    filled = (resident.reshape(len(pages), -1) & 1).all(1)
    yield from (pages[number] for number in np.flatnonzero(filled).tolist())


def weight_bytes(spec: Spec, settings: OpenVinoSettings, stored: int | None) -> int:
    """What the plugin has packed, for weights that stay bfloat16 once for few rows and once for many; and what it has
    packed from, unless that is a file. With int8 products of our own there is one copy. ``stored``: bytes of the
    weights as the checkpoint has them; None: float32."""
    full = 4 * sum(map(math.prod, spec.tensors().values()))
    if settings.packs_int8:
        embed = math.prod(spec.tensors()["embed.weight"])  # in bfloat16; a tied head is a matrix of its own
        return full // 4 + embed * (2 if spec.tied_embeddings else 1)
    unpacked = 0 if settings.compile_cache_dir else 1
    if settings.weight_dtype is None and stored is not None and stored < full:
        return (2 + unpacked) * stored
    return (1 + unpacked) * full // {"f32": 1, "bf16": 2, "int8": 4, None: 1}[settings.weight_dtype]
