"""A PEFT folder to an `Adapter`: whether its tensors are those of its configuration, and fit the base model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from model.adapters.adapter import WEIGHTS_FILE, Adapter, Change
from model.adapters.configuration import MERGE_IT, AdapterConfig, read_configuration
from model.checkpoint.files import Shape, misfits
from model.checkpoint.safetensors_file import index_safetensors
from model.checkpoint.stored_tensor import StoredTensor
from model.errors import CheckpointError
from model.families.canonical import Part, recipes
from model.families.spec import Spec

_PREFIX = re.compile(r"(?:base_model\.)?(?:model\.)*")
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<letter>[AB])(?:\.default)?\.weight")
_OTHERS = ("embed", "head", "experts_gate_up", "experts_down")
_REFUSED = {
    ".experts.": "adapters of experts are not supported",
    "embed": "adapters of embeddings are not supported",
    "lm_head": "adapters of the head are not supported",
    "lora_magnitude_vector": "DoRA is not supported",
    "lora_B.bias": "biases are not supported",
}
"""By what their tensors' names contain."""


def read_adapter(folder: Path, spec: Spec) -> Adapter:
    """An adapter of the model that ``spec`` describes. Its tensors are not read yet.

    Raises:
        ConfigurationError: no adapter, or one with a feature that is not supported.
        CheckpointError: files that can't be read; tensors that are missing, surplus or wrongly shaped, all in one
            message.
    """
    parts = dict(_parts(spec))
    config = read_configuration(folder, parts)
    file = _weights_file(folder)
    try:
        stored = _by_canonical_name(index_safetensors(file))
    except OSError as error:
        raise CheckpointError(f"cannot read adapter {folder}: {error}") from error
    _refuse_targets(folder, config, stored, parts)
    modules = _modules(config, stored, parts)
    _require_fit(folder, config, stored, modules)
    changes = {
        name: found for name, recipe in _linear(spec) if (found := tuple(_changes(recipe, config, stored, modules)))
    }
    rank = max(config.rank_of(module) for module in modules)
    return Adapter(folder, rank, changes)


def _weights_file(folder: Path) -> Path:
    file = folder / WEIGHTS_FILE
    if file.exists():
        return file
    pickle = folder / "adapter_model.bin"
    if not pickle.exists():
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE}; was the adapter downloaded or saved completely?")
    raise CheckpointError(
        f"{pickle} is a pickle, which can run code when it is read; convert it once, where torch is installed: "
        f'python -c "import torch, safetensors.torch; safetensors.torch.save_file(torch.load({str(pickle)!r}, '
        f'weights_only=True), {str(file)!r})"'
    )


def _by_canonical_name(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    stored: dict[str, StoredTensor] = {}
    for name, tensor in tensors.items():
        other = stored.setdefault(_canonical_name(name), tensor)
        if other is not tensor:
            raise CheckpointError(f"{tensor.file}: {other.name} and {name} are the same tensor; which one is right?")
    return stored


def _canonical_name(name: str) -> str:
    """``model.layers.0.self_attn.q_proj.lora_A.weight``, whatever PEFT has put around it."""
    found = _TENSOR.fullmatch(name)
    if found is None:
        return name
    module = "model." + _PREFIX.sub("", found["module"], count=1)
    return _tensor_name(module, found["letter"])


def _tensor_name(module: str, letter: str) -> str:
    return f"{module}.lora_{letter}.weight"


def _linear(spec: Spec) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """The recipes of what an adapter can change, by the name of the layer."""
    for name, recipe in recipes(spec).items():
        layer = name.removesuffix(".weight")
        if layer != name and len(recipe[0].shape) > 1 and layer.rpartition(".")[2] not in _OTHERS:
            yield layer, recipe


def _module(part: Part) -> str:
    return part.source.removesuffix(".weight")


def _parts(spec: Spec) -> Iterator[tuple[str, Part]]:
    """One part of each module that can have an adapter: it knows the module's shape."""
    for _, recipe in _linear(spec):
        yield from ((_module(part), part) for part in recipe)


def _refuse_targets(
    folder: Path, config: AdapterConfig, stored: Mapping[str, StoredTensor], parts: Mapping[str, Part]
) -> None:
    """Tensors that say by their name what can't be served."""
    for name, tensor in stored.items():
        found = _TENSOR.fullmatch(name)
        if found is not None and found["module"] in parts:
            continue
        reason = next((reason for word, reason in _REFUSED.items() if word in tensor.name), None)
        if reason is not None:
            raise CheckpointError(f"adapter {folder}: {tensor.name}: {reason}; {MERGE_IT}")


def _modules(config: AdapterConfig, stored: Mapping[str, StoredTensor], parts: Mapping[str, Part]) -> dict[str, Part]:
    """Those that have an adapter by the configuration, or of which there is a tensor."""
    there = {found["module"] for name in stored if (found := _TENSOR.fullmatch(name))}
    return {module: part for module, part in parts.items() if module in there or config.has(module)}


def _require_fit(
    folder: Path, config: AdapterConfig, stored: Mapping[str, StoredTensor], modules: Mapping[str, Part]
) -> None:
    expected: dict[str, Shape] = {}
    for module, part in modules.items():
        rank, (outputs, inputs) = config.rank_of(module), part.shape
        expected |= {_tensor_name(module, "A"): (rank, inputs), _tensor_name(module, "B"): (outputs, rank)}
    if not stored:
        raise CheckpointError(f"adapter {folder} has no tensors; was it saved completely?")
    if problems := misfits(expected, stored):
        raise CheckpointError(
            f"adapter {folder} does not fit the model: {problems}; was it trained on another model, or not saved "
            "completely?"
        )


def _changes(
    recipe: tuple[Part, ...], config: AdapterConfig, stored: Mapping[str, StoredTensor], modules: Mapping[str, Part]
) -> Iterator[Change]:
    first = 0
    for part in recipe:
        module = _module(part)
        if module in modules:
            a, b = (stored[_tensor_name(module, letter)] for letter in "AB")
            yield Change(first, part, a, b, config.scale_of(module))
        first += part.length
