"""Checks of adapters: what they are called, which engine takes them, and whether their folders are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from .draft import Draft
from .errors import Problem
from .files import is_folder

MERGED: Final = "pipeline.lora.merged"
ADAPTERS: Final = "pipeline.lora.adapters"
_KIND: Final = "pipeline.runner.kind"
_TAKE_ADAPTERS: Final = ("mindspore", "emulated")
_NAMES: Final = ("pipeline.model_name", "pipeline.model_aliases", "serving_config.model_route")
_FOLDER: Final = "give one as PEFT writes it, with an adapter_config.json and an adapter_model.safetensors"
_WAYS: Final = ("/generate", "/generate_stream")  # llm-serving's paths are /models/NAME/generate
_LATEST: Final = ":latest"  # Ollama's clients write it behind a name, or leave it out


def check_lora(draft: Draft, missing: list[Problem]) -> None:
    """A folder that is not there goes into ``missing``."""
    if not draft.bad.intersection((_KIND, MERGED)):
        _check_merged(draft, draft.values[_KIND], draft.values[MERGED])
    if not draft.bad.intersection((_KIND, ADAPTERS)):
        _check_adapters(draft, draft.values[_KIND], draft.values[ADAPTERS])
    if draft.values[_KIND] != "emulated":
        missing += _absent(draft)


def _check_merged(draft: Draft, kind: str, merged: Path | None) -> None:
    if merged is not None and kind == "emulated":
        draft.reject((MERGED, _KIND), f"{MERGED} is {merged}, but an emulated device has no weights; leave it out")


def _check_adapters(draft: Draft, kind: str, adapters: Mapping[str, Path]) -> None:
    if adapters and kind not in _TAKE_ADAPTERS:
        message = (
            f"{ADAPTERS} has {', '.join(adapters)}, but {_KIND} is {kind}, which takes none; "
            "mindspore takes several, on CPU; or merge one with PEFT (merge_and_unload), and serve the result"
        )
        draft.reject((ADAPTERS, _KIND), message)
    else:
        _check_names(draft, adapters)


def _check_names(draft: Draft, adapters: Mapping[str, Path]) -> None:
    """A request must mean one model by its name, in every API."""
    own = "which is the model's own name ({key})"
    taken = {_plain(name): own.format(key=key) for key in _NAMES for name in _names(draft.values[key])}
    for name in adapters:
        other = "which ends like a path of the API" if name.endswith(_WAYS) else taken.get(_plain(name))
        if other is not None:
            draft.reject((ADAPTERS, *_NAMES), f"{ADAPTERS} has {name}, {other}; choose another name")
            return
        taken[_plain(name)] = f"which is the same as {name} in Ollama's API"


def _absent(draft: Draft) -> Iterator[Problem]:
    found, merged = draft.places.get(ADAPTERS), draft.values[MERGED]
    if merged is not None and not is_folder(merged):
        yield draft.problem_at((MERGED,), f"{MERGED} is {merged}, which is not a folder; {_FOLDER}")
    for name, folder in (draft.values[ADAPTERS] or {}).items():
        if found is not None and not is_folder(folder):
            message = f"{ADAPTERS}: {name} is {folder}, which is not a folder; {_FOLDER}"
            yield found.value[name].problem(ADAPTERS, message)


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _plain(name: str) -> str:
    return name.removesuffix(_LATEST)
