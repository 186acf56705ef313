"""Finds every weight of an architecture in a checkpoint, and reads it.

Whether the checkpoint fits is decided from headers alone, before any memory is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model.errors import CheckpointError
from model.folder import weight_files
from model.folder.other_formats import explain_file
from model.mindformers_runner.architecture import Architecture, Shape
from model.mindformers_runner.mindspore_file import index_mindspore
from model.mindformers_runner.names import fused_sources, is_derived, to_hugging_face, to_mindformers
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


def _index_files(path: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
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
    raise CheckpointError(explain_file(file))


def _by_mindformers_name(tensors: Mapping[str, StoredTensor], architecture: Architecture) -> dict[str, StoredTensor]:
    renamed = {to_mindformers(name): tensor for name, tensor in tensors.items() if not is_derived(name)}
    if architecture.tied_embeddings:
        renamed.pop("lm_head.weight", None)  # some tools store the shared matrix twice
    return renamed


def _require_fit(path: Path, architecture: Architecture, stored: Mapping[str, StoredTensor], used: set[str]) -> None:
    """Problems name a tensor as the file does, a missing one as its other tensors are named."""
    expected = _source_shapes(architecture, used)
    spelled = to_hugging_face if any(name != tensor.name for name, tensor in stored.items()) else str
    missing = [f"{spelled(name)} {shape}" for name, shape in expected.items() if name not in stored]
    surplus = [f"{tensor.name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    wrong = [
        f"{stored[name].name} is {stored[name].shape}, expected {shape}"
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
