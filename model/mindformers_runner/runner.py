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
from numpy.typing import NDArray

from model.errors import ConfigurationError, ModelError, StepError
from model.mindformers_runner.binding import require_array, require_layout
from model.mindformers_runner.checkpoint import open_checkpoint
from model.mindformers_runner.configuration import read_architecture
from model.mindformers_runner.memory import available_memory, require_memory
from model.mindformers_runner.native import StepCheck, kernel_name, last_error, load_library, set_threads
from model.mindformers_runner.settings import MindFormersSettings
from model.runner import Bucket, Float32, Int32, Progress, Runner, RunnerFacts, StepInputs

if TYPE_CHECKING:
    from model.mindformers_runner.argmax import BestTokens
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
        self._output: Any = None  # of the step under way, where it computes by itself
        self._best: BestTokens | None = None

    def load(self, progress: Progress | None = None) -> None:
        """Build the network, allocate the KV cache, load the weights.

        Raises CapacityError when memory has become short since the runner was made, and CheckpointError when
        a tensor cannot be read.
        """
        self._require_memory()
        from model.mindformers_runner.import_quietly import import_mindformers

        import_mindformers()
        from model.mindformers_runner.argmax import BestTokens
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
        self._best = BestTokens(self.facts.vocab_size, self.settings.max_rows)
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
        return Binding(bucket, self._running().prepare(inputs), check)

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
        self._launched = binding
        if execution.computes_by_itself:
            self._output = self._run(binding)

    def fetch(self, logits: Float32) -> None:
        """See `Runner.fetch`. Raises StepError when the step failed."""
        binding = self._under_way()
        require_array(logits, "logits", (binding.bucket.rows, self.facts.vocab_size), np.float32)
        np.copyto(logits, self._result(binding))

    def fetch_best(self, token_ids: Int32, logprobs: Float32 | None = None) -> None:
        """See `Runner.fetch_best`. Raises StepError when the step failed."""
        binding = self._under_way()
        for array, name, kind in ((token_ids, "token_ids", np.int32), (logprobs, "logprobs", np.float32)):
            if array is not None:
                require_array(array, name, (binding.bucket.rows,), kind)
        assert self._best is not None  # nothing is launched before `load`
        self._best.choose(self._result(binding), token_ids, logprobs)

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

    def _result(self, binding: Binding) -> NDArray[np.float32]:
        """The step's logits in MindSpore's memory, valid until the next step."""
        output, self._output, self._launched = self._output, None, None
        try:
            logits: NDArray[np.float32] = (self._run(binding) if output is None else output).asnumpy()
        except RuntimeError as error:
            raise _failed(error) from error
        return logits

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

        return StaticExecution(network) if self._on_cpu else DynamicExecution(network)

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
        greedy_on_device=True,
    )
