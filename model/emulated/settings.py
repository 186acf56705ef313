"""The emulated device's cost model, and the ids it answers with."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ..errors import ConfigurationError
from ..runner import Bucket
from .fault import FAULTS

Choice = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CostModel:
    """Milliseconds of one step, and of what is brought to the host. Padding costs nothing, nor does the argmax."""

    fixed_ms: float  # reading the weights, launching the kernels
    per_token_ms: float = 0.0  # per new token
    per_row_ms: float = 0.0  # per row with new tokens
    per_cached_token_ms: float = 0.0  # per token of context that was there before the step, over all rows
    per_logits_row_ms: float = 0.0  # per sampled position whose logits are fetched
    per_candidate_ms: float = 0.0  # per candidate beyond the argmax that is fetched
    jitter_ms: float = 0.0  # standard deviation of a normal noise on the sum; 0: none
    jitter_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if not numeric or not 0 <= value < math.inf:
                raise ConfigurationError(f"cost_model.{field.name} is {value!r}, expected a number >= 0")

    def step_ms(self, tokens: int, rows: int, cached_tokens: int) -> float:
        """Without jitter, and before anything is fetched."""
        return (
            self.fixed_ms
            + self.per_token_ms * tokens
            + self.per_row_ms * rows
            + self.per_cached_token_ms * cached_tokens
        )


_KINDS: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(
            ("vocab_size", "max_length", "num_blocks", "block_size", "eos_token_id", "adapters", "seed"), int
        ),
        **dict.fromkeys(("emit_eos", "greedy_on_device"), bool),
        **dict.fromkeys(("eos_probability", "spin_us", "compile_s"), int | float),
        **dict.fromkeys(("name", "fault"), str),
        "fault_token": int | None,
    }
)


@dataclass(frozen=True, slots=True)
class EmulatedSettings:
    """Everything that `EmulatedRunner` needs. Raises ConfigurationError for what makes no sense."""

    cost: CostModel
    vocab_size: int
    max_length: int  # tokens per sequence
    num_blocks: int
    block_size: int
    buckets: tuple[Bucket, ...]
    eos_token_id: int = 2
    name: str = "device"  # what is emulated
    token_range: tuple[int, int] | None = None  # first and last + 1 of the ids that are chosen; None: all
    emit_eos: bool = False  # off: EOS has a logit that no temperature reaches
    eos_probability: float = 0.01  # chance of EOS at each token, if emit_eos
    greedy_on_device: bool = True
    adapters: int = 0  # so many there are; each gives another text
    seed: int = 0  # another seed, another text
    spin_us: float = 100.0  # the end of each step that is waited for awake, to be on time
    compile_s: float = 0.0  # seconds before the first step of each bucket; 0: nothing is compiled
    fault_token: int | None = None  # a step that brings this token makes the process fail
    fault: str = "segfault"  # how; one of FAULTS

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            if not isinstance(getattr(self, name), kind):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}, expected {_name_of(kind)}")
        for name in ("vocab_size", "max_length", "num_blocks", "block_size", "adapters"):
            least = int(name != "adapters")
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            raise ConfigurationError("buckets must be given, ascending and without duplicates")
        low, high = self.chosen_range
        if not 0 <= low < high <= self.vocab_size:
            raise ConfigurationError(f"token_range is [{low}, {high}], expected 0 <= first < last <= vocabulary")
        if high - low == 1 and low == self.eos_token_id:
            raise ConfigurationError("token_range holds nothing but eos_token_id")
        if self.emit_eos and not 0 <= self.eos_token_id < self.vocab_size:
            raise ConfigurationError(f"eos_token_id is {self.eos_token_id}, outside the vocabulary")
        if not 0 <= self.eos_probability <= 1 or not 0 <= self.spin_us <= 1000 or not 0 <= self.compile_s < math.inf:
            raise ConfigurationError("eos_probability must be in [0, 1], spin_us in [0, 1000], compile_s at least 0")
        if self.fault not in FAULTS:
            raise ConfigurationError(f"fault is {self.fault!r}, expected one of {', '.join(FAULTS)}")
        if self.fault_token is not None and not 0 <= self.fault_token < self.vocab_size:
            raise ConfigurationError(f"fault_token is {self.fault_token}, outside the vocabulary")
        if not 0 <= self.seed < 2**64:
            raise ConfigurationError(f"seed is {self.seed}, expected 0 to 2**64 - 1")

    @property
    def chosen_range(self) -> tuple[int, int]:
        return self.token_range or (0, self.vocab_size)

    @property
    def choice(self) -> Choice:
        """``(first id, number of ids without EOS, EOS or -1, hashes below this end the text)``."""
        low, high = self.chosen_range
        eos_inside = low <= self.eos_token_id < high
        threshold = min(int(self.eos_probability * 2**64), 2**64 - 1) if self.emit_eos else 0
        eos = self.eos_token_id if eos_inside or self.emit_eos else -1
        return low, high - low - eos_inside, eos, threshold

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any], **capacity: Any) -> EmulatedSettings:
        """From the ``pipeline.runner`` section of a configuration file.

        ``capacity`` are the settings that other sections decide: vocab_size, max_length, num_blocks,
        block_size, buckets, eos_token_id, adapters. Raises ConfigurationError for an unknown or missing key.
        """
        own = {field.name for field in fields(cls)} - {"cost", *capacity}
        _refuse_unknown(section, own | {"kind", "cost_model"}, "pipeline.runner")
        if not isinstance(section.get("cost_model"), Mapping):
            raise ConfigurationError("pipeline.runner.cost_model is missing; it needs at least fixed_ms")
        cost = section["cost_model"]
        _refuse_unknown(cost, {field.name for field in fields(CostModel)}, "pipeline.runner.cost_model")
        if "fixed_ms" not in cost:
            raise ConfigurationError("pipeline.runner.cost_model.fixed_ms is missing")
        values = {key: value for key, value in section.items() if key in own}
        if "token_range" in values:
            values["token_range"] = _token_range(values["token_range"])
        return cls(cost=CostModel(**cost), **values, **capacity)


def _name_of(kind: Any) -> str:
    names = {int: "an integer", int | None: "an integer", bool: "true or false", str: "a string"}
    return names.get(kind, "a number")


def _token_range(value: object) -> tuple[int, int]:
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(bound, int) for bound in value):
        return value[0], value[1]
    raise ConfigurationError(f"pipeline.runner.token_range is {value!r}, expected two integers [first, last + 1]")


def _refuse_unknown(section: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in section:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ConfigurationError(f"{where}.{key} is unknown{hint}")
