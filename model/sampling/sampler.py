"""The row table and the call that turns a step's logits into tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _kernels
from .params import ParameterError, SamplingLimits, SamplingParams, require_few

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]

_Bias = tuple[int, float, int]  # token, what is added to its logit, first position without it
FOREVER = np.iinfo(np.int32).max  # a bias that no position outlives


class RowStatus(IntEnum):
    """What became of a row in a call of `Sampler.sample`."""

    OK = 0
    SKIPPED = 1  # rows[b] was -1
    NAN = 2  # a logit is NaN
    INFINITE = 3  # a logit is infinite, from the model or after a penalty
    ALL_MASKED = 4  # bias, bans and mask leave no token
    HISTORY_FULL = 5  # the row has penalties and more distinct tokens than max_length


@dataclass(frozen=True, slots=True)
class SampleOutputs:
    """The caller's arrays that `Sampler.sample` fills, for ``B`` rows; they may lie in shared memory."""

    token_ids: Int32  # [B] -1 where the status is not OK
    status: Int32  # [B] a RowStatus
    logprobs: Float32  # [B] of the chosen token; NaN where not asked for
    top_ids: Int32  # [B, N] best first, equal ones by id; -1 behind what the row asked for
    top_logprobs: Float32  # [B, N] NaN behind what the row asked for

    @classmethod
    def allocate(cls, batch: int, top: int = 0) -> SampleOutputs:
        tops = (batch, top)
        return cls(
            np.full(batch, -1, np.int32),
            np.full(batch, RowStatus.SKIPPED, np.int32),
            np.full(batch, np.nan, np.float32),
            np.full(tops, -1, np.int32),
            np.full(tops, np.nan, np.float32),
        )


class Sampler:
    """Samples up to ``rows`` live sequences. Not for use by two threads at once; one call uses one core.

    The parameters of a row are columns of arrays, set by `admit` and read by `sample`; between the two no
    Python object stands for a row. A row admitted anew forgets everything about its predecessor.
    """

    def __init__(
        self, limits: SamplingLimits, rows: int, *, masks: bool = False, drafts: int = 0, width: int = 0
    ) -> None:
        """Raises ValueError for a size below 1. Memory: up to 24 bytes per row and token of max_length.

        ``masks``: rows may have grammars; costs a bit per row and token of the vocabulary, and as much again for each
        of ``drafts`` that a row may have.

        ``width`` forces kernels of 4, 8 or 16 floats per register (tests); 0 is the widest this CPU has.
        """
        if min(rows, limits.vocab_size, limits.max_length) < 1:
            raise ValueError(f"rows ({rows}), vocab_size and max_length ({limits}) must be at least 1")
        self.limits = limits
        self.rows = rows
        self._words = -(-limits.vocab_size // 32) if masks else 0
        columns = _allocate(limits, rows, self._words * (1 + drafts))
        self.columns: Mapping[str, NDArray[Any]] = MappingProxyType(columns)
        self._kernel = _kernels.Kernel(limits.vocab_size, columns, width)

    def admit(
        self,
        row: int,
        params: SamplingParams,
        prompt_ids: ArrayLike,
        output_ids: ArrayLike | None = None,
        *,
        seed: int | None = None,
        end_ids: Sequence[int] = (),
    ) -> None:
        """Give ``row`` to a sequence.

        ``output_ids`` are tokens already produced, when a sequence is resumed: with the same seed it goes on
        as if nothing had happened. ``seed`` takes the place of the parameters' own. ``end_ids`` are the model's
        end tokens, if the sequence obeys them: they are banned with its stop tokens. A row with a grammar chooses
        among the tokens of its `mask`, which allows none until it is filled.

        Raises ValueError for a row or token id out of range, or a grammar in a sampler without masks, and
        `ParameterError` for what would reach beyond the sampler's memory, or a missing seed;
        `SamplingParams.validate` checks the rest.
        """
        if not 0 <= row < self.rows:
            raise ValueError(f"row is {row}, expected 0 to {self.rows - 1}")
        prompt = np.ascontiguousarray(prompt_ids, np.int32)
        biases = self._biases(params, prompt.size, end_ids)
        self._set_mask(row, bool(params.grammar))
        self._set_scalars(row, params, seed)
        self._set_bias(row, biases)
        self.columns["seen_count"][row] = 0
        if params.penalised:
            self.columns["seen_index"][row] = 0
            self._kernel.observe(row, prompt, False)
            if output_ids is not None:
                self._kernel.observe(row, np.ascontiguousarray(output_ids, np.int32), True)

    def mask(self, row: int, depth: int = 0) -> UInt32:
        """What ``row`` may choose, ``[ceil(vocab / 32)]``, to be written: bit ``i % 32`` of word ``i // 32``.

        ``depth``: behind so many drafts. Empty in a sampler without masks.
        """
        mask: UInt32 = self.columns["mask"][row, depth * self._words : (depth + 1) * self._words]
        return mask

    def sample(self, logits: Float32, rows: Int32, positions: Int32, out: SampleOutputs) -> None:
        """Choose one token for each row of ``logits`` ``[B, vocab]``, which is only read.

        ``rows`` ``[B]``: the table row of each row of logits, -1 to skip it. ``positions`` ``[B]``: the index
        in its sequence of the token to be chosen (the context length), which with the seed decides the random
        number. A row with a fault gets a status; the others do not notice. Raises ValueError for a wrong
        shape, a row out of range, or a row that asked for more top log-probabilities than ``out`` holds,
        BufferError or ValueError for a non-contiguous array; nothing is sampled then.
        """
        self._kernel.sample(logits, rows, positions, *_arrays(out))

    def choose(
        self, logits: Float32, rows: Int32, positions: Int32, out: SampleOutputs, drafts: Int32 | None = None
    ) -> None:
        """As `sample`, without log-probabilities, since tokens may be waited for: `compute_logprobs` adds them.

        ``drafts`` ``[B]``: the token that the next row of logits supposes was chosen here, -1: none. Behind one that
        was not chosen, rows are skipped up to the last that supposes anything.
        """
        extra = () if drafts is None else (drafts,)
        self._kernel.choose(logits, rows, positions, *_arrays(out), *extra)

    def compute_logprobs(self, logits: Float32, rows: Int32, positions: Int32, out: SampleOutputs) -> None:
        """The log-probabilities of the tokens that `choose` has put into ``out``, where rows want them."""
        self._kernel.compute_logprobs(logits, rows, positions, *_arrays(out))

    def _set_mask(self, row: int, masked: bool) -> None:
        if masked and not self._words:
            raise ValueError("the request has a grammar, and this sampler was made without masks")
        self.columns["mask"][row] = 0
        self.columns["masked"][row] = masked

    def _set_scalars(self, row: int, params: SamplingParams, seed: int | None) -> None:
        columns = self.columns
        columns["logprobs"][row] = -1 if params.logprobs is None else min(params.logprobs, self.limits.vocab_size)
        columns["seed"][row] = _seed(params, seed)
        for name in _kernels.PARAMETERS:
            columns[name][row] = getattr(params, name)
        if params.greedy:
            columns["temperature"][row] = 0

    def _biases(self, params: SamplingParams, prompt_length: int, end_ids: Sequence[int]) -> list[_Bias]:
        """What fits into the columns, and into the logits: kernels write where these say."""
        biases = list(_biases(params, prompt_length, end_ids))
        require_few(len(biases), self.limits)
        for token, _, _ in biases:
            if not 0 <= token < self.limits.vocab_size:
                raise ValueError(f"token id {token} is not in 0 to {self.limits.vocab_size - 1}")
        return biases

    def _set_bias(self, row: int, entries: list[_Bias]) -> None:
        self.columns["bias_count"][row] = len(entries)
        if entries:
            for name, column in zip(
                ("bias_ids", "bias_values", "bias_until"), zip(*entries, strict=True), strict=True
            ):
                self.columns[name][row, : len(entries)] = column


def _arrays(out: SampleOutputs) -> tuple[Int32, Int32, Float32, Int32, Float32]:
    return out.token_ids, out.status, out.logprobs, out.top_ids, out.top_logprobs


def explain(status: int, logits: Float32, *, masked: bool = False) -> str:
    """A sentence for the log about a row ``[vocab]`` that was not sampled; ``masked``: it has a grammar."""
    if status == RowStatus.ALL_MASKED and masked:
        return "no token that the grammar allows is left to choose, with logit_bias and banned tokens"
    if status == RowStatus.ALL_MASKED:
        return "logit_bias and banned tokens leave no token to choose"
    if status == RowStatus.HISTORY_FULL:
        return "the sequence has more distinct tokens than the sampler's max_length"
    bad = np.flatnonzero(~np.isfinite(logits))
    if bad.size == 0:
        return "a penalty made a logit infinite" if status == RowStatus.INFINITE else "nothing is wrong"
    first = int(bad[0])
    return f"{bad.size} of {logits.size} logits are not finite, the first is {logits[first]} of token {first}"


def _seed(params: SamplingParams, given: int | None) -> int:
    seed = params.seed if given is None else given
    if seed in (None, -1) and not params.greedy:
        raise ParameterError("seed", seed, "a seed: one is drawn where a request is admitted, and nowhere else")
    return (seed or 0) % 2**64


def _biases(params: SamplingParams, prompt_length: int, end_ids: Sequence[int]) -> Iterator[_Bias]:
    for token, bias in params.logit_bias.items():
        yield token, bias, FOREVER
    yield from _bans(params.banned_token_ids, FOREVER)
    if params.min_tokens:
        yield from _bans({*params.stop_token_ids, *end_ids}, prompt_length + params.min_tokens)


def _bans(token_ids: Iterable[int], until: int) -> Iterator[_Bias]:
    for token in token_ids:
        yield token, -np.inf, until


def _allocate(limits: SamplingLimits, rows: int, words: int) -> dict[str, NDArray[Any]]:
    """Zeroed columns; pages of the wide ones are touched only by rows that use them."""
    seen = min(limits.max_length, limits.vocab_size)
    index = 1 << (seen * 3 // 2).bit_length()  # a hash table at most two thirds full
    widths = {"BIAS": limits.max_biased_tokens, "SEEN": seen, "INDEX": index, "MASK": words}
    return {name: np.zeros(rows) for name in _kernels.PARAMETERS} | {
        name: np.zeros(rows if shape == "ROW" else (rows, widths[shape]), np.dtype(dtype))
        for name, dtype, shape in _kernels.COLUMNS
    }
