"""The runner interface: what turns the arrays of a step into logits, candidates and scores.

A runner owns a device, the weights and the paged KV cache. It knows nothing about text, HTTP, rings or
scheduling. There is one kind of step: ``T`` flattened new tokens over ``B`` rows, any mix of prefill chunks
and decode rows, of which ``S`` positions are sampled: logits are computed for these. ``T``, ``B`` and ``S`` are
bucket sizes: padding tokens have slot -1 and lie behind the last real token, padding rows have ``q_seq_lens`` 0,
and padding in ``sample_index`` is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``, for example ``("loading weights", 3, 27)``."""


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Arrays of one step; numpy views that may lie in shared memory. A runner never copies them on the host.

    ``W``, the width of a block table, is the same in every step. Rows are in the order of their tokens:
    the tokens of row ``b`` are the ``q_seq_lens[b]`` ones that follow those of row ``b - 1``.
    """

    input_ids: Int32  # [T] token ids
    positions: Int32  # [T] position of each token in its sequence
    slot_mapping: Int32  # [T] physical KV slot (block * block_size + offset) of each new token, -1: skip
    valid_length: Int32  # [B] context length including the new tokens
    q_seq_lens: Int32  # [B] new tokens of the row, 0: padding row
    sample_index: Int32  # [S] indices in T of the positions that are sampled; a row may have none, or several
    adapter: Int32  # [B] which adapter the row's weights get, from 1; 0: none
    block_tables: Int32  # [B, W] physical KV blocks of each row; entries past the context are ignored
    sampled: Int32 | None = None
    """[B] 1: the row's new tokens were sampled, and at first each was computed in a step of its own; an engine whose
    numbers depend on that computes them so again. 0: they are of its prompt. None: as if all were."""

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.input_ids.shape[0], self.valid_length.shape[0], self.sample_index.shape[0])


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """A static shape that a runner is warmed up for; in order of their cost."""

    tokens: int
    rows: int
    samples: int = 0  # sampled positions; 0: as many as rows

    def __post_init__(self) -> None:
        if not self.samples:
            object.__setattr__(self, "samples", self.rows)


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """Capacity, vocabulary, and what the engine can do on its device; complete before any weight is loaded or any
    memory allocated."""

    name: str  # shown to users; says "emulated" where nothing real computes
    device: str  # "CPU", "Ascend" or "emulated"
    vocab_size: int
    max_length: int  # tokens per sequence, prompt and output together
    num_blocks: int
    block_size: int  # tokens per KV block
    block_table_width: int  # W
    buckets: tuple[Bucket, ...]  # ascending; every step has exactly one of these shapes
    candidates: int  # most candidates per position that `fetch_best` brings; 1: the argmax; 0: none, use `fetch`
    scores: bool  # `fetch_best` brings log-sum-exps and logits of targets
    adapters: int = 0  # that are loaded
    deterministic: bool = False
    """In steps of `model.layout.fixed_bucket` a token's logits depend, to the bit, on nothing but the tokens up to
    it, as long as these were computed in such steps, too: neither on who else is in a step, nor on the row's place in
    it, nor on which of its tokens come together. Only an engine of which that has been measured says so."""


@dataclass(frozen=True, slots=True)
class Best:
    """Where `Runner.fetch_best` writes, for the first ``n`` sampled positions of the step. Arrays are C-contiguous;
    what is None is not computed. With ``k`` = 1 and nothing else, that is the argmax alone."""

    ids: Int32  # [n, k] of the largest logits, largest first, equal ones by id; the first is -1: logits not finite
    logits: Float32 | None = None  # [n, k]
    log_sum_exp: Float64 | None = None  # [n] over the vocabulary; a log-probability is a logit less this
    target_logit: Float32 | None = None  # [n] of `targets`


class Runner(ABC):
    """Lifecycle: construct (validates, allocates nothing) → load → warm_up → bind; launch, fetch … → close."""

    facts: RunnerFacts

    @abstractmethod
    def load(self, progress: Progress | None = None) -> None:
        """Allocate the KV cache and load the weights. Raises a `model.errors.ModelError`."""

    @property
    def compiles(self) -> bool:
        """A bucket takes time before its first step."""
        return True

    @property
    def deterministic(self) -> bool:
        """What the facts say of it, if it has proved true on this host, once the runner is warm."""
        return self.facts.deterministic

    @abstractmethod
    def warm_up(self, progress: Progress | None = None, buckets: Sequence[Bucket] | None = None) -> None:
        """Compile these buckets, else every one in the order of `model.layout.compile_order`, so that no later step
        of theirs compiles. The KV cache is empty before and after it."""

    @abstractmethod
    def compile(self, bucket: Bucket) -> None:
        """One more, between two steps, none of which may be under way. The KV cache stays as it is."""

    @abstractmethod
    def bind(self, inputs: StepInputs) -> Any:
        """Prepare device inputs over these arrays, once per set of arrays and bucket; steps read them anew.

        The arrays must stay mapped until the binding is dropped. Raises ValueError for a wrong shape, dtype
        or a non-contiguous array.
        """

    @abstractmethod
    def launch(self, binding: Any) -> None:
        """Start a step. Its arrays must not change before it is fetched, and only one may be under way.

        What computes by itself has begun when this returns; other runners compute when they are fetched.
        """

    @abstractmethod
    def fetch(self, rows: Int32, logits: Float32) -> None:
        """Wait for the step, and write the logits of its sampled positions ``rows`` ``[n]`` into ``logits``
        ``[n, vocab]``, C-contiguous. No others are brought to the host.

        A step may be fetched several times, by this and by `fetch_best`, until the next is launched.
        """

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        """Wait for the step, and write what is best at its first ``n`` sampled positions. ``targets`` ``[n]``: the
        tokens that ``best.target_logit`` is for. See `RunnerFacts.candidates` and `RunnerFacts.scores`.

        Raises NotImplementedError for what the engine can't do.
        """
        raise NotImplementedError(f"{self.facts.name} brings logits only")

    @abstractmethod
    def abandon(self) -> None:
        """Forget the step under way, if there is one: it will not be fetched, and its arrays will be unmapped."""

    def step(self, binding: Any, logits: Float32) -> None:
        """`launch`, and `fetch` the first sampled positions."""
        self.launch(binding)
        self.fetch(np.arange(len(logits), dtype=np.int32), logits)

    def step_best(self, binding: Any, best: Best) -> None:
        """`launch` and `fetch_best`."""
        self.launch(binding)
        self.fetch_best(best)

    @abstractmethod
    def close(self) -> None:
        """Free device and memory. Twice is harmless."""
