"""`GraphRunner`: a network of MindSpore, with a paged KV cache, behind the runner interface."""

from __future__ import annotations

import contextlib
import gc
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.errors import ConfigurationError, ModelError, StepError
from model.layout import (
    MOST_CANDIDATES,
    compile_order,
    fixed_bucket,
    padding,
    require_best,
    require_fetch,
    require_layout,
    require_range,
)
from model.mindspore_common.memory import (
    MemoryNeed,
    Sizes,
    available_memory,
    kv_block_bytes,
    memory_need,
    require_memory,
)
from model.mindspore_common.native import StepCheck, kernel_name, last_error, load_library, set_threads
from model.mindspore_common.ranks import leave
from model.mindspore_common.settings import GraphSettings
from model.runner import Best, Bucket, Float32, Int32, Progress, Runner, RunnerFacts, StepInputs

if TYPE_CHECKING:
    from model.checkpoint.weight import Weight
    from model.mindspore_common.compile_cache import CompileCache
    from model.mindspore_common.execution import Execution

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """Device inputs over the arrays of one ring slot and bucket."""

    bucket: Bucket
    prepared: Any
    check: StepCheck


class GraphRunner(Runner):
    """What engines on MindSpore share. An engine says what it builds: `_weights`, `_build`, `_compile_cache`; and in
    which numbers it computes, unless that is float32: `_arithmetic`.

    Constructing one allocates nothing; MindSpore itself is only imported by `load`.

    On CPU a step must not hold indices out of range, in padding neither: `step` raises StepError for them and
    the runner stays usable.
    """

    settings: GraphSettings
    _weights: tuple[Weight, ...]
    _arithmetic: str = "float32"

    def __init__(
        self, name: str, sizes: Sizes, settings: GraphSettings, table_bytes: int = 0, weight_bytes: int | None = None
    ) -> None:
        """``table_bytes``: memory of what is neither weights nor KV cache, such as rotary tables; ``weight_bytes``:
        where it is not that of all tensors in the device's number format.

        Raises ConfigurationError and CapacityError.
        """
        self._sizes, self._own_bytes = sizes, (table_bytes, weight_bytes)
        self.facts = _facts(sizes.vocab_size, longest(settings, sizes), name, settings)
        self._require_memory()
        load_library()
        self._network: Any = None
        self._execution: Execution | None = None
        self._cache: CompileCache | None = None
        self._compiled: set[Bucket] = set()
        self._launched: Binding | None = None
        self._output: Any = None  # logits of the step under way, once it computes
        self._fetched = False  # at least once
        self._deterministic = True  # as far as is known

    @property
    def deterministic(self) -> bool:
        return self._deterministic and self.facts.deterministic

    @abstractmethod
    def _build(self, progress: Progress | None) -> tuple[Any, Execution]:
        """The network with its weights and an empty KV cache, and how to run it."""

    def _compile_cache(self) -> CompileCache | None:
        """None: one graph serves all buckets, and needs none."""
        return None

    def load(self, progress: Progress | None = None) -> None:
        """Build the network, allocate the KV cache, load the weights.

        Raises CapacityError when memory has become short since the runner was made, and CheckpointError when
        a tensor cannot be read.
        """
        self._require_memory()
        network, execution = self._build(progress)
        set_threads(self.settings.thread_count())
        self._cache, self._execution, self._network = self._compile_cache(), execution, network
        if self._cache is None:
            self._compiled = set(self.facts.buckets)
        _log.info("loaded %s; attention kernel: %s", self.facts.name, self._kernel_name())

    def memory_need(self) -> MemoryNeed:
        """Bytes that this runner will take. On Ascend weights and KV cache lie in device memory."""
        return memory_need(self._sizes, self.settings, *self._own_bytes)

    def warm_up(self, progress: Progress | None = None, buckets: Sequence[Bucket] | None = None) -> None:
        """See `Runner.warm_up`. Raises ModelError for logits not finite."""
        from model.mindspore_common.first_step import places_agree, try_one_token

        wanted = compile_order(self.facts.buckets) if buckets is None else buckets
        fixed = fixed_bucket(self.facts.buckets) if self.facts.deterministic else None
        with _old_objects_left_alone():
            for done, bucket in enumerate(wanted, start=1):
                self.compile(bucket)
                if done == 1:
                    try_one_token(self, bucket, self._arithmetic)
                if bucket == fixed and not places_agree(self, bucket):
                    self._deterministic = False
                    _log.warning(
                        "not deterministic: with these threads a row's numbers depend on its place in a step"
                    )
                if progress is not None:
                    progress("compiling", done, len(wanted))

    def compile(self, bucket: Bucket) -> None:
        """See `Runner.compile`. Raises StepError."""
        if bucket not in self._compiled:
            self._compile(self.bind(padding(bucket, self.facts)))

    def bind(self, inputs: StepInputs) -> Binding:
        """Tensors over the arrays; on CPU every later step reads the arrays' memory as it is then."""
        bucket = require_layout(inputs, self.facts)
        check = StepCheck(inputs, self.facts)
        return Binding(bucket, self._running().prepare(inputs), check)

    def launch(self, binding: Binding) -> None:
        """Raises StepError for indices out of range; then nothing is computed."""
        execution = self._running()
        if self._launched is not None and not self._fetched:
            raise ModelError("a step is under way: fetch() or abandon() it before the next launch()")
        self._launched, self._output, self._fetched = None, None, False
        binding.check()
        if binding.bucket not in self._compiled:
            _log.warning(
                "compiling a graph for %d tokens x %d rows during a step, because warm_up() was not called",
                binding.bucket.tokens,
                binding.bucket.rows,
            )
            self._compile(binding)
        if execution.computes_by_itself:
            self._output = self._run(binding)
        self._launched = binding

    def fetch(self, rows: Int32, logits: Float32) -> None:
        """See `Runner.fetch`. Raises StepError when the step failed."""
        binding = self._under_way()
        require_fetch(rows, logits, self.facts)
        require_range(rows, "rows", binding.bucket.samples)
        with self._computed(binding) as output:
            self._running().results.fetch(output, rows, logits)

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        """See `Runner.fetch_best`. Raises StepError when the step failed."""
        binding = self._under_way()
        require_best(best, targets, binding.bucket, self.facts)
        require_range(targets, "targets", self.facts.vocab_size)
        with self._computed(binding) as output:
            self._running().results.fetch_best(output, best, targets)

    def abandon(self) -> None:
        """A device that has begun must be done with the arrays first."""
        if self._output is not None and not self._fetched:
            with contextlib.suppress(RuntimeError):  # its result is not needed
                self._output.asnumpy()
        self._launched = self._output = None

    def close(self) -> None:
        """Free the network, the KV cache and the weights; the other ranks will not see this one again."""
        self.abandon()
        self._execution = self._network = self._output = self._launched = None
        self._weights = ()
        self._compiled.clear()
        if self._cache is not None:
            self._cache.close()
        if self.settings.ranks.count > 1:
            leave()

    def _kernel_name(self) -> str:
        return kernel_name()

    def _under_way(self) -> Binding:
        if self._launched is None:
            raise ModelError("no step is under way: call launch() before fetch()")
        return self._launched

    @contextmanager
    def _computed(self, binding: Binding) -> Iterator[Any]:
        """The step's logits, in MindSpore's memory until the next step. After a failure no step is under way."""
        output, self._launched, self._output = self._output, None, None
        if output is None:
            output = self._run(binding)
        with _failures_explained():
            yield output
        self._launched, self._output, self._fetched = binding, output, True

    def _run(self, binding: Binding) -> Any:
        with _failures_explained():
            return self._running().run(binding.prepared)

    def _compile(self, binding: Binding) -> None:
        """The first run of a bucket compiles it."""
        if self._cache is None:
            raise ModelError("load the runner before it compiles")
        with self._cache.compiling(binding.bucket), _failures_explained():
            self._running().run(binding.prepared).asnumpy()
        self._compiled.add(binding.bucket)

    def _running(self) -> Execution:
        if self._execution is None:
            raise ModelError(f"{self.facts.name} is not loaded")
        return self._execution

    @property
    def _on_cpu(self) -> bool:
        return self.settings.device == "CPU"

    def _require_memory(self) -> None:
        if self._on_cpu:
            ranks = self.settings.ranks  # each asks for itself; before they are there, one asks for all
            share = available_memory() // (ranks.count if ranks.segment_fd is None else 1)
            require_memory(self.memory_need(), self._block_bytes(), self.settings, share)

    def _block_bytes(self) -> int:
        """Of keys and values of one block over all layers."""
        return kv_block_bytes(self._sizes, self.settings)


def longest(settings: GraphSettings, sizes: Sizes) -> int:
    """Most tokens of one sequence. Raises ConfigurationError for more than the model knows positions."""
    wanted, most = settings.max_length, sizes.max_position
    if wanted is not None and wanted > most:
        raise ConfigurationError(f"max_length is {wanted}, but the model knows {most} positions")
    return wanted or most


@contextmanager
def _failures_explained() -> Iterator[None]:
    """MindSpore tells that an operator of ours failed, not why."""
    try:
        yield
    except RuntimeError as error:
        raise StepError(f"the step failed and the runner must be loaded again: {last_error() or error}") from error


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """MindSpore collects garbage before each compilation; a tenth of the time goes into what is here to stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _facts(vocab_size: int, max_length: int, name: str, settings: GraphSettings) -> RunnerFacts:
    return RunnerFacts(
        name=name,
        device=settings.device,
        vocab_size=vocab_size,
        max_length=max_length,
        num_blocks=settings.num_blocks,
        block_size=settings.block_size,
        block_table_width=-(-max_length // settings.block_size),
        buckets=settings.effective_buckets(),
        candidates=min(MOST_CANDIDATES, _least_part(vocab_size, settings)) if settings.greedy_on_device else 0,
        scores=settings.greedy_on_device,
        adapters=len(settings.adapters),
    )


def _least_part(vocab_size: int, settings: GraphSettings) -> int:
    """Of the vocabulary that a rank has. Raises ConfigurationError where one would have none."""
    count = settings.ranks.count
    least = vocab_size - (count - 1) * -(-vocab_size // count)
    if least < 1:
        raise ConfigurationError(f"a vocabulary of {vocab_size} is not enough for {count} ranks; use fewer")
    return least
