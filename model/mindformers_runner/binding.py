"""Whether arrays given to a runner have the layout that it announced."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from model.runner import Bucket, RunnerFacts, StepInputs


def require_layout(inputs: StepInputs, facts: RunnerFacts) -> Bucket:
    """The bucket of these arrays. Raises ValueError for a wrong shape, dtype, or a non-contiguous array."""
    bucket = Bucket(inputs.tokens, inputs.rows)
    if bucket not in facts.buckets:
        known = ", ".join(f"{known.tokens}x{known.rows}" for known in facts.buckets)
        raise ValueError(f"no bucket of {bucket.tokens} tokens x {bucket.rows} rows; there are {known}")
    tokens, rows = (bucket.tokens,), (bucket.rows,)
    for name, shape in {
        "input_ids": tokens,
        "positions": tokens,
        "slot_mapping": tokens,
        "valid_length": rows,
        "q_seq_lens": rows,
        "gather_index": rows,
        "block_tables": (bucket.rows, facts.block_table_width),
    }.items():
        require_array(getattr(inputs, name), name, shape, np.int32)
    return bucket


def require_array(array: object, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Raises ValueError unless ``array`` is a C-contiguous array of this shape and dtype."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be an array, but is {type(array).__name__}")  # noqa: TRY004
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        layout = "" if array.flags.c_contiguous else ", not contiguous"
        raise ValueError(
            f"{name} must be a C-contiguous {np.dtype(dtype)} array of shape {shape}, "
            f"but is {array.dtype} of shape {array.shape}{layout}"
        )
