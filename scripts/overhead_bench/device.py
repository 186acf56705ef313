"""The emulated device that every variant runs on, and the time of its bare step."""

from __future__ import annotations

import dataclasses
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.demo import DEMO_DIR
from model.emulated import EmulatedRunner, EmulatedSettings
from model.runner import Bucket, StepInputs
from pipeline.config import Configuration, load_configuration
from pipeline.runners import make_runner

VOCABULARY, BLOCK_SIZE, MAX_LENGTH = 32000, 16, 4096  # Llama 2
PROMPT_ROOM = 64  # tokens that a prompt of the benchmark has at most

_CONFIGURATION = """
model_config:
  model_name: emulated
  vocab_size: {vocabulary}
  end_token: 2
  seq_length: {max_length}
  max_generate_length: {max_length}
  decode_batch_size: {rows}
pa_config: {{num_blocks: {blocks}, block_size: {block_size}}}
serving_config: {{server_port: 0}}
tokenizer: {{type: LlamaTokenizer, vocab_file: {tokenizer}}}
pipeline:
  max_queue: {queue}
  prefix_cache: false  # the same prompts come again and again
  log: {{level: warning}}
  runner:
    kind: emulated
    name: device with steps of {step_ms} ms
    cost_model: {{fixed_ms: {step_ms}}}
    token_range: [300, 2048]
"""


def write_configuration(file: Path, *, step_ms: float, rows: int, tokens: int) -> Path:
    """A server of `rows` rows whose every step takes `step_ms`, with KV blocks for `tokens` new ones in each."""
    blocks = 1 + max(MAX_LENGTH // BLOCK_SIZE, rows * -(-(tokens + PROMPT_ROOM) // BLOCK_SIZE))
    text = _CONFIGURATION.format(
        vocabulary=VOCABULARY,
        max_length=MAX_LENGTH,
        rows=rows,
        blocks=blocks,
        block_size=BLOCK_SIZE,
        tokenizer=Path(DEMO_DIR) / "tokenizer.json",
        queue=2 * rows,
        step_ms=step_ms,
    )
    file.write_text(text, encoding="utf-8")
    return file


def settings_of(config: Configuration) -> EmulatedSettings:
    """The settings of the device that a server under this configuration drives."""
    runner = make_runner(config)
    assert isinstance(runner, EmulatedRunner)
    return runner.settings


def serve_bare_steps(file: Path, pipe: Connection) -> None:
    """A process of its own, as the server's: answers (rows, steps, greedy) with the steps' durations in ns."""
    settings = settings_of(load_configuration(file))
    pipe.send("ready")
    while True:
        try:
            rows, steps, greedy = pipe.recv()
        except EOFError:
            return
        pipe.send(bare_steps(settings, rows, steps, greedy=greedy))


def bare_steps(settings: EmulatedSettings, rows: int, steps: int, *, greedy: bool) -> NDArray[np.int64]:
    """Drives the runner with nothing around it."""
    buckets = (Bucket(rows, rows),)
    blocks = 1 + rows * (MAX_LENGTH // BLOCK_SIZE)
    runner = EmulatedRunner(dataclasses.replace(settings, buckets=buckets, num_blocks=blocks, greedy_on_device=True))
    runner.load()
    inputs = _decode_inputs(runner, rows)
    binding = runner.bind(inputs)
    logits, tokens = np.zeros((rows, VOCABULARY), np.float32), np.zeros(rows, np.int32)
    ends = np.zeros(steps + 1, np.int64)
    ends[0] = time.monotonic_ns()
    for step in range(1, steps + 1):
        if greedy:
            runner.step_greedy(binding, tokens)
        else:
            runner.step(binding, logits)
        ends[step] = time.monotonic_ns()
    runner.close()
    return np.diff(ends)


def _decode_inputs(runner: EmulatedRunner, rows: int, context: int = 100) -> StepInputs:
    """One new token per row; where does not matter, since this device's time does not depend on it."""
    width = runner.facts.block_table_width
    tables = np.arange(rows * width, dtype=np.int32).reshape(rows, width)
    block, offset = divmod(context, BLOCK_SIZE)
    return StepInputs(
        input_ids=np.full(rows, 300, np.int32),
        positions=np.full(rows, context, np.int32),
        slot_mapping=tables[:, block] * np.int32(BLOCK_SIZE) + np.int32(offset),
        valid_length=np.full(rows, context + 1, np.int32),
        q_seq_lens=np.ones(rows, np.int32),
        gather_index=np.arange(rows, dtype=np.int32),
        block_tables=tables,
    )
