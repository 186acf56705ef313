"""Whether what is given to a runner is what it announced. Every runner checks with these."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from model.runner import Best, Bucket, Int32, RunnerFacts, StepInputs


def require_layout(inputs: StepInputs, facts: RunnerFacts) -> Bucket:
    """The bucket of these arrays. Raises ValueError for a wrong shape, dtype, or a non-contiguous array."""
    bucket = inputs.bucket
    if bucket not in facts.buckets:
        known = ", ".join(map(_shape, facts.buckets))
        raise ValueError(f"no bucket of {_shape(bucket)}; there are {known}")
    tokens, rows = (bucket.tokens,), (bucket.rows,)
    for name, shape in {
        "input_ids": tokens,
        "positions": tokens,
        "slot_mapping": tokens,
        "valid_length": rows,
        "q_seq_lens": rows,
        "sample_index": (bucket.samples,),
        "adapter": rows,
        "block_tables": (bucket.rows, facts.block_table_width),
    }.items():
        require_array(getattr(inputs, name), name, shape, np.int32)
    return bucket


def _shape(bucket: Bucket) -> str:
    sampled = "" if bucket.samples == bucket.rows else f" x {bucket.samples} sampled positions"
    return f"{bucket.tokens} tokens x {bucket.rows} rows{sampled}"


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


def require_rows(rows: Int32, bucket: Bucket) -> None:
    """Raises ValueError for sampled positions that the step does not have."""
    if len(rows) and not (rows.min() >= 0 and rows.max() < bucket.samples):
        raise ValueError(f"rows are {rows.min()} to {rows.max()}, expected 0 to {bucket.samples - 1}")


def require_best(best: Best, targets: Int32 | None, bucket: Bucket, facts: RunnerFacts) -> None:
    """Raises NotImplementedError for what the engine can't do, ValueError for wrong arrays."""
    if not facts.candidates:
        raise NotImplementedError(f"{facts.name} brings logits only")
    count, k = best.ids.shape
    if k > facts.candidates:
        raise NotImplementedError(f"{facts.name} brings at most {facts.candidates} candidates, not {k}")
    if count > bucket.samples:
        raise ValueError(f"ids have {count} rows, but the step samples {bucket.samples} positions")
    if all(array is None for array in (best.logits, best.log_sum_exp, best.target_logit, targets)):
        return
    if not facts.scores:
        raise NotImplementedError(f"{facts.name} brings token ids, but no scores")
    if (targets is None) != (best.target_logit is None):
        raise ValueError("targets and best.target_logit belong together")
    wanted = (
        (best.logits, "logits", (count, k), np.float32),
        (best.log_sum_exp, "log_sum_exp", (count,), np.float64),
        (best.target_logit, "target_logit", (count,), np.float32),
        (targets, "targets", (count,), np.int32),
    )
    for array, name, shape, dtype in wanted:
        if array is not None:
            require_array(array, name, shape, dtype)


def require_no_adapter(inputs: StepInputs, facts: RunnerFacts) -> None:
    """Raises ValueError for a row with an adapter that is not loaded."""
    if inputs.adapter.any():
        row = int(np.flatnonzero(inputs.adapter)[0])
        what = f"adapter[{row}] is {inputs.adapter[row]}"
        raise ValueError(f"{what}, but {facts.name} has no adapters loaded; 0 means none")
