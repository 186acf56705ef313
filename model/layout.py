"""The layout of a runner's arrays, as its facts announce it: buckets, a step of padding alone; whether given arrays
have it, and whether the runner can do what is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from model.runner import Best, Bucket, Float32, Int32, RunnerFacts, StepInputs

MOST_CANDIDATES = 64
"""Per position, of the engines here: three times what any API lets a client ask for."""

_MOST_SCORED = 256
_SCORED_LOGITS = 1 << 23  # 32 MB: of a large vocabulary fewer positions are scored in a step
_SIZED = ("input_ids", "valid_length", "sample_index")  # by tokens, rows and samples


def make_buckets(max_rows: int, token_budget: int, factor: int, samples: int = 0) -> tuple[Bucket, ...]:
    """Decode steps of 1, 2, 4, … rows, and mixed steps of 16 tokens and so many times more; those always have
    ``max_rows`` rows. ``samples``: decode steps may have up to so many tokens, drafts included, all of them sampled.
    """
    decode, mixed = _grow(1, 2, max_rows), _grow(16, factor, max(token_budget, max_rows))
    buckets = {Bucket(rows, rows) for rows in decode} | {Bucket(n, max_rows) for n in mixed if n >= max_rows}
    drafted = {Bucket(n, max_rows, n) for n in _grow(1, 2, samples) if n > max_rows} if samples else set()
    return tuple(sorted(buckets | drafted))


def scored_samples(token_budget: int, max_rows: int, vocab_size: int) -> int:
    """How many positions of prompts a step may score, so that their logits take little memory; at least one a row."""
    return max(max_rows, min(token_budget, _MOST_SCORED, _SCORED_LOGITS // vocab_size))


def with_samples(buckets: Sequence[Bucket], samples: int) -> tuple[Bucket, ...]:
    """And one that has as many tokens and rows as any, in which so many positions are sampled."""
    largest = max(buckets)
    more = Bucket(largest.tokens, largest.rows, samples)
    return (*buckets, more) if more > largest else tuple(buckets)


def _grow(first: int, factor: int, last: int) -> list[int]:
    """Powers from ``first`` up to ``last``, which is always the final one."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= factor
    return [*sizes, last]


def first_buckets(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The two smallest that serve every kind of step: one for a row that decodes alone, and one with as many rows as
    any has, each of them sampled, to which all other steps can be padded. Meanwhile steps score few positions."""
    whole = fixed_bucket(buckets)
    return tuple(sorted(buckets if whole is None else {min(buckets), whole}))


def fixed_bucket(buckets: Sequence[Bucket]) -> Bucket | None:
    """The smallest with as many rows as any has, each of them sampled: the one shape of all steps with rows that are
    deterministic. It is always compiled."""
    rows = max(bucket.rows for bucket in buckets)
    return min((bucket for bucket in buckets if bucket.rows == rows <= bucket.samples), default=None)


def compile_order(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """All of them, the ones first that are worth most: those above; then those for prompts, which are computed in
    pieces as small as the largest bucket that is there; then those that save a few decode rows their padding; last
    those in which more positions are sampled than there are rows."""
    first = first_buckets(buckets)
    most = max(bucket.rows for bucket in buckets)
    others = set(buckets) - {*first}
    return (*first, *sorted(others, key=lambda it: (it.samples > it.rows, it.rows < most, it)))


def smallest_bucket(buckets: Sequence[Bucket], tokens: int, rows: int, samples: int) -> Bucket | None:
    """That holds such a step, of ``buckets`` in ascending order."""
    fits = (it for it in buckets if it.tokens >= tokens and it.rows >= rows and it.samples >= samples)
    return next(fits, None)


def padding(bucket: Bucket, facts: RunnerFacts) -> StepInputs:
    """A step of this bucket without a single row: it computes, but writes nothing to the KV cache."""

    def zeros(*shape: int) -> Int32:
        return np.zeros(shape, np.int32)

    return StepInputs(
        input_ids=zeros(bucket.tokens),
        positions=zeros(bucket.tokens),
        slot_mapping=np.full(bucket.tokens, -1, np.int32),
        valid_length=zeros(bucket.rows),
        q_seq_lens=zeros(bucket.rows),
        sample_index=zeros(bucket.samples),
        adapter=zeros(bucket.rows),
        block_tables=zeros(bucket.rows, facts.block_table_width),
    )


def require_layout(inputs: StepInputs, facts: RunnerFacts) -> Bucket:
    """The bucket of these arrays. Raises ValueError for a wrong shape, dtype, or a non-contiguous array."""
    tokens, rows, samples = (np.size(getattr(inputs, name)) for name in _SIZED)
    bucket = Bucket(tokens, rows, samples)
    if bucket not in facts.buckets:
        raise ValueError(f"no bucket of {_describe(bucket)}; there are {', '.join(map(shape_name, facts.buckets))}")
    for name, shape in {
        **dict.fromkeys(("input_ids", "positions", "slot_mapping"), (tokens,)),
        **dict.fromkeys(("valid_length", "q_seq_lens", "adapter"), (rows,)),
        "sample_index": (samples,),
        "block_tables": (rows, facts.block_table_width),
    }.items():
        require_array(getattr(inputs, name), name, shape, np.int32)
    if inputs.sampled is not None:
        require_array(inputs.sampled, "sampled", (rows,), np.int32)
    return bucket


def require_fetch(rows: Int32, logits: Float32, facts: RunnerFacts) -> None:
    """Raises ValueError unless ``rows`` and ``logits`` are what `Runner.fetch` takes. Rows may be out of range."""
    require_array(rows, "rows", rows.shape[:1], np.int32)
    require_array(logits, "logits", (*rows.shape, facts.vocab_size), np.float32)


def require_best(best: Best, targets: Int32 | None, bucket: Bucket, facts: RunnerFacts) -> None:
    """Raises NotImplementedError for what the engine can't do, and ValueError for arrays that do not fit. Targets may
    be out of range."""
    n, k = shape = best.ids.shape if best.ids.ndim == 2 else (0, 0)
    if not facts.candidates:
        raise NotImplementedError(f"{facts.name} brings logits only")
    if k > facts.candidates:
        raise NotImplementedError(f"{facts.name} brings at most {facts.candidates} candidates, not {k}")
    if not facts.scores and (best.log_sum_exp is not None or best.target_logit is not None):
        raise NotImplementedError(f"{facts.name} brings no log-sum-exps and no logits of targets")
    if not k or n > bucket.samples:
        shapes = f"[n, k], n up to {bucket.samples} sampled positions and k from 1"
        raise ValueError(f"ids must have shape {shapes}, not {best.ids.shape}")
    require_array(best.ids, "ids", shape, np.int32)
    if best.logits is not None:
        require_array(best.logits, "logits", shape, np.float32)
    if best.log_sum_exp is not None:
        require_array(best.log_sum_exp, "log_sum_exp", (n,), np.float64)
    if targets is not None or best.target_logit is not None:
        require_array(targets, "targets", (n,), np.int32)
        require_array(best.target_logit, "target_logit", (n,), np.float32)


def require_range(values: Int32 | None, name: str, end: int) -> None:
    """Raises ValueError for the first value that is not in 0 .. ``end`` - 1."""
    if values is None or values.size == 0 or 0 <= values.min() <= values.max() < end:
        return
    at = int(np.flatnonzero((values < 0) | (values >= end))[0])
    raise ValueError(f"{name}[{at}] is {values[at]}, expected 0 to {end - 1}")


def is_argmax_alone(best: Best, targets: Int32 | None) -> bool:
    """Of arrays that have not been looked at yet."""
    return (
        best.ids.shape[1:] == (1,)
        and targets is None
        and best.logits is None
        and best.log_sum_exp is None
        and best.target_logit is None
    )


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


def shape_name(bucket: Bucket) -> str:
    return f"{bucket.tokens}x{bucket.rows}" + (f"x{bucket.samples}" if bucket.samples != bucket.rows else "")


def _describe(bucket: Bucket) -> str:
    samples = f" with {bucket.samples} sampled positions" if bucket.samples != bucket.rows else ""
    return f"{bucket.tokens} tokens x {bucket.rows} rows{samples}"
