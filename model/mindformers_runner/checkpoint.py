"""Finds every weight of an architecture in a checkpoint, and reads it.

Whether the checkpoint fits is decided from headers alone, before any memory is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from model.checkpoint.files import index_files, is_derived, require_fit
from model.checkpoint.stored_tensor import StoredTensor
from model.checkpoint.weight import Weight
from model.mindformers_runner.architecture import Architecture, Shape
from model.mindformers_runner.names import fused_sources, to_hugging_face, to_mindformers


def open_checkpoint(path: Path, architecture: Architecture) -> tuple[Weight, ...]:
    """Every weight that the architecture has, ready to be read.

    ``path``: a ``.safetensors`` or ``.ckpt`` file, a ``*.safetensors.index.json``, or a directory with them.
    Names may be Hugging Face's or mindformers'.

    Raises:
        CheckpointError: nothing found, unreadable or truncated files, and, in one message, all missing,
            surplus and wrongly shaped tensors.
    """
    stored = _by_mindformers_name(index_files(path), architecture)
    recipes = {name: fused_sources(name, architecture, stored) for name in architecture.tensors()}
    used = {source for recipe in recipes.values() for source in recipe.sources}
    theirs = any(name != tensor.name for name, tensor in stored.items())
    require_fit(path, _source_shapes(architecture, used), stored, to_hugging_face if theirs else str)
    return tuple(Weight(name, shape, recipes[name].reader(stored)) for name, shape in architecture.tensors().items())


def _by_mindformers_name(tensors: Mapping[str, StoredTensor], architecture: Architecture) -> dict[str, StoredTensor]:
    renamed = {to_mindformers(name): tensor for name, tensor in tensors.items() if not is_derived(name)}
    if architecture.tied_embeddings:
        renamed.pop("lm_head.weight", None)  # some tools store the shared matrix twice
    return renamed


def _source_shapes(architecture: Architecture, used: set[str]) -> dict[str, Shape]:
    """Shapes of the tensors that are read, which may be the unfused parts of what the model has."""
    return {name: shape for name, shape in all_shapes(architecture).items() if name in used}


def all_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The model's weights and, for a fused model, their parts."""
    return {**replace(architecture, qkv_concat=False).tensors(), **architecture.tensors()}
