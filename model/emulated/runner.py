"""The emulated device as a `Runner`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checks import require_best, require_layout, require_no_adapter, require_rows
from ..errors import ModelError
from ..runner import Best, Float32, Int32, Progress, Runner, RunnerFacts, StepInputs
from ..sampling import Sampler, SamplingLimits
from . import _device
from .fault import fail_at
from .reference import base_logits
from .settings import EmulatedSettings

Scalar = TypeVar("Scalar", bound=np.generic)
UInt64 = NDArray[np.uint64]
MOST_CANDIDATES = 64


Arrays: TypeAlias = tuple[Int32, Int32, Int32, Int32, Int32, Int32, Int32, UInt64, UInt64]
"""As the device takes them: the step's, and hashes of tokens ``[T]`` and of sampled positions ``[S]``."""


@dataclass(slots=True)
class Binding:
    """A step's arrays and room for its hashes."""

    inputs: StepInputs
    arrays: Arrays
    sample_hashes: UInt64  # [S]
    known: int = 0  # of these, in the step under way


@dataclass(slots=True)
class Launched:
    """A step under way, or done: it can be fetched until the next one."""

    binding: Binding
    began_ns: int
    done_ns: int = 0  # until then the device is busy; 0: it has not computed yet


class EmulatedRunner(Runner):
    """A step is fetched when the cost model's time since its launch has passed; its own work is part of that. What is
    brought to the host takes its time behind it."""

    def __init__(self, settings: EmulatedSettings) -> None:
        self.settings = settings
        on_device = settings.greedy_on_device
        self.facts = RunnerFacts(
            name=f"emulated {settings.name}",
            device="emulated",
            vocab_size=settings.vocab_size,
            max_length=settings.max_length,
            num_blocks=settings.num_blocks,
            block_size=settings.block_size,
            block_table_width=-(-settings.max_length // settings.block_size),
            buckets=settings.buckets,
            candidates=min(MOST_CANDIDATES, settings.vocab_size) if on_device else 0,
            scores=on_device,
        )
        self._choice = settings.choice
        self._spin_ns = int(settings.spin_us * 1e3)
        self._jitter = np.random.default_rng(settings.cost.jitter_seed)
        self._cache: UInt64 | None = None
        self._base: Float32 | None = None
        self._sampler: Sampler | None = None  # made when more than the argmax is wanted first
        self._launched: Launched | None = None

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
        require_layout(inputs, self.facts)
        x, tokens = inputs, np.zeros(inputs.bucket.tokens, np.uint64)
        hashes = np.zeros(inputs.bucket.samples, np.uint64)
        arrays = (
            x.input_ids, x.positions, x.slot_mapping, x.valid_length, x.q_seq_lens, x.sample_index, x.block_tables,
            tokens, hashes,
        )  # fmt: skip
        return Binding(inputs, arrays, hashes)

    def launch(self, binding: Binding) -> None:
        """Raises ValueError for a row with an adapter: there are none."""
        require_no_adapter(binding.inputs, self.facts)
        binding.known = 0
        self._launched = Launched(binding, time.monotonic_ns())

    def fetch(self, rows: Int32, logits: Float32) -> None:
        """See `Runner.fetch`. Raises ValueError for inputs that a device would read or write out of bounds."""
        step = self._under_way()
        require_rows(rows, step.binding.inputs.bucket)
        self._compute(step, int(rows.max(initial=-1)) + 1)
        _device.write_logits(step.binding.sample_hashes, rows, self._loaded(self._base), logits, self._choice)
        self._wait(step, len(rows) * self.settings.cost.per_logits_row_ms)

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        step, (count, k) = self._under_way(), best.ids.shape
        require_best(best, targets, step.binding.inputs.bucket, self.facts)
        self._compute(step, count)
        if k == 1 and best.logits is best.log_sum_exp is best.target_logit is None:
            _device.write_tokens(step.binding.sample_hashes, best.ids, self._choice)
        else:
            self._write_best(step.binding, best, targets)
        self._wait(step, count * (k - 1) * self.settings.cost.per_candidate_ms)

    def _write_best(self, binding: Binding, best: Best, targets: Int32 | None) -> None:
        """From the very logits that `fetch` would bring."""
        count, vocabulary = len(best.ids), self.facts.vocab_size
        logits = np.empty((count, vocabulary), np.float32)
        rows = np.arange(count, dtype=np.int32)
        _device.write_logits(binding.sample_hashes, rows, self._loaded(self._base), logits, self._choice)
        if self._sampler is None:
            self._sampler = Sampler(SamplingLimits(vocabulary, max_length=1), 1)
        self._sampler.best(logits, best.ids, best.logits, best.log_sum_exp, targets, best.target_logit)

    def abandon(self) -> None:
        self._launched = None

    def close(self) -> None:
        self._cache = self._base = self._launched = None

    def _under_way(self) -> Launched:
        if self._launched is None:
            raise ModelError("no step is under way: call launch() before fetch()")
        return self._launched

    def _compute(self, step: Launched, samples: int) -> None:
        """Compute at once what the first sampled positions need, and record until when the device would be busy."""
        binding = step.binding
        if not step.done_ns:
            step.done_ns = step.began_ns + self._advance(binding)
        if samples > binding.known:
            facts, cache = self.facts, self._loaded(self._cache)
            _device.look(samples, cache, *binding.arrays, facts.block_size, self.settings.seed)
            binding.known = samples

    def _wait(self, step: Launched, transfer_ms: float) -> None:
        """Until the device would be done, and what it brings would be here."""
        step.done_ns += int(transfer_ms * 1e6)
        _device.wait_until(step.done_ns, self._spin_ns)

    def _advance(self, binding: Binding) -> int:
        """Fill the cache and the hashes of tokens; returns what the step costs, in nanoseconds."""
        settings, cache = self.settings, self._loaded(self._cache)
        tokens, rows, cached = _device.advance(cache, *binding.arrays, self.facts.block_size, settings.seed)
        if settings.fault_token is not None:
            fail_at(settings.fault_token, settings.fault, binding.inputs.input_ids[:tokens])
        cost = settings.cost
        noise_ms = cost.jitter_ms * self._jitter.standard_normal() if cost.jitter_ms else 0.0
        return int(max(cost.step_ms(tokens, rows, cached) + noise_ms, 0.0) * 1e6)

    def _loaded(self, array: NDArray[Scalar] | None) -> NDArray[Scalar]:
        if array is None:
            raise ModelError(f"{self.facts.name} is not loaded: call load() before a step")
        return array
