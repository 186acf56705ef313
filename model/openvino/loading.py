"""From a checkpoint's weights to those that the graph is made of: each is read, converted and written to its place,
so that loading takes the memory of one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.weight import Weight, read_weights
from model.openvino.int8_products import ROWS, pack
from model.openvino.kept import Kept, remove_outdated
from model.openvino.settings import OpenVinoSettings, WeightDtype
from model.openvino.stacking import interleave_gates, stack_attention
from model.openvino.weight_file import Array, Slot, WeightFile, in_memory, kept_file, new_file, plan
from model.runner import Progress

_ROWS = 16 * ROWS  # that are converted at once: whole blocks
_log = logging.getLogger(__name__)


def load_weights(weights: Sequence[Weight], settings: OpenVinoSettings, progress: Progress | None) -> WeightFile:
    """Converts them, or finds what an earlier process has made of them. Raises what `read_weights` does."""
    dtype, folder, checkpoint = settings.weight_dtype, settings.compile_cache_dir, settings.checkpoint_path
    weights, slots = arrange(weights, settings)
    if folder is not None:
        remove_outdated(folder)
        kept = None
        if dtype == "int8" and checkpoint is not None:
            kept = Kept.of(repr(slots), checkpoint, settings.merged_adapter)
        if kept is not None and (found := kept_file(slots, folder, kept)) is not None:
            return found
        try:
            with new_file(slots, folder, kept) as file:
                _fill(file, weights, dtype, progress)
        except OSError as error:
            _log.warning("converted weights stay in memory: no file of them in %s (%s)", folder, error.strerror)
        else:
            return file
    file = in_memory(slots)
    _fill(file, weights, dtype, progress)
    return file


def arrange(weights: Sequence[Weight], settings: OpenVinoSettings) -> tuple[tuple[Weight, ...], dict[str, Slot]]:
    """The weights as the engine has them, and where each lies."""
    weights = tuple(stack_attention(weights))
    if settings.packs_int8:
        weights = tuple(interleave_gates(weights))
    return weights, plan(weights, settings.weight_dtype, packs_int8=settings.packs_int8)


def _fill(file: WeightFile, weights: Sequence[Weight], dtype: WeightDtype | None, progress: Progress | None) -> None:
    what = "quantizing weights" if dtype == "int8" else "loading weights"
    tied_head = None if any(weight.name == "head.weight" for weight in weights) else file.arrays.get("head.weight")
    read = read_weights(weights, np.float32, keep_bfloat16=dtype in {None, "bf16"})
    for done, (weight, values) in enumerate(read, start=1):
        _write(values, file.arrays[weight.name])
        if tied_head is not None and weight.name == "embed.weight":
            _write(values, tied_head)
        file.release(weight.name)
        if progress is not None:
            progress(what, done, len(weights))


def _write(values: NDArray[Any], into: Array) -> None:
    """Float32, or the bits of bfloat16, as whatever is wanted."""
    if into.values.dtype == values.dtype:
        into.values[...] = values
        return
    for first in range(0, len(values), _ROWS):
        rows = slice(first, first + _ROWS)
        if into.scale is None:
            into.values[rows] = bfloat16(values[rows])
        elif into.packed is not None:
            whole, scale = int8(values[rows])
            pack(whole, into.values, first)
            into.scale[first : first + len(scale)] = scale[:, 0]
        else:
            into.values[rows], into.scale[rows] = int8(values[rows])


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16; of two the even one."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def int8(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers from -127 to 127, and a factor for each row."""
    scale = np.maximum(np.abs(values).max(1, keepdims=True), 1e-9) / np.float32(127)
    return np.rint(values / scale).astype(np.int8), scale
