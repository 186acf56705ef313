"""The runner interface: what turns the arrays of a step descriptor into logits.

A runner owns a device, the weights and the paged KV cache. It knows nothing about text, HTTP, rings or
scheduling. There is one kind of step: ``T`` flattened new tokens over ``B`` rows, any mix of prefill chunks
and decode rows. ``T`` and ``B`` are bucket sizes: padding tokens have slot -1 and lie behind the last real
token, padding rows have ``q_seq_lens`` 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

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
    gather_index: Int32  # [B] index in T of the row's last new token
    block_tables: Int32  # [B, W] physical KV blocks of each row; entries past the context are ignored

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[0]

    @property
    def rows(self) -> int:
        return self.valid_length.shape[0]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A static shape that a runner is warmed up for."""

    tokens: int
    rows: int


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """Capacity and vocabulary; complete before any weight is loaded or any memory allocated."""

    name: str  # shown to users; says "emulated" where nothing real computes
    device: str  # "CPU", "Ascend" or "emulated"
    vocab_size: int
    max_length: int  # tokens per sequence, prompt and output together
    num_blocks: int
    block_size: int  # tokens per KV block
    block_table_width: int  # W
    buckets: tuple[Bucket, ...]  # ascending; every step has exactly one of these shapes
    greedy_on_device: bool  # fetch_best is available


class Runner(ABC):
    """Lifecycle: construct (validates, allocates nothing) → load → warm_up → bind; launch, fetch … → close."""

    facts: RunnerFacts

    @abstractmethod
    def load(self, progress: Progress | None = None) -> None:
        """Allocate the KV cache and load the weights. Raises a `model.errors.ModelError`."""

    @abstractmethod
    def warm_up(self, progress: Progress | None = None) -> None:
        """Compile every bucket, smallest first, so that no later step compiles."""

    @abstractmethod
    def bind(self, inputs: StepInputs) -> Any:
        """Prepare device inputs over these arrays, once per ring slot and bucket; steps read them anew.

        The arrays must stay mapped until the binding is dropped. Raises ValueError for a wrong shape, dtype
        or a non-contiguous array.
        """

    @abstractmethod
    def launch(self, binding: Any) -> None:
        """Start a step. Its arrays must not change before it is fetched, and only one may be under way.

        What computes by itself has begun when this returns; other runners compute when they are fetched.
        """

    @abstractmethod
    def fetch(self, logits: Float32) -> None:
        """Wait for the step under way, and write its rows' logits into ``logits`` ``[rows, vocab]``, C-contiguous."""

    def fetch_best(self, token_ids: Int32, logprobs: Float32 | None = None) -> None:
        """Wait for the step under way, and write only each row's argmax into ``token_ids`` ``[rows]``, and the
        log-probability of that token into ``logprobs`` ``[rows]``, if that is wanted. Token -1: the row's logits
        were not finite."""
        raise NotImplementedError(f"{self.facts.name} has no greedy path")

    @abstractmethod
    def abandon(self) -> None:
        """Forget the step under way, if there is one: it will not be fetched, and its arrays will be unmapped."""

    def step(self, binding: Any, logits: Float32) -> None:
        """`launch` and `fetch`."""
        self.launch(binding)
        self.fetch(logits)

    def step_greedy(self, binding: Any, token_ids: Int32, logprobs: Float32 | None = None) -> None:
        """`launch` and `fetch_best`."""
        self.launch(binding)
        self.fetch_best(token_ids, logprobs)

    @abstractmethod
    def close(self) -> None:
        """Free device and memory. Twice is harmless."""
