"""Two ways to run the network: static shapes over shared arrays (CPU), dynamic ones on Ascend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from mindspore import Tensor
from mindspore import dtype as mstype
from mindspore.graph.api import _cell_graph_executor

from model.mindformers_runner.device_results import DeviceResults
from model.mindformers_runner.host_results import HostResults
from model.runner import Best, Float32, Int32, RunnerFacts, StepInputs

# positions in LlamaForCausalLM.construct
_INPUT_IDS, _ATTENTION_MASK, _VALID_LENGTH, _BLOCK_TABLES = 0, 4, 7, 10
_SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE = 11, 14, 16, 17
_INPUTS = 19

Arguments = list[Tensor | None]


class Execution(Protocol):
    """Prepares inputs over arrays, and runs the network on them."""

    @property
    def computes_by_itself(self) -> bool:
        """`run` returns before the step is done."""

    @property
    def results(self) -> Results:
        """Brings to the host what is wanted of the logits."""

    def prepare(self, inputs: StepInputs) -> Any: ...

    def run(self, prepared: Any) -> Tensor:
        """Logits ``[S, vocab]``, float32."""


class Results(Protocol):
    """Waits for a step's logits ``[S, vocab]``; see `Runner.fetch` and `Runner.fetch_best`."""

    def fetch(self, output: Tensor, rows: Int32, logits: Float32) -> None: ...

    def fetch_best(self, output: Tensor, best: Best, targets: Int32 | None) -> None: ...


@dataclass(slots=True)
class StaticInputs:
    """Tensors over the arrays of one binding."""

    phase: str  # of the bucket; reusing a phase's name with another shape fails
    arguments: Arguments
    tensors: tuple[Tensor, ...]  # the arguments that are there: what a compiled graph takes


class StaticExecution:
    """CPU: one compiled graph per bucket; the graph reads the caller's memory anew at every call.

    The first run of a bucket calls the network, which compiles it. Later runs call the compiled graph itself:
    the network's ``__call__`` spends 2 ms in Python on checks that cannot come out otherwise (measured with
    four layers; it grows with the number of cells).
    """

    computes_by_itself = False

    def __init__(self, network: Any, facts: RunnerFacts) -> None:
        self.results = HostResults(facts.vocab_size)
        self._network = network
        self._run_graph = _cell_graph_executor._graph_executor
        self._graphs: dict[str, str] = {}  # MindSpore's full name of the graph by phase
        # a mask that is there keeps mindformers from gathering one of [T, max_length]
        self._mask = Tensor.from_numpy(np.zeros((1, 1), np.int32))

    def prepare(self, inputs: StepInputs) -> StaticInputs:
        arguments = _arguments(inputs)
        arguments[_ATTENTION_MASK] = self._mask
        tensors = tuple(argument for argument in arguments if argument is not None)
        bucket = inputs.bucket
        return StaticInputs(f"{bucket.tokens}x{bucket.rows}x{bucket.samples}", arguments, tensors)

    def run(self, prepared: StaticInputs) -> Tensor:
        graph = self._graphs.get(prepared.phase)
        if graph is not None:
            return self._run_graph(prepared.tensors, graph)
        self._network.phase = prepared.phase
        output = self._network(*prepared.arguments)
        self._graphs[prepared.phase] = self._network.phase_cache[prepared.phase]
        return output


class DynamicExecution:
    """Ascend: one graph for every shape; a new tensor per step makes the device copy straight from the array.

    Not run on a device so far: it is tested on CPU, with an attention cell for CPU.
    """

    computes_by_itself = True

    def __init__(self, network: Any, facts: RunnerFacts) -> None:
        self.results = DeviceResults(facts)
        self._network = network
        network.set_inputs(*_dynamic_arguments())

    def prepare(self, inputs: StepInputs) -> StepInputs:
        return inputs

    def run(self, prepared: StepInputs) -> Tensor:
        arguments = _arguments(prepared)
        # mindformers takes one past each token that is sampled
        arguments[_GATHER_INDEX] = Tensor.from_numpy(prepared.sample_index + np.int32(1))
        return self._network(*arguments)


def _arguments(inputs: StepInputs) -> Arguments:
    """Every positional input; tensors share the arrays' memory."""
    arguments: Arguments = [None] * _INPUTS
    arguments[_INPUT_IDS] = Tensor.from_numpy(inputs.input_ids.reshape(1, -1))
    arguments[_VALID_LENGTH] = Tensor.from_numpy(inputs.valid_length)
    arguments[_BLOCK_TABLES] = Tensor.from_numpy(inputs.block_tables)
    arguments[_SLOT_MAPPING] = Tensor.from_numpy(inputs.slot_mapping)
    arguments[_Q_SEQ_LENS] = Tensor.from_numpy(inputs.q_seq_lens)
    arguments[_GATHER_INDEX] = Tensor.from_numpy(inputs.sample_index)
    arguments[_SEQ_RANGE] = Tensor.from_numpy(inputs.positions)
    return arguments


def _dynamic_arguments() -> Arguments:
    arguments: Arguments = [None] * _INPUTS
    for index in (_VALID_LENGTH, _SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE):
        arguments[index] = Tensor(shape=[None], dtype=mstype.int32)
    arguments[_INPUT_IDS] = Tensor(shape=[1, None], dtype=mstype.int32)
    arguments[_BLOCK_TABLES] = Tensor(shape=[None, None], dtype=mstype.int32)
    return arguments
