"""A step's arguments of mindformers' networks, and dynamic shapes as on Ascend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor
from mindspore import dtype as mstype

from model.mindformers_runner.networks import Network
from model.mindspore_common.execution import Arguments, Results, step_tensors
from model.runner import StepInputs

# positions in LlamaForCausalLM.construct
_INPUT_IDS, _ATTENTION_MASK, _VALID_LENGTH, _BLOCK_TABLES = 0, 4, 7, 10
_SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE = 11, 14, 16, 17
_INPUTS = 19


@dataclass(frozen=True, slots=True)
class NetworkArguments:
    """A network's positional arguments of a step; tensors share the arrays' memory where that is possible."""

    on_cpu: Callable[[StepInputs], Arguments]
    on_ascend: Callable[[StepInputs], Arguments]
    dynamic: Callable[[], Arguments]
    """Of any step: shapes unknown."""


class DynamicExecution:
    """Ascend: one graph for every shape; a new tensor per step makes the device copy straight from the array.

    Not run on a device so far: it is tested on CPU, with attention cells for CPU.
    """

    computes_by_itself = True

    def __init__(self, network: Any, arguments: NetworkArguments, results: Results) -> None:
        """``results``: of logits that stay on the device."""
        self.results = results
        self._network, self._arguments = network, arguments
        network.set_inputs(*arguments.dynamic())

    def prepare(self, inputs: StepInputs) -> StepInputs:
        return inputs

    def run(self, prepared: StepInputs) -> Tensor:
        return self._network(*self._arguments.on_ascend(prepared))


def _llama_on_cpu(inputs: StepInputs) -> list[Tensor | None]:
    arguments = _llama(inputs)
    # a mask that is there keeps mindformers from gathering one of [T, max_length]
    arguments[_ATTENTION_MASK] = Tensor.from_numpy(np.zeros((1, 1), np.int32))
    return arguments


def _llama_on_ascend(inputs: StepInputs) -> list[Tensor | None]:
    arguments = _llama(inputs)
    # mindformers takes one past each token that is sampled
    arguments[_GATHER_INDEX] = Tensor.from_numpy(inputs.sample_index + np.int32(1))
    return arguments


def _llama(inputs: StepInputs) -> list[Tensor | None]:
    arguments: list[Tensor | None] = [None] * _INPUTS
    arguments[_INPUT_IDS] = Tensor.from_numpy(inputs.input_ids.reshape(1, -1))
    arguments[_VALID_LENGTH] = Tensor.from_numpy(inputs.valid_length)
    arguments[_BLOCK_TABLES] = Tensor.from_numpy(inputs.block_tables)
    arguments[_SLOT_MAPPING] = Tensor.from_numpy(inputs.slot_mapping)
    arguments[_Q_SEQ_LENS] = Tensor.from_numpy(inputs.q_seq_lens)
    arguments[_GATHER_INDEX] = Tensor.from_numpy(inputs.sample_index)
    arguments[_SEQ_RANGE] = Tensor.from_numpy(inputs.positions)
    return arguments


def _llama_dynamic() -> list[Tensor | None]:
    arguments: list[Tensor | None] = [None] * _INPUTS
    for index in (_VALID_LENGTH, _SLOT_MAPPING, _Q_SEQ_LENS, _GATHER_INDEX, _SEQ_RANGE):
        arguments[index] = _unknown(1)
    arguments[_INPUT_IDS] = Tensor(shape=[1, None], dtype=mstype.int32)
    arguments[_BLOCK_TABLES] = _unknown(2)
    return arguments


def _gpt_dynamic() -> list[Tensor | None]:
    """Of `gpt.GptNetwork.construct`."""
    return [*(_unknown(1) for _ in range(6)), _unknown(2)]


def _unknown(dimensions: int) -> Tensor:
    return Tensor(shape=[None] * dimensions, dtype=mstype.int32)


ARGUMENTS: dict[Network, NetworkArguments] = {
    "Llama": NetworkArguments(_llama_on_cpu, _llama_on_ascend, _llama_dynamic),
    "GPTModel": NetworkArguments(step_tensors, step_tensors, _gpt_dynamic),
}
