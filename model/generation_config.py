"""How the makers of a model sample: `generation_config.json`, as it comes with a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from model.errors import ModelError
from model.sampling import ParameterError, SamplingLimits, SamplingParams

_NAMES: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_ANY: Final = SamplingLimits(2**31 - 1, 2**31 - 1)


class GenerationConfigError(ModelError):
    """The file can't be used; the message says where it is wrong."""


def read_sampling_defaults(folder: Path) -> dict[str, float]:
    """Those that the file names, if there is one; by the names of `SamplingParams`. As in vLLM, `do_sample` does not
    count. Raises GenerationConfigError."""
    path = folder / "generation_config.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise GenerationConfigError(f"{path} can't be read as JSON: {error}") from None
    if not isinstance(document, dict):
        raise GenerationConfigError(f"{path} holds {type(document).__name__}, expected an object")
    return _checked({name: document[name] for name in _NAMES if document.get(name) is not None}, path)


def _checked(found: dict[str, float], path: Path) -> dict[str, float]:
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int if name == "top_k" else int | float):
            raise GenerationConfigError(f"{path}: {name} is {value!r}, expected a number")
    try:
        SamplingParams(**found).validate(_ANY)  # type: ignore[arg-type]
    except ParameterError as error:
        raise GenerationConfigError(f"{path}: {error}") from None
    return found
