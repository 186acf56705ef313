"""Which engine ``pipeline.runner.kind: auto`` comes to, and settings that an engine has only one value for."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .auto import AUTO, BATCH, BLOCK_SIZE, BLOCK_SIZES, BLOCKS, Choice
from .draft import Draft
from .files import is_there
from .lora import ADAPTERS

KIND = "pipeline.runner.kind"
RANKS = "pipeline.ranks"
OPENVINO_BLOCK = BLOCK_SIZES["openvino"]


def choose_engine(draft: Draft, known: Mapping[str, Any]) -> None:
    """``known``: what was chosen at an earlier time, which is kept."""
    values, path = draft.values, draft.values["model_config.model_cfg_path"]
    if values[KIND] != AUTO:
        return
    if values["pipeline.runner.device"] != "CPU" or path is None or path.suffix != ".json":
        values[KIND] = "mindformers"
    elif known[KIND] == "openvino" if KIND in known else _openvino_computes(path):
        _take_openvino(draft, known)
    else:
        values[KIND] = "mindspore"


def _take_openvino(draft: Draft, known: Mapping[str, Any]) -> None:
    """Unless adapters are to lie beside the model, or ranks to divide it, which only another engine can."""
    kind, why = "openvino", "it is installed, and this processor has AVX2"
    if (draft.values[RANKS] or 1) > 1 and KIND not in known:
        kind, why = "mindspore", f"openvino divides no model among ranks ({RANKS})"
    elif draft.values[ADAPTERS] and KIND not in known:
        kind, why = "mindspore", f"openvino takes no adapters beside the model ({ADAPTERS})"
    draft.values[KIND] = kind
    draft.choices.append(Choice(KIND, kind, why))


def _openvino_computes(path: Path) -> bool:
    """The model at ``path``, here. What is wrong with a configuration is left to the engine to say."""
    from model.errors import ConfigurationError
    from model.families import read_spec_file
    from model.openvino.requirements import missing_flag, missing_package, unsupported_feature

    if platform.machine() != "x86_64" or missing_flag() or missing_package() or not is_there(path):
        return False
    try:
        return unsupported_feature(read_spec_file(path)) is None
    except ConfigurationError:
        return False


def replace_block_size(draft: Draft) -> None:
    """By the one that the engine has; there are as many blocks as hold the same tokens."""
    values = draft.values
    size, blocks = values[BLOCK_SIZE], values[BLOCKS]
    if values[KIND] != "openvino" or size in {None, AUTO, OPENVINO_BLOCK}:
        return
    values[BLOCK_SIZE] = OPENVINO_BLOCK
    why = f"openvino's attention works in these, not in {size}"
    if isinstance(blocks, int):
        rows = values["pipeline.max_rows"] or values[BATCH]
        values[BLOCKS] = max(-(-blocks * size // OPENVINO_BLOCK), rows if isinstance(rows, int) else 1)
        why += f"; {BLOCKS} {blocks} becomes {values[BLOCKS]}"
    draft.choices.append(Choice(BLOCK_SIZE, OPENVINO_BLOCK, why))
