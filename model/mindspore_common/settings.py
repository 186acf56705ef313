"""Settings that engines on MindSpore share, and the buckets (static shapes) that follow from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.errors import ConfigurationError
from model.layout import make_buckets, with_samples
from model.mindspore_common.ranks import ALONE, Collectives, Ranks
from model.runner import Bucket

KEY_GROUP = 16
"""Keys that lie side by side in the CPU's key cache (`kKeyGroup` in csrc/step.h)."""


def default_buckets(max_rows: int, token_budget: int, samples: int = 0) -> tuple[Bucket, ...]:
    """Few shapes for mixed steps, because each costs seconds of compilation: a prefill chunk is worth waiting for,
    and most steps decode."""
    return make_buckets(max_rows, token_budget, 4, samples)


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Settings of a `GraphRunner`."""

    config_path: Path
    """A mindformers YAML (``model.model_config``), a Hugging Face ``config.json``, or its directory."""
    checkpoint_path: Path | None = None
    """A checkpoint file or directory; None: random weights made from ``seed``, for benchmarks and tests."""
    adapters: tuple[Path, ...] = ()
    """LoRA adapters (PEFT folders) beside the model; a step's row n has the n-th, from 1."""
    merged_adapter: Path | None = None
    """One that is added to the weights when they are loaded; all rows have it."""
    device: Literal["CPU", "Ascend"] = "CPU"
    device_id: int = 0
    num_blocks: int = 512
    block_size: int = 16
    max_rows: int = 16
    token_budget: int = 256
    """Most new tokens of one step."""
    samples: int = 0
    """Most sampled positions of one step, if there may be more of them than rows: rows have drafts."""
    max_length: int | None = None
    """Most tokens of one sequence, prompt and output together; None: as many as the model knows positions."""
    buckets: tuple[Bucket, ...] | None = None
    """Buckets on CPU; None: `default_buckets`."""
    scored_samples: int = 0
    """Positions of prompts that a step may score, in a bucket of their own; 0: as many as there are rows."""
    threads: int | None = None
    """CPU: threads of the C++ operator; None: as many as the process may use."""
    compile_cache_dir: Path | None = None
    """Where compiled graphs are kept between runs; None: nowhere."""
    seed: int = 0
    """Of random weights."""
    greedy_on_device: bool = True
    """False: the runner brings logits only, no candidates and no scores."""
    ranks: Ranks = ALONE
    """Of how many processes that compute each step together this is which."""

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_rows", "token_budget"):
            _require_positive(name, getattr(self, name))
        for name in ("max_length", "threads"):
            if getattr(self, name) is not None:
                _require_positive(name, getattr(self, name))
        require_choice("device", self.device, ("CPU", "Ascend"))
        if self.device == "CPU" and self.block_size % KEY_GROUP:
            raise ConfigurationError(f"block_size is {self.block_size}; on CPU it must be a multiple of {KEY_GROUP}")
        if self.token_budget < self.max_rows:
            raise ConfigurationError(
                f"token_budget is {self.token_budget}, but {self.max_rows} rows (max_rows) need one token "
                f"each; raise token_budget to {self.max_rows} or lower max_rows"
            )
        for bucket in self.buckets or ():
            self._check_bucket(bucket)

    def _check_bucket(self, bucket: Bucket) -> None:
        tokens, rows, samples = bucket.tokens, bucket.rows, bucket.samples
        if not (1 <= rows <= self.max_rows and rows <= tokens <= self.token_budget):
            raise ConfigurationError(
                f"bucket of {tokens} tokens x {rows} rows: rows must be 1..{self.max_rows} "
                f"(max_rows) and tokens between rows and {self.token_budget} (token_budget)"
            )
        if not 1 <= samples <= tokens:
            raise ConfigurationError(f"bucket of {tokens} tokens x {rows} rows: {samples} of them can't be sampled")

    def effective_buckets(self) -> tuple[Bucket, ...]:
        """Shapes to compile, smallest first."""
        if self.buckets is None:
            buckets = default_buckets(self.max_rows, self.token_budget, self.samples)
            return with_samples(buckets, self.scored_samples)
        largest = Bucket(self.token_budget, self.max_rows)
        if largest not in self.buckets:
            raise ConfigurationError(
                f"buckets lack {largest.tokens} tokens x {largest.rows} rows (token_budget x max_rows), "
                "which every step fits into"
            )
        return tuple(sorted(set(self.buckets)))

    @property
    def collectives(self) -> Collectives:
        """How ranks add up: shared memory is the host's alone."""
        return self.ranks.reduce if self.device == "CPU" else "mindspore"

    def thread_count(self) -> int:
        return self.threads or len(os.sched_getaffinity(0))


def _require_positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}; it must be a positive whole number")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
