"""Golden prompts on the configured engine, against the float32 reference on CPU: the same folder, other arithmetic.

The reference is the mindspore engine on CPU, or openvino where that is what is configured. It chooses the answers'
tokens, and the configured engine gets the same ones, so that one early difference does not hide what follows. Not run
on a device so far; openvino against mindspore is a test.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from model.errors import TokenizerError
from model.runner import Float32
from pipeline.config import Configuration, ConfigurationError, load_configuration
from pipeline.doctor.finding import Finding, fail, ok, warn
from pipeline.doctor.subject import Plan
from pipeline.runtime.tokenizer import open_tokenizer

TOPIC = "accuracy"
TOKENS: Final = 12
"""Of each answer."""

PROMPTS: Final = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
    "Water boils at 100 degrees; at the top of a high mountain it boils",
    "Un deux trois quatre cinq six sept huit neuf dix; ein zwei drei vier",
    "1 1 2 3 5 8 13 21 34 55 89 144 233 377 610 987 1597 2584 4181 6765",
)

_LONG = 24  # times the first of them: one that is computed in several pieces
_SPREAD = {"float32": 0.02, "half": 0.06, "byte": 0.2}  # of the logits' own, that a difference may be
_WRONG_SPREAD, _WRONG_SHARE, _GOOD_SHARE = 0.5, 0.8, 0.95
_TIMEOUT_S = 1800.0


class AccuracyError(Exception):
    """It can't be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two engines' logits. `spread`: the root mean square of the difference by the logits' own deviation."""

    positions: int
    largest: float
    spread: float
    same_best: int
    finite: bool

    @property
    def share(self) -> float:
        return self.same_best / self.positions

    def __str__(self) -> str:
        if not self.finite:
            return "logits that are not finite"
        return (
            f"{self.positions} positions: largest difference of a logit {self.largest:.3g}, "
            f"{100 * self.spread:.2g} % of their spread; the best token is the same at {self.same_best}"
        )


def compare(reference: Float32, ours: Float32) -> Agreement:
    """Arrays ``[…, vocab]`` of one shape."""
    expected = reference.reshape(-1, reference.shape[-1]).astype(np.float64)
    found = ours.reshape(expected.shape).astype(np.float64)
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return Agreement(len(expected), float("nan"), float("nan"), 0, finite=False)
    difference = found - expected
    spread = float(np.sqrt((difference**2).mean()) / expected.std(axis=-1).mean())
    same = int((found.argmax(axis=-1) == expected.argmax(axis=-1)).sum())
    return Agreement(len(expected), float(np.abs(difference).max()), spread, same, finite=True)


def verdict(agreement: Agreement, precision: str, what: str) -> Finding:
    """`precision` of the engine that is judged, a key of the limits above."""
    text, limit = f"{what}: {agreement}", _SPREAD[precision]
    if not agreement.finite or agreement.spread > _WRONG_SPREAD or agreement.share < _WRONG_SHARE:
        fix = (
            "this engine computes something else: try another precision, driver and CANN (doctor's pairs), or engine"
        )
        return fail(TOPIC, text, fix)
    if agreement.spread > limit or agreement.share < _GOOD_SHARE:
        return warn(TOPIC, f"{text}; usual is up to {100 * limit:g} %", "try a higher precision, and compare answers")
    return ok(TOPIC, text)


def check_accuracy(plan: Plan) -> Iterator[Finding]:
    """Starts both engines, one after the other; that takes as long as starting the server twice."""
    config = plan.config
    try:
        kind = reference_of(config)
        prompts = _prompts(config, plan.facts.vocab_size)
        with tempfile.TemporaryDirectory(prefix="ringserve-accuracy-") as directory:
            expected = _run(_reference(config, kind, Path(directory)), prompts, None, Path(directory))
            answers = expected.argmax(axis=-1).T.tolist()
            found = _run(config, prompts, answers, Path(directory))
    except (AccuracyError, ConfigurationError, TokenizerError) as error:
        yield fail(TOPIC, f"accuracy can't be measured: {error}", "correct what is named, or leave --accuracy out")
        return
    runner = config.pipeline.runner
    untried = " (not run on a device so far)" if plan.on_ascend else ""
    what = f"{runner.kind} on {runner.device} against {kind} on CPU in float32{untried}"
    yield verdict(compare(expected, found), precision_of(config), what)


def reference_of(config: Configuration) -> str:
    """The engine that is compared with. Raises AccuracyError."""
    runner = config.pipeline.runner
    if runner.kind == "emulated" or runner.random_weights:
        raise AccuracyError("an emulated device and random weights compute nothing that could be right")
    if (runner.kind, runner.device) == ("mindspore", "CPU"):
        return "openvino"
    return "mindspore"


def precision_of(config: Configuration) -> str:
    """That the configured engine computes in."""
    runner = config.pipeline.runner
    asked = f"{runner.weight_dtype} {runner.kv_dtype}"
    if "8" in asked:
        return "byte"
    return "half" if runner.device == "Ascend" or "16" in asked else "float32"


def _reference(config: Configuration, kind: str, directory: Path) -> Configuration:
    """Raises ConfigurationError for a model that this engine does not know."""
    path = directory / "reference.yaml"
    path.write_text(config.to_yaml())
    overrides = [f"pipeline.runner.kind={kind}", "pipeline.runner.device=CPU", "pipeline.cpus.inference=null"]
    return load_configuration(
        path, [*overrides, "pipeline.runner.weight_dtype=null", "pipeline.runner.kv_dtype=null"]
    )


def _prompts(config: Configuration, vocab_size: int) -> list[list[int]]:
    """As many as can run at once, the long one first. Raises TokenizerError."""
    tokenizer = open_tokenizer(config, vocab_size)
    texts = [" ".join([PROMPTS[0]] * _LONG), *PROMPTS]
    return [tokenizer.encode(text)[: config.max_length - TOKENS] for text in texts][: config.pipeline.max_rows]


def _run(
    config: Configuration, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]] | None, directory: Path
) -> Float32:
    """Raises AccuracyError."""
    files = [directory / name for name in ("engine.yaml", "asked.json", "logits.npy")]
    files[0].write_text(config.to_yaml())
    files[1].write_text(json.dumps({"prompts": prompts, "answers": answers, "tokens": TOKENS}))
    command = [sys.executable, "-P", "-m", "pipeline.doctor.golden", *map(str, files)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise AccuracyError(f"{config.pipeline.runner.kind} was not done within {_TIMEOUT_S:g} s") from None
    if done.returncode:
        why = files[2].read_text() if files[2].exists() else done.stderr.strip().rpartition("\n")[2]
        raise AccuracyError(f"{config.pipeline.runner.kind} on {config.pipeline.runner.device} failed: {why}")
    logits: Float32 = np.load(files[2])
    return logits
