"""Finds every weight of an architecture in a checkpoint, and reads it.

Whether the checkpoint fits is decided from headers alone, before any memory is allocated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model.errors import CheckpointError
from model.mindformers_runner.architecture import Architecture, Shape
from model.mindformers_runner.mindspore_file import index_mindspore
from model.mindformers_runner.names import fused_sources, is_derived, to_mindformers
from model.mindformers_runner.safetensors_file import index_safetensors
from model.mindformers_runner.stored_tensor import Dtype, Float, StoredTensor

_LISTED = 20  # problems of one kind that an error spells out


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of the model, by its mindformers name, and how to read it."""

    name: str
    shape: Shape
    read: Callable[[Dtype], Float]


def open_checkpoint(path: Path, architecture: Architecture) -> tuple[Weight, ...]:
    """Every weight that the architecture has, ready to be read.

    ``path``: a ``.safetensors`` or ``.ckpt`` file, a ``*.safetensors.index.json``, or a directory with them.
    Names may be Hugging Face's or mindformers'.

    Raises:
        CheckpointError: nothing found, unreadable or truncated files, and, in one message, all missing,
            surplus and wrongly shaped tensors.
    """
    stored = _by_mindformers_name(_index_files(path), architecture)
    recipes = {name: fused_sources(name, architecture, stored) for name in architecture.tensors()}
    _require_fit(path, architecture, stored, {source for recipe in recipes.values() for source in recipe.sources})
    return tuple(Weight(name, shape, recipes[name].reader(stored)) for name, shape in architecture.tensors().items())


def checkpoint_files(path: Path) -> tuple[Path, ...]:
    """The files that make up a checkpoint."""
    if path.is_dir():
        return _files_of_directory(path)
    if not path.exists():
        raise CheckpointError(f"checkpoint {path} does not exist")
    return _files_of_index(path) if path.name.endswith(".index.json") else (path,)


def _files_of_directory(directory: Path) -> tuple[Path, ...]:
    indices = sorted(directory.glob("*.safetensors.index.json"))
    if indices:
        return _files_of_index(indices[0])
    for pattern in ("*.safetensors", "*.ckpt"):
        files = tuple(sorted(directory.glob(pattern)))
        if files:
            return files
    raise CheckpointError(f"{directory} holds no checkpoint: expected *.safetensors or *.ckpt files")


def _files_of_index(index: Path) -> tuple[Path, ...]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error!r}") from error
    files = tuple(index.parent / Path(name).name for name in sorted(names))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointError(f"{index} names files that are missing beside it: {', '.join(missing)}")
    return files


def _index_files(path: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in checkpoint_files(path):
        for name, tensor in _index_file(file).items():
            if name in tensors:
                raise CheckpointError(f"tensor {name} is in {tensors[name].file} and again in {file}")
            tensors[name] = tensor
    return tensors


def _index_file(file: Path) -> dict[str, StoredTensor]:
    try:
        if file.suffix == ".safetensors":
            return index_safetensors(file)
        if file.suffix == ".ckpt":
            return index_mindspore(file)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {file}: {error}") from error
    raise CheckpointError(f"checkpoint {file}: expected a .safetensors or .ckpt file")


def _by_mindformers_name(tensors: Mapping[str, StoredTensor], architecture: Architecture) -> dict[str, StoredTensor]:
    renamed = {to_mindformers(name): tensor for name, tensor in tensors.items() if not is_derived(name)}
    if architecture.tied_embeddings:
        renamed.pop("lm_head.weight", None)  # some tools store the shared matrix twice
    return renamed


def _require_fit(path: Path, architecture: Architecture, stored: Mapping[str, StoredTensor], used: set[str]) -> None:
    expected = _source_shapes(architecture, used)
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in stored]
    surplus = [f"{name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    wrong = [
        f"{name} is {stored[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = list(_problems(missing=missing, surplus=surplus, **{"wrongly shaped": wrong}))
    if problems:
        raise CheckpointError(f"checkpoint {path} does not fit the model configuration: {'; '.join(problems)}")


def _source_shapes(architecture: Architecture, used: set[str]) -> dict[str, Shape]:
    """Shapes of the tensors that are read, which may be the unfused parts of what the model has."""
    return {name: shape for name, shape in all_shapes(architecture).items() if name in used}


def all_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The model's weights and, for a fused model, their parts."""
    return {**replace(architecture, qkv_concat=False).tensors(), **architecture.tensors()}


def _problems(**kinds: list[str]) -> Iterator[str]:
    for kind, items in kinds.items():
        if items:
            rest = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
            yield f"{len(items)} {kind}: {', '.join(items[:_LISTED])}{rest}"
