"""`MindFormersRunner`: mindformers' Llama behind the runner interface."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.errors import ConfigurationError, ModelError, StepError
from model.layout import MOST_CANDIDATES, padding, require_best, require_fetch, require_layout, require_range
from model.mindformers_runner.checkpoint import open_checkpoint
from model.mindformers_runner.configuration import read_architecture
from model.mindformers_runner.memory import available_memory, require_memory
from model.mindformers_runner.native import StepCheck, kernel_name, last_error, load_library, set_threads
from model.mindformers_runner.settings import MindFormersSettings
from model.runner import Best, Bucket, Float32, Int32, Progress, Runner, RunnerFacts, StepInputs

if TYPE_CHECKING:
    from model.mindformers_runner.compile_cache import CompileCache
    from model.mindformers_runner.execution import Execution

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Binding:
    """Device inputs over the arrays of one ring slot and bucket."""

    bucket: Bucket
    prepared: Any
    check: StepCheck


class MindFormersRunner(Runner):
    """mindformers' `LlamaForCausalLM` with a paged KV cache, on CPU or Ascend.

    Constructing it reads the configuration and the checkpoint's headers, so that everything that does not fit
    is known before anything is allocated. MindSpore itself is only imported by `load`.

    On CPU a step must not hold indices out of range, in padding neither: `step` raises StepError for them and
    the runner stays usable.

    Raises:
        ConfigurationError, CheckpointError, CapacityError: from the constructor.
    """

    def __init__(self, settings: MindFormersSettings) -> None:
        self.settings = settings
        self.architecture = read_architecture(settings.config_path)
        self._weights = (
            open_checkpoint(settings.checkpoint_path, self.architecture) if settings.checkpoint_path else None
        )
        self.facts = _facts(self.architecture.vocab_size, self._max_length(), self._name(), settings)
        self._require_memory()
        load_library()
        self._network: Any = None
        self._execution: Execution | None = None
        self._cache: CompileCache | None = None
        self._compiled: set[Bucket] = set()
        self._launched: Binding | None = None
        self._output: Any = None  # logits of the step under way, once it computes
        self._fetched = False  # at least once

    def load(self, progress: Progress | None = None) -> None:
        """Build the network, allocate the KV cache, load the weights.

        Raises CapacityError when memory has become short since the runner was made, and CheckpointError when
        a tensor cannot be read.
        """
        self._require_memory()
        from model.mindformers_runner.import_quietly import import_mindformers

        import_mindformers()
        from model.mindformers_runner.compile_cache import CompileCache
        from model.mindformers_runner.network import build_network, use_device
        from model.mindformers_runner.weights import load_weights, random_weights

        use_device(self.settings)
        set_threads(self.settings.thread_count())
        network = build_network(self.architecture, self.settings, self.facts.max_length)
        weights = self._weights or random_weights(self.architecture, self.settings.seed)
        load_weights(network, weights, np.float32 if self._on_cpu else np.float16, progress)
        self._execution = self._make_execution(network)
        self._cache = CompileCache(self.settings, self.architecture, self.facts)
        self._network = network
        _log.info("loaded %s; attention: %s, %s", self.facts.name, self.settings.attention, kernel_name())

    def warm_up(self, progress: Progress | None = None) -> None:
        """Compile every bucket, before the KV cache holds anything. Raises ModelError for logits not finite."""
        from model.mindformers_runner.first_step import try_one_token

        with _old_objects_left_alone():
            for done, bucket in enumerate(self.facts.buckets, start=1):
                if bucket not in self._compiled:
                    self._compile(self.bind(padding(bucket, self.facts)))
                if done == 1:
                    try_one_token(self, bucket)
                if progress is not None:
                    progress("compiling", done, len(self.facts.buckets))

    def bind(self, inputs: StepInputs) -> Binding:
        """Tensors over the arrays; on CPU every later step reads the arrays' memory as it is then."""
        bucket = require_layout(inputs, self.facts)
        check = StepCheck(
            inputs,
            num_blocks=self.facts.num_blocks,
            block_size=self.facts.block_size,
            vocab_size=self.facts.vocab_size,
            max_length=self.facts.max_length,
        )
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
        output, fetched = self._output, self._fetched
        self._launched = self._output = None
        if output is not None and not fetched:
            with contextlib.suppress(RuntimeError):  # its result is not needed
                output.asnumpy()

    def close(self) -> None:
        """Free the network, the KV cache and the weights."""
        self._execution = self._network = self._weights = self._output = self._launched = None
        self._compiled.clear()

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
        try:
            yield output
        except RuntimeError as error:
            raise _failed(error) from error
        self._launched, self._output, self._fetched = binding, output, True

    def _run(self, binding: Binding) -> Any:
        try:
            return self._running().run(binding.prepared)
        except RuntimeError as error:
            raise _failed(error) from error

    def _compile(self, binding: Binding) -> None:
        """The first run of a bucket compiles it."""
        if self._cache is None:
            raise ModelError("load the runner before it compiles")
        with self._cache.compiling():
            self._running().run(binding.prepared).asnumpy()
        self._compiled.add(binding.bucket)

    def _running(self) -> Execution:
        if self._execution is None:
            raise ModelError(f"{self.facts.name} is not loaded")
        return self._execution

    def _make_execution(self, network: Any) -> Execution:
        from model.mindformers_runner.execution import DynamicExecution, StaticExecution

        kind = StaticExecution if self._on_cpu else DynamicExecution
        return kind(network, self.facts)

    @property
    def _on_cpu(self) -> bool:
        return self.settings.device == "CPU"

    def _name(self) -> str:
        shape = self.architecture
        return f"mindformers Llama {shape.hidden_size} x {shape.num_layers}"

    def _max_length(self) -> int:
        wanted, most = self.settings.max_length, self.architecture.max_position
        if wanted is not None and wanted > most:
            raise ConfigurationError(f"max_length is {wanted}, but the model knows {most} positions")
        return wanted or most

    def _require_memory(self) -> None:
        if self._on_cpu:
            require_memory(self.architecture, self.settings, available_memory())


def _failed(error: RuntimeError) -> StepError:
    return StepError(f"the step failed and the runner must be loaded again: {last_error() or error}")


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """MindSpore collects garbage before each compilation; a tenth of the time goes into what is here to stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _facts(vocab_size: int, max_length: int, name: str, settings: MindFormersSettings) -> RunnerFacts:
    return RunnerFacts(
        name=name,
        device=settings.device,
        vocab_size=vocab_size,
        max_length=max_length,
        num_blocks=settings.num_blocks,
        block_size=settings.block_size,
        block_table_width=-(-max_length // settings.block_size),
        buckets=settings.effective_buckets(),
        candidates=min(MOST_CANDIDATES, vocab_size) if settings.greedy_on_device else 0,
        scores=settings.greedy_on_device,
    )
