"""The emulated device as a `Runner`."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..runner import Bucket, Float32, Int32, Progress, Runner, RunnerFacts, StepInputs
from . import _device
from .fault import fail_at
from .reference import base_logits
from .settings import EmulatedSettings

Scalar = TypeVar("Scalar", bound=np.generic)
UInt64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Binding:
    """A step's arrays and room for its hashes."""

    inputs: StepInputs
    token_hashes: UInt64  # [T]
    row_hashes: UInt64  # [B]


class EmulatedRunner(Runner):
    """A step is fetched when the cost model's time since its launch has passed; its own work is part of that.

    Rows without new tokens are padding: their logits are left as they are.
    """

    def __init__(self, settings: EmulatedSettings) -> None:
        self.settings = settings
        self.facts = RunnerFacts(
            name=f"emulated {settings.name}",
            device="emulated",
            vocab_size=settings.vocab_size,
            max_length=settings.max_length,
            num_blocks=settings.num_blocks,
            block_size=settings.block_size,
            block_table_width=-(-settings.max_length // settings.block_size),
            buckets=settings.buckets,
            greedy_on_device=settings.greedy_on_device,
        )
        self._choice = settings.choice
        self._spin_ns = int(settings.spin_us * 1e3)
        self._jitter = np.random.default_rng(settings.cost.jitter_seed)
        self._cache: UInt64 | None = None
        self._base: Float32 | None = None
        self._launched: tuple[Binding, int] | None = None  # and when, in ns

    def load(self, progress: Progress | None = None) -> None:
        self._cache = np.zeros(self.facts.num_blocks * self.facts.block_size, np.uint64)
        self._base = base_logits(self.settings)
        if progress is not None:
            progress("loading (emulated device, no weights)", 1, 1)

    def warm_up(self, progress: Progress | None = None) -> None:
        for done, _ in enumerate(self.facts.buckets, start=1):
            if progress is not None:
                progress("warming up (emulated)", done, len(self.facts.buckets))

    def bind(self, inputs: StepInputs) -> Binding:
        """See `Runner.bind`; also raises ValueError for a shape that is none of the buckets."""
        _check_arrays(inputs, self.facts.block_table_width)
        if Bucket(inputs.tokens, inputs.rows) not in self.facts.buckets:
            shape = f"{inputs.tokens} tokens x {inputs.rows} rows"
            raise ValueError(f"{shape} is none of the buckets {self.facts.buckets}")
        return Binding(inputs, np.zeros(inputs.tokens, np.uint64), np.zeros(inputs.rows, np.uint64))

    def launch(self, binding: Binding) -> None:
        self._launched = binding, time.monotonic_ns()

    def fetch(self, logits: Float32) -> None:
        """See `Runner.fetch`. Raises ValueError for inputs that a device would read or write out of bounds."""
        binding, deadline_ns = self._compute()
        new = binding.inputs.q_seq_lens
        _device.write_logits(binding.row_hashes, new, self._loaded(self._base), logits, self._choice)
        _device.wait_until(deadline_ns, self._spin_ns)

    def fetch_best(self, token_ids: Int32, logprobs: Float32 | None = None) -> None:
        if not self.facts.greedy_on_device:
            super().fetch_best(token_ids, logprobs)
        binding, deadline_ns = self._compute()
        _device.write_tokens(binding.row_hashes, binding.inputs.q_seq_lens, token_ids, logprobs, self._choice)
        _device.wait_until(deadline_ns, self._spin_ns)

    def abandon(self) -> None:
        self._launched = None

    def close(self) -> None:
        self._cache = self._base = self._launched = None

    def _compute(self) -> tuple[Binding, int]:
        """Compute at once, and record until when the device would be busy."""
        launched, self._launched = self._launched, None
        if launched is None:
            raise ModelError("no step is under way: call launch() before fetch()")
        binding, started_ns = launched
        return binding, started_ns + self._advance(binding)

    def _advance(self, binding: Binding) -> int:
        """Fill the cache and the hashes; returns what the step costs, in nanoseconds."""
        x = binding.inputs
        tokens, rows, cached = _device.advance(
            self._loaded(self._cache),
            x.input_ids,
            x.positions,
            x.slot_mapping,
            x.valid_length,
            x.q_seq_lens,
            x.gather_index,
            x.block_tables,
            binding.token_hashes,
            binding.row_hashes,
            self.facts.block_size,
            self.settings.seed,
        )
        settings = self.settings
        if settings.fault_token is not None:
            fail_at(settings.fault_token, settings.fault, x.input_ids[:tokens])
        cost = settings.cost
        noise_ms = cost.jitter_ms * self._jitter.standard_normal() if cost.jitter_ms else 0.0
        return int(max(cost.step_ms(tokens, rows, cached) + noise_ms, 0.0) * 1e6)

    def _loaded(self, array: NDArray[Scalar] | None) -> NDArray[Scalar]:
        if array is None:
            raise ModelError(f"{self.facts.name} is not loaded: call load() before a step")
        return array


def _check_arrays(inputs: StepInputs, width: int) -> None:
    shapes: dict[str, tuple[int, ...]] = {field.name: (inputs.rows,) for field in fields(inputs)}
    shapes |= dict.fromkeys(("input_ids", "positions", "slot_mapping"), (inputs.tokens,))
    shapes["block_tables"] = (inputs.rows, width)
    for field in fields(inputs):
        array: Int32 = getattr(inputs, field.name)
        if array.dtype != np.int32 or array.shape != shapes[field.name] or not array.flags.c_contiguous:
            found = f"{array.dtype}{list(array.shape)}"
            raise ValueError(f"{field.name} is {found}, expected contiguous int32{list(shapes[field.name])}")
