"""An ``adapter_config.json``, as PEFT's LoraConfig writes it: which modules have an adapter, its rank and scale."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.adapters.patterns import Matches, match_all, require_pattern
from model.errors import ConfigurationError
from model.families.fields import Fields

CONFIG_FILE = "adapter_config.json"
MAX_RANK = 512
"""A larger one costs about as much as the layer itself, and is more likely a mistake."""

_HARMLESS = {
    *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type", "inference_mode"),
    *("lora_dropout", "fan_in_fan_out", "megatron_config", "megatron_core", "runtime_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size"),
    "ensure_weight_tying",
}
"""Keys that change nothing once the adapter is trained; PEFT itself ignores fan_in_fan_out for linear layers."""

MERGE_IT = "merge the adapter with PEFT (merge_and_unload), and serve the result"
_REMEDIES = {
    "use_dora": f"DoRA also rescales the weights: {MERGE_IT}",
    "bias": f"it comes with biases of the model itself: {MERGE_IT}",
    "modules_to_save": f"it comes with whole layers of its own: {MERGE_IT}",
    "init_lora_weights": "it changed the model's own weights: save it with save_pretrained's "
    "path_initial_model_for_weight_conversion, which makes a plain adapter of it, or merge it with PEFT",
}
_UNKNOWN = f"it is not known here, or not supported: {MERGE_IT}"
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
_LAYER = r".*?\.[^.]*\.(\d+)\..*"
_ALL = "all-linear"


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Modules are named as in the base model: ``model.layers.3.self_attn.q_proj``."""

    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank: int
    alpha: float
    rank_stabilized: bool
    targets: str | tuple[str, ...] | None  # None: nothing is said
    excluded: str | tuple[str, ...]
    layers: tuple[int, ...] | None  # None: all
    layer_patterns: tuple[str, ...]
    matches: Matches  # of its patterns, with the base model's modules

    def rank_of(self, module: str) -> int:
        return int(self._by_pattern(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = self._by_pattern(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)

    def has(self, module: str) -> bool:
        """Whether the module is one of the adapter's targets."""
        if self.targets is None or any(self._names(self.excluded, name) for name in _spellings(module)):
            return False
        if isinstance(self.targets, str):
            return any(self._names(self.targets, name) for name in _spellings(module))
        if module in self.targets:
            return True
        return self._names(self.targets, module) and self._has_layer(module)

    def _by_pattern(self, values: Mapping[str, float], module: str, default: float) -> float:
        """The first whose pattern matches, as PEFT looks for it."""
        for pattern, value in values.items():
            if any(name in self.matches[_ending(pattern)] for name in _spellings(module)):
                return value
        return default

    def _names(self, modules: str | tuple[str, ...], module: str) -> bool:
        """A regular expression, or a list of names or ends of names."""
        if isinstance(modules, str):
            return modules == _ALL or module in self.matches[modules]
        return any(module == name or module.endswith(f".{name}") for name in modules)

    def _has_layer(self, module: str) -> bool:
        if self.layers is None:
            return True
        patterns = [_of_layers(pattern) for pattern in self.layer_patterns] or [_LAYER]
        found = next((found for pattern in patterns if (found := self.matches[pattern].get(module))), None)
        return found is not None and found[-1] is not None and int(found[-1]) in self.layers

    def patterns(self) -> Iterator[tuple[str, str]]:
        """What is matched, and the part of it that the adapter has."""
        yield from ((_ending(pattern), pattern) for pattern in (*self.ranks, *self.alphas))
        yield from ((_of_layers(pattern), pattern) for pattern in self.layer_patterns)
        yield from ((it, it) for it in (self.targets, self.excluded) if isinstance(it, str) and it != _ALL)
        yield _LAYER, ""


def read_configuration(folder: Path, modules: Iterable[str]) -> AdapterConfig:
    """``modules``: of the base model.

    Raises ConfigurationError, which names the file, for what is missing, wrong or not supported.
    """
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{folder} is not an adapter: it has no {CONFIG_FILE}; give a folder that PEFT's save_pretrained wrote"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"cannot read the adapter's configuration {file}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the adapter's configuration {file} must hold an object")
    try:
        config = _configuration(Fields(content), content)
        names = (name for module in modules for name in _spellings(module))
        return replace(config, matches=match_all(config.patterns(), names))
    except ConfigurationError as error:
        raise ConfigurationError(f"the adapter's configuration {file}: {error}") from error


def _configuration(c: Fields, content: Mapping[str, Any]) -> AdapterConfig:
    if (kind := c.text("peft_type", "LORA")) != "LORA":
        raise ConfigurationError(f"peft_type is {kind!r}; only LORA is supported: merge it with PEFT, where it can")
    layers = c.get("layers_to_transform")
    config = AdapterConfig(
        ranks={key: _rank(c, f"rank_pattern.{key}", value) for key, value in _patterns(c, "rank_pattern").items()},
        alphas={key: float(value) for key, value in _patterns(c, "alpha_pattern").items()},
        rank=_rank(c, "r", c.count("r", 8)),
        alpha=c.number("lora_alpha", 8),
        rank_stabilized=c.flag("use_rslora"),
        targets=_modules(c, "target_modules"),
        excluded=_modules(c, "exclude_modules") or (),
        layers=(layers,) if isinstance(layers, int) else (c.items("layers_to_transform") or None),
        layer_patterns=_listed(_modules(c, "layers_pattern") or ()),
        matches={},
    )
    _refuse_features(c, content)
    return config


def _refuse_features(c: Fields, content: Mapping[str, Any]) -> None:
    if c.get("bias") not in (None, "none"):
        raise c.error("bias", _REMEDIES["bias"])
    if c.get("init_lora_weights") not in _PLAIN_STARTS:
        raise c.error("init_lora_weights", _REMEDIES["init_lora_weights"])
    for key in sorted(content.keys() - c.seen - _HARMLESS):
        if content[key]:  # what is off is null, false or empty
            raise c.error(key, _REMEDIES.get(key, _UNKNOWN))


def _rank(c: Fields, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_RANK:
        raise ConfigurationError(f"{key} is {value!r}; a rank must be a whole number from 1 to {MAX_RANK}")
    return value


def _patterns(c: Fields, key: str) -> dict[str, Any]:
    value = c.get(key) or {}
    if not isinstance(value, dict) or not all(
        isinstance(it, int | float) and not isinstance(it, bool) for it in value.values()
    ):
        raise c.error(key, "it must be an object of numbers by modules' names")
    _require_patterns(c, key, tuple(value))
    return value


def _modules(c: Fields, key: str) -> str | tuple[str, ...] | None:
    value = c.get(key)
    if isinstance(value, str):
        _require_patterns(c, key, (value,))
        return value
    items = c.items(key)
    if items is not None and not all(isinstance(item, str) for item in items):
        raise c.error(key, "it must be a list of modules' names, or a regular expression")
    return items


def _listed(modules: str | tuple[str, ...]) -> tuple[str, ...]:
    return (modules,) if isinstance(modules, str) else modules


def _require_patterns(c: Fields, key: str, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            require_pattern(pattern, pattern)
        except ConfigurationError as error:
            raise c.error(key, str(error)) from error


def _ending(pattern: str) -> str:
    """As PEFT looks for the keys of rank_pattern and alpha_pattern."""
    return rf"(.*\.)?({pattern})$"


def _of_layers(pattern: str) -> str:
    return rf"(?:^|.*?\.){pattern}\.(\d+)\..*"


def _spellings(module: str) -> tuple[str, str]:
    """PEFT has no ``model.`` before its modules' names where the base was loaded without its head."""
    return module, module.removeprefix("model.")
