"""The devices that the server runs on, and the time of their bare step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.demo import DEMO_DIR
from model.emulated import EmulatedRunner, EmulatedSettings
from model.runner import Runner
from pipeline.config import Configuration, load_configuration
from pipeline.runtime.engines import make_runner
from scripts.lab.paths import ROOT
from scripts.lab.steps import greedy_step, step_inputs
from scripts.lab.vocabulary import write_tokenizer

_BLOCK_SIZE = 16
PROMPT_ROOM = 64  # tokens that a prompt of the benchmark has at most
_BARE_CONTEXT = 101  # tokens; an emulated device's time does not depend on it, the demo model's hardly

_COMMON = """
model_config:
  model_name: bench
  seq_length: {prompt}
  max_generate_length: {max_length}
  decode_batch_size: {rows}
  {model}
pa_config: {{num_blocks: {blocks}, block_size: {block_size}}}
serving_config: {{server_port: 0}}
pipeline:
  max_queue: {queue}
  prefix_cache: false  # the same prompts come again and again
  log: {{level: warning}}
  {pipeline}
"""
_EMULATED_MODEL = "vocab_size: {vocab}\n  end_token: {end}"
_LLAMA_2 = {"vocab": 32000, "end": 2}
_EMULATED_PIPELINE = """runner:
    kind: emulated
    name: device with steps of {step_ms} ms
    cost_model: {{fixed_ms: {step_ms}}}
    token_range: [300, 2048]
tokenizer: {{type: LlamaTokenizer, vocab_file: {tokenizer}}}"""
_DEMO_PIPELINE = """token_budget: 64
  runner: {{kind: mindformers, device: CPU, compile_cache: {cache}, warm_up: all}}"""
_CACHE = ROOT / ".cache" / "compile"  # that of configs/demo.yaml


@dataclass(frozen=True, slots=True)
class Device:
    """`step_ms` None: the demo model on this machine's CPUs, which the server's processes need, too."""

    step_ms: float | None
    max_length: int = 4096  # tokens of a sequence
    vocab: int | None = None  # tokens of a tokenizer made for it; None: Llama 2's number, with the demo's tokenizer

    @property
    def name(self) -> str:
        if self.step_ms is None:
            return "the demo model on CPU"
        return f"emulated, {self.step_ms:g} ms per step at every batch"

    def write(self, file: Path, rows: int) -> Path:
        """A configuration of `rows` rows, with KV blocks for all of them; of the demo model, at half their length."""
        tokens = self.max_length
        if self.step_ms is None:
            tokens //= 2
            model = f"model_cfg_path: {Path(DEMO_DIR) / 'config.json'}"
            pipeline = _DEMO_PIPELINE.format(cache=_CACHE)
        else:
            sizes = {"vocab": self.vocab, "end": self.vocab - 1} if self.vocab is not None else _LLAMA_2
            model = _EMULATED_MODEL.format(**sizes)
            tokenizer = self._tokenizer(file.parent)
            pipeline = _EMULATED_PIPELINE.format(step_ms=self.step_ms, tokenizer=tokenizer)
        text = _COMMON.format(
            prompt=self.max_length - 1,
            max_length=self.max_length,
            rows=rows,
            model=model,
            blocks=1 + max(self.max_length, rows * tokens) // _BLOCK_SIZE,
            block_size=_BLOCK_SIZE,
            queue=2 * rows,
            pipeline=pipeline,
        )
        file.write_text(text, encoding="utf-8")
        return file

    def _tokenizer(self, folder: Path) -> Path:
        return Path(DEMO_DIR) / "tokenizer.json" if self.vocab is None else write_tokenizer(folder, self.vocab)


def settings_of(config: Configuration) -> EmulatedSettings:
    """The settings of the emulated device that a server under this configuration drives."""
    runner = make_runner(config)
    assert isinstance(runner, EmulatedRunner)
    return runner.settings


def serve_bare_steps(file: Path, pipe: Connection) -> None:
    """A process of its own, as the server's: answers (rows, steps, greedy) with the steps' durations in ns."""
    runner = make_runner(load_configuration(file))
    runner.load()
    runner.warm_up()
    pipe.send("ready")
    while True:
        try:
            rows, steps, greedy = pipe.recv()
        except EOFError:
            break
        pipe.send(bare_steps(runner, rows, steps, greedy=greedy))
    runner.close()


def bare_steps(runner: Runner, rows: int, steps: int, *, greedy: bool) -> NDArray[np.int64]:
    """Drives the runner with nothing around it."""
    step = step_of(runner, rows, greedy=greedy)
    ends = np.zeros(steps + 1, np.int64)
    for number in range(steps + 1):
        step()
        ends[number] = time.monotonic_ns()
    return np.diff(ends)


def step_of(runner: Runner, rows: int, *, greedy: bool) -> Callable[[], None]:
    """Takes a step of so many rows; with `greedy` the device gives token ids instead of logits."""
    bucket = next(shape for shape in runner.facts.buckets if shape.rows >= rows)
    binding = runner.bind(step_inputs(runner.facts, bucket, _BARE_CONTEXT, rows))
    if greedy:
        return greedy_step(runner, binding, bucket.samples)
    logits = np.zeros((bucket.samples, runner.facts.vocab_size), np.float32)
    return lambda: runner.step(binding, logits)
