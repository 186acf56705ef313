"""How many KV blocks the memory of this host has room for, beside the model and everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.families.shard import Shard
    from model.mindspore_common.memory import Sizes

_STAGES_BYTES = 400 << 20  # launcher, front, preprocess and sampling with a large vocabulary
_KIND, _BLOCKS, _ADAPTERS = "pipeline.runner.kind", "pa_config.num_blocks", "pipeline.lora.adapters"


class RoomUnknown(Exception):  # noqa: N818 - becomes a Problem
    """There is no room, or nobody knows how much. ``key``: of the setting to change."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Room:
    """``blocks`` of a replica fit into what is left of a rank's ``usable`` bytes beside ``taken`` ones."""

    blocks: int
    usable: int
    taken: int

    def __str__(self) -> str:
        return f"{_gib(self.usable)} may be used, of which model and stages take {_gib(self.taken)}"


def find_room(values: Mapping[str, Any], rows: int) -> Room:
    """Raises RoomUnknown where not a single block fits, for an Ascend device, and for an unsupported model."""
    if values["pipeline.runner.device"] == "Ascend":
        raise RoomUnknown(_BLOCKS, f"{_BLOCKS} is auto, but the memory of an Ascend device is not known here; set it")
    from model.errors import ModelError
    from model.mindspore_common.memory import available_memory

    try:
        fixed, block = _sizes(values, rows)
        sharing = (values["pipeline.replicas"] or 1) * _ranks(values)
        usable = int(available_memory() * values["pipeline.memory_fraction"]) // sharing
    except ModelError as error:
        raise RoomUnknown("model_config.model_cfg_path", str(error)) from error
    ring = values["pipeline.rings.logits_slots"] * rows * (values["model_config.vocab_size"] or 0) * 4
    taken = fixed + ring + _STAGES_BYTES
    if (blocks := (usable - taken) // block) < 1:
        raise RoomUnknown(
            "model_config.model_cfg_path",
            f"the model does not fit into memory: {_gib(usable)} may be used (pipeline.memory_fraction of what is "
            f"available), and weights, runtime and stages take {_gib(taken)}; use a smaller model or a larger host",
        )
    return Room(blocks, usable, taken)


def steady(blocks: int) -> int:
    """Rounded down to four significant bits. Compiled graphs have the number of blocks in them: were it that of the
    free memory of the moment, no start would find those of the last one."""
    step = 1 << max(0, blocks.bit_length() - 4)
    return blocks // step * step


def _sizes(values: Mapping[str, Any], rows: int) -> tuple[int, int]:
    """Bytes of the model without its KV cache, and of a block of that. Raises ModelError."""
    if values[_KIND] == "openvino":
        return _openvino_sizes(values, rows)
    from model.mindspore_common.memory import kv_block_bytes, memory_need
    from model.mindspore_common.settings import GraphSettings

    sizes, weights = _engine_sizes(values)
    settings = GraphSettings(**_settings(values, rows))
    need = memory_need(sizes, settings, weight_bytes=weights)
    return need.weights + need.runtime, kv_block_bytes(sizes, settings)


def _openvino_sizes(values: Mapping[str, Any], rows: int) -> tuple[int, int]:
    from model.families import read_spec_file
    from model.families.shard import Shard
    from model.openvino.memory import kv_block_bytes, memory_need, weight_bytes
    from model.openvino.settings import OpenVinoSettings

    settings = OpenVinoSettings(
        **_settings(values, rows),
        compile_cache_dir=kept if isinstance(kept := values["pipeline.runner.compile_cache"], Path) else None,
        weight_dtype=values["pipeline.runner.weight_dtype"],
        kv_dtype=values["pipeline.runner.kv_dtype"],
    )
    spec = read_spec_file(settings.config_path)
    block = kv_block_bytes(spec, settings)
    longest = values["model_config.max_generate_length"]
    need = memory_need(
        spec,
        settings,
        weight_bytes(spec, settings, _stored_bytes(values, Shard(spec, 0, 1))),
        longest if isinstance(longest, int) else spec.max_position,
    )
    return need.total - block, block


def _settings(values: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Of either engine, with a single block."""
    return {
        "config_path": values["model_config.model_cfg_path"],
        "num_blocks": 1,
        "block_size": values["pa_config.block_size"],
        "max_rows": rows,
        "token_budget": max(rows, values["pipeline.token_budget"]),
    }


def _engine_sizes(values: Mapping[str, Any]) -> tuple[Sizes, int | None]:
    """Of the model, and the bytes of its weights, where these are not all of one type."""
    path = values["model_config.model_cfg_path"]
    from model.families.shard import Shard

    if values[_KIND] == "mindspore":
        from model.families import read_spec_file

        shard = Shard(read_spec_file(path), 0, _ranks(values))
        return shard.spec, _stored_bytes(values, shard)
    from model.mindformers_runner.configuration import read_model

    spec, ranks = read_model(path)[0], _ranks(values)
    if ranks == 1:
        return spec, None
    own_head = replace(spec, tied_embeddings=False)  # a rank has a part of it, and the whole embedding
    return Shard(own_head, 0, ranks).spec, None


def _ranks(values: Mapping[str, Any]) -> int:
    return values["pipeline.ranks"] or 1


def _stored_bytes(values: Mapping[str, Any], shard: Shard) -> int | None:
    """Of a rank's weights, as far as they stay as they are stored, and of adapters; None: they become float32."""
    from model.adapters import model_weights, read_adapter
    from model.checkpoint.weight import size_bytes
    from model.errors import ModelError

    spec = shard.whole
    path, merged = values["model_config.checkpoint_path"], values["pipeline.lora.merged"]
    if path is None or values["pipeline.runner.random_weights"]:
        return None
    try:
        beside = (read_adapter(folder, spec).size_bytes for folder in (values[_ADAPTERS] or {}).values())
        return size_bytes(shard.weights(model_weights(spec, path, merged))) + sum(beside)
    except ModelError:  # the launcher's checks and the engine will say so
        return None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
