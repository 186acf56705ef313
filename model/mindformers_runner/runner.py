"""`MindFormersRunner`: mindformers' Llama behind the runner interface."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.checks import require_array, require_best, require_layout, require_no_adapter, require_rows
from model.errors import ConfigurationError, ModelError, StepError
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

MOST_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Binding:
    """Device inputs over the arrays of one ring slot and bucket."""

    bucket: Bucket
    inputs: StepInputs
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
        self._output: Any = None  # logits of the step that was launched last; None: it has not computed yet

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
        from model.mindformers_runner.execution import idle_inputs
        from model.mindformers_runner.first_step import try_one_token

        with _old_objects_left_alone():
            for done, bucket in enumerate(self.facts.buckets, start=1):
                if bucket not in self._compiled:
                    self._compile(self.bind(idle_inputs(bucket, self.facts.block_table_width)))
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
        return Binding(bucket, inputs, self._running().prepare(inputs), check)

    def launch(self, binding: Binding) -> None:
        """Raises StepError for indices out of range; then nothing is computed."""
        execution = self._running()
        binding.check()
        if binding.bucket not in self._compiled:
            _log.warning(
                "compiling a graph for %d tokens x %d rows during a step, because warm_up() was not called",
                binding.bucket.tokens,
                binding.bucket.rows,
            )
            self._compile(binding)
        require_no_adapter(binding.inputs, self.facts)
        self._launched, self._output = binding, None
        if execution.computes_by_itself:
            try:
                self._output = self._run(binding)
            except RuntimeError as error:
                raise _failed(error) from error

    def fetch(self, rows: Int32, logits: Float32) -> None:
        """See `Runner.fetch`. Raises StepError when the step failed."""
        binding = self._under_way()
        require_array(logits, "logits", (len(rows), self.facts.vocab_size), np.float32)
        require_rows(rows, binding.bucket)
        self._read(lambda execution, output: execution.read(output, rows, logits))

    def fetch_best(self, best: Best, targets: Int32 | None = None) -> None:
        """See `Runner.fetch_best`. Raises StepError when the step failed."""
        require_best(best, targets, self._under_way().bucket, self.facts)
        self._read(lambda execution, output: execution.read_best(output, best, targets))

    def abandon(self) -> None:
        """A device that has begun must be done with the arrays first."""
        binding, self._launched = self._launched, None
        output, self._output = self._output, None
        if binding is not None and output is not None:
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

    def _read(self, read: Callable[[Execution, Any], None]) -> None:
        """From the logits of the step, which stay until the next is launched."""
        binding = self._under_way()
        try:
            if self._output is None:
                self._output = self._run(binding)
            read(self._running(), self._output)
        except RuntimeError as error:
            self._output = self._launched = None
            raise _failed(error) from error

    def _run(self, binding: Binding) -> Any:
        return self._running().run(binding.prepared)

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

        if self._on_cpu:
            return StaticExecution(network, self.facts.vocab_size)
        return DynamicExecution(network)

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
        candidates=min(MOST_CANDIDATES, vocab_size),
        scores=True,
    )
