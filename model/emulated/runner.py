"""The emulated device as a `Runner`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..layout import (
    MOST_CANDIDATES,
    compile_order,
    is_argmax_alone,
    require_best,
    require_fetch,
    require_layout,
    shape_name,
)
from ..runner import Best, Bucket, Float32, Float64, Int32, Progress, Runner, RunnerFacts, StepInputs
from . import _device
from .fault import fail_at
from .reference import base_logits
from .settings import EmulatedSettings

_NOT_COMPUTED = -1
_CHUNK = 128  # logits that are summed up together (`CHUNK` in model/sampling/vector.h)

Scalar = TypeVar("Scalar", bound=np.generic)
UInt64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Binding:
    """A step's arrays and room for its hashes."""

    inputs: StepInputs
    bucket: Bucket
    hashes: UInt64  # [T] of the context of each new token


class EmulatedRunner(Runner):
    """A step is fetched when the cost model's time since its launch has passed; its own work is part of that. What
    a fetch brings to the host costs time of its own, from then on or from when it is asked for.
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
            candidates=min(MOST_CANDIDATES, settings.vocab_size) if settings.greedy_on_device else 0,
            scores=settings.greedy_on_device,
            adapters=settings.adapters,
            deterministic=True,
        )
        self._choice = settings.choice
        self._spin_ns = int(settings.spin_us * 1e3)
        self._jitter = np.random.default_rng(settings.cost.jitter_seed)
        self._cache: UInt64 | None = None
        self._base: Float32 | None = None  # a row without its spikes
        self._sums: Float64 | None = None  # over its chunks
        self._compiled: set[Bucket] = set()
        self._launched: Binding | None = None
        self._launched_ns = 0
        self._done_ns = _NOT_COMPUTED  # when the device is done with the step and what was fetched

    def load(self, progress: Progress | None = None) -> None:
        self._cache = np.zeros(self.facts.num_blocks * self.facts.block_size, np.uint64)
        self._base = base_logits(self.settings)
        self._sums = np.zeros((3, -(-self.facts.vocab_size // _CHUNK)))
        _device.fill_sums(self._base, self._sums)
        if progress is not None:
            progress("loading (emulated device, no weights)", 1, 1)

    @property
    def compiles(self) -> bool:
        return self.settings.compile_s > 0

    def warm_up(self, progress: Progress | None = None, buckets: Sequence[Bucket] | None = None) -> None:
        wanted = compile_order(self.facts.buckets) if buckets is None else buckets
        for done, bucket in enumerate(wanted, start=1):
            self.compile(bucket)
            if progress is not None:
                progress("warming up (emulated)", done, len(wanted))

    def compile(self, bucket: Bucket) -> None:
        if bucket not in self._compiled:
            time.sleep(self.settings.compile_s)
            self._compiled.add(bucket)

    def bind(self, inputs: StepInputs) -> Binding:
        """See `Runner.bind`; also raises ValueError for a shape that is none of the buckets. Where compiling takes
        time, raises ModelError for one that is not compiled: a step must not take that time unexpectedly."""
        bucket = require_layout(inputs, self.facts)
        if self.compiles and bucket not in self._compiled:
            raise ModelError(f"the bucket of {shape_name(bucket)} is not compiled: call compile() before bind()")
        return Binding(inputs, bucket, np.zeros(bucket.tokens, np.uint64))

    def launch(self, binding: Binding) -> None:
        if self._cache is None:
            raise self._not_loaded()
        if self._launched is not None and self._done_ns == _NOT_COMPUTED:
            raise ModelError("a step is under way: fetch() or abandon() it before the next launch()")
        self._launched, self._done_ns = binding, _NOT_COMPUTED
        self._launched_ns = time.monotonic_ns()

    def fetch(self, rows: Int32, logits: Float32) -> None:
        """See `Runner.fetch`. Raises ValueError for inputs that a device would read or write out of bounds."""
        asked_ns, binding = time.monotonic_ns(), self._under_way()
        require_fetch(rows, logits, self.facts)
        self._compute(binding)
        index = binding.inputs.sample_index
        _device.write_logits(binding.hashes, index, rows, self._loaded(self._base), logits, self._choice)
        self._wait(asked_ns, self.settings.cost.per_logits_row_ms * len(rows))

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        """See `Runner.fetch_best`, and `fetch` for errors."""
        binding = self._under_way()
        if is_argmax_alone(best, targets) and self.facts.candidates:  # the way of most steps
            self._compute(binding)
            _device.write_tokens(binding.hashes, binding.inputs.sample_index, best.ids, self._choice)
            _device.wait_until(self._done_ns, self._spin_ns)
            return
        asked_ns = time.monotonic_ns()
        require_best(best, targets, binding.bucket, self.facts)
        self._compute(binding)
        self._write_best(binding, best, targets)
        n, k = best.ids.shape
        self._wait(asked_ns, self.settings.cost.per_candidate_ms * n * (k - 1))

    def abandon(self) -> None:
        self._launched = None

    def close(self) -> None:
        self._cache = self._base = self._sums = self._launched = None

    def _under_way(self) -> Binding:
        if self._launched is None:
            raise ModelError("no step is under way: call launch() before fetch()")
        return self._launched

    def _compute(self, binding: Binding) -> None:
        """Compute at once, and record until when the device would be busy."""
        if self._done_ns != _NOT_COMPUTED:
            return
        self._launched = None  # a step that fails is not under way
        self._done_ns = self._launched_ns + self._advance(binding)
        self._launched = binding

    def _wait(self, asked_ns: int, transfer_ms: float) -> None:
        """Until the device is done. It begins to bring what was asked for when it has computed the step."""
        if transfer_ms:
            self._done_ns = max(self._done_ns, asked_ns) + int(transfer_ms * 1e6)
        _device.wait_until(self._done_ns, self._spin_ns)

    def _write_best(self, binding: Binding, best: Best, targets: Int32 | None) -> None:
        _device.write_best(
            binding.hashes,
            binding.inputs.sample_index,
            self._loaded(self._base),
            self._loaded(self._sums),
            best.ids,
            best.logits,
            best.log_sum_exp,
            targets,
            best.target_logit,
            self._choice,
        )

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
            x.adapter,
            x.block_tables,
            binding.hashes,
            self.facts.block_size,
            self.facts.adapters,
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
            raise self._not_loaded()
        return array

    def _not_loaded(self) -> ModelError:
        return ModelError(f"{self.facts.name} is not loaded: call load() before a step")
