"""The engines on which everything is tried: a server of two replicas each, and folders of other weights for it that
give the same texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model.demo import DEMO_DIR
from model.errors import ModelError
from model.families import read_spec_file
from model.families.canonical import recipes
from pipeline.config import Configuration, ConfigurationError, load_configuration, load_folder
from pipeline.runtime.deterministic import fixed_tokens
from pipeline.runtime.engines import facts_of
from scripts.lab.server import WARM
from scripts.tools.family_checkpoints import write_safetensors
from scripts.tools.family_weights import make_tensor
from scripts.tools.random_adapter import write_adapter
from scripts.verify.everything.kinds import ADAPTER, ADAPTERS, DETERMINISTIC, GRAMMARS, SCORES
from scripts.verify.survival.session import EMULATED

_MODEL: Mapping[str, Any] = MappingProxyType(
    {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 2048, "hidden_size": 64,
     "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
     "head_dim": 16, "max_position_embeddings": 1024, "rope_theta": 10000.0, "rms_norm_eps": 1e-5,
     "tie_word_embeddings": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}
)  # fmt: skip
"""Small, with the demo model's tokenizer."""
_RANK = 4
_SPECULATION = "pipeline.speculation.method=ngram"


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: `config` is a file or a folder. `able`: what its facts say it can do. `exact`: texts never
    change. `tolerance`: of log-probabilities. `first` and `others`: folders of weights with the same texts, of which
    the first is to be loaded before anything is asked."""

    engine: str
    config: Path
    overrides: tuple[str, ...]
    able: tuple[str, ...]
    exact: bool
    tolerance: float
    folders: tuple[Path, ...]
    load_first: bool


def build(engine: str, place: Path, replicas: int, extra: tuple[str, ...] = ()) -> Served:
    """Writes the folders below `place`. Raises BenchError, ModelError, ConfigurationError."""
    served = _emulated(place) if engine == "emulated" else _model(engine, place)
    common = (_SPECULATION, f"pipeline.replicas={replicas}", "pipeline.hang_timeout_s=2", *extra)
    served = replace(served, overrides=(*served.overrides, *common))
    adapted = (*served.overrides, f"pipeline.lora.adapters={{{ADAPTER}: {place / 'adapter'}}}")
    try:
        facts, overrides = facts_of(_configuration(served.config, adapted)), adapted
    except (ConfigurationError, ModelError) as error:
        print(f"{engine}: no adapters: {error}", flush=True)
        facts, overrides = facts_of(_configuration(served.config, served.overrides)), served.overrides
    can = {
        DETERMINISTIC: bool(fixed_tokens(facts)),
        ADAPTERS: facts.adapters > 0,
        SCORES: facts.scores,
        GRAMMARS: True,
    }
    return replace(served, overrides=overrides, able=tuple(name for name, is_so in can.items() if is_so))


def _configuration(config: Path, overrides: tuple[str, ...]) -> Configuration:
    return (load_folder if config.is_dir() else load_configuration)(config, overrides)


def _emulated(place: Path) -> Served:
    """Its texts come from a seed, and the seed from the folder: so the same one is loaded again and again."""
    folder = place / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"vocab_size": 32000, "max_position_embeddings": 4096}))
    sets = (
        "pipeline.runner.cost_model={fixed_ms: 10}",
        "pipeline.runner.emit_eos=true",
        "pipeline.runner.eos_probability=0.004",
    )
    return Served("emulated", EMULATED, sets, (), exact=True, tolerance=1e-9, folders=(folder,), load_first=True)


def _model(engine: str, place: Path) -> Served:
    """Folders with the same tensors, whose configurations differ in a label: so their ids do."""
    folders = tuple(place / name for name in ("first", "second", "third"))
    for folder in folders:
        _write_model(folder, folder.name)
    write_adapter(folders[0], place / "adapter", rank=_RANK, seed=1, scale=0.2)
    sets = (
        f"pipeline.runner.kind={engine}",
        WARM,
        "pipeline.max_rows=8",
        "pipeline.token_budget=32",
        "pipeline.runner.threads=1",
        f"pipeline.runner.compile_cache={place / 'compiled'}",
        "model_config.max_generate_length=1024",
        "pa_config.num_blocks=512",
    )
    return Served(engine, folders[0], sets, (), exact=False, tolerance=1e-4, folders=folders[1:], load_first=False)


def _write_model(folder: Path, label: str) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**_MODEL, "label": label}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((DEMO_DIR / name).read_bytes())
    parts = [part for recipe in recipes(read_spec_file(folder)).values() for part in recipe]
    tensors = {part.source: make_tensor("llama", part.source, part.shape) for part in parts}
    write_safetensors(folder / "model.safetensors", tensors)
