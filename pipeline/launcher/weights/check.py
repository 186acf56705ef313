"""Whether the weights of a folder can take the place of those that are served; what differs is named.

Everything that stages have derived from the model stays as it is: so only its weights, its rope and its scales may be
others. Headers, tokenizer and adapters are read, and of each tensor a few kilobytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.errors import ModelError, TokenizerError
from model.folder import locate_model
from model.folder.tokenizer_files import find_tokenizer
from pipeline.config import Configuration, ConfigurationError, with_values
from pipeline.config.model_files import read_model_facts
from pipeline.config.source import Unreadable
from pipeline.launcher.reload import require_loadable
from pipeline.runtime.adapters import adapter_fingerprints
from pipeline.runtime.engines import facts_of
from pipeline.runtime.tokenizer import end_ids, open_tokenizer, sampling_defaults
from pipeline.runtime.weights import describe_weights, identify_folder, identify_weights

_SIZES = ("family", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size",
          "vocab_size", "dtype", "experts")  # fmt: skip
_LEFT_OVER = ("truncation", "padding")  # in a tokenizer.json; no engine here heeds them
_IN_PATH = r"""[^\s:;,'")]"""
_PATH = re.compile(rf"(?<![\w/.])/{_IN_PATH}*?([^\s:;,'\")/]+)(?!{_IN_PATH})")
PATHS = ("pipeline.model_dir", "model_config.model_cfg_path", "model_config.checkpoint_path", "tokenizer.vocab_file")
SEED = "pipeline.runner.seed"


class RefusedError(Exception):
    """The message says what differs, and names no path but the one that was given."""


@dataclasses.dataclass(frozen=True, slots=True)
class Weights:
    """`values`: settings that stand for them, by dotted key; none: what the configuration names."""

    id: str
    values: dict[str, str | int] = dataclasses.field(default_factory=dict)

    def in_place_of(self, config: Configuration) -> Configuration:
        """The same configuration, with these."""
        values = {key: Path(str(value)) if key in PATHS else value for key, value in self.values.items()}
        return with_values(config, values) if values else config


def examine(config: Configuration, folder: str) -> Weights:
    """Those of a folder, if they fit the configuration that is served. Raises RefusedError."""
    try:
        return _examine(config, folder)
    except ConfigurationError as error:
        raise RefusedError("; ".join(without_paths(one.message, folder) for one in error.problems)) from None
    except Unreadable as error:
        raise RefusedError(without_paths(error.problem.message, folder)) from None
    except (ModelError, OSError) as error:
        raise RefusedError(without_paths(str(error), folder)) from None


def _examine(config: Configuration, folder: str) -> Weights:
    if not Path(folder).is_absolute() or "\0" in folder:
        raise RefusedError("folder must be an absolute path on the server's machine")
    place = locate_model(Path(folder)).path
    if not (place / "config.json").is_file():
        raise RefusedError(f"{folder} has no config.json, which describes the model")
    weights = _values(config, place)
    made = weights.in_place_of(config)
    _refuse(_model_differences(config, made))
    require_loadable(made)
    _refuse(_differences(config, made))
    describe_weights(made)
    adapter_fingerprints(made)
    return weights if config.pipeline.runner.kind == "emulated" else Weights(identify_weights(made), weights.values)


def _refuse(differences: Iterable[str]) -> None:
    if named := "; ".join(differences):
        raise RefusedError(f"it is another model: {named}")


def _values(config: Configuration, place: Path) -> Weights:
    """An emulated device has no weights: the folder's id is the seed of its texts."""
    values: dict[str, str | int] = {
        "pipeline.model_dir": str(place),
        "model_config.model_cfg_path": str(place / "config.json"),
        "model_config.checkpoint_path": str(place),
        **({"tokenizer.vocab_file": str(place)} if _has_tokenizer(place) else {}),
    }
    if config.pipeline.runner.kind != "emulated":
        if config.pipeline.runner.random_weights:
            raise RefusedError("pipeline.runner.random_weights is set: no weights are loaded at all")
        return Weights("", values)
    made = {SEED: int(identify_folder(place), 16) >> 33}  # 31 bits: what the setting takes
    return Weights(identify_weights(with_values(config, made)), {**values, **made})


def _has_tokenizer(place: Path) -> bool:
    """Else it stays the one that is there."""
    with contextlib.suppress(TokenizerError):
        return bool(find_tokenizer(place))
    return False


def _differences(config: Configuration, made: Configuration) -> Iterator[str]:
    """Raises ModelError, OSError."""
    if config.pipeline.runner.kind != "emulated":
        yield from _engine_differences(config, made)
    if config.tokenizer.vocab_file != made.tokenizer.vocab_file:
        yield from _tokenizer_differences(config, made)
    if (before := sampling_defaults(config)) != (after := sampling_defaults(made)):
        yield _differs("generation_config.json", after, before)


def _model_differences(config: Configuration, made: Configuration) -> Iterator[str]:
    """Of the two `config.json`; an emulated device has none of its own. Raises ModelError, Unreadable."""
    from model.mindformers_runner.configuration import read_model

    assert made.model_config.model_cfg_path is not None
    if config.pipeline.runner.kind == "emulated":
        found, wanted = read_model_facts(made.model_config.model_cfg_path).vocab_size, config.model_config.vocab_size
        if found != wanted:
            yield _differs("vocab_size", found, wanted)
        return
    assert config.model_config.model_cfg_path is not None
    before, after = read_model(config.model_config.model_cfg_path)[0], read_model(made.model_config.model_cfg_path)[0]
    for name in _SIZES:
        if (found := getattr(after, name)) != (wanted := getattr(before, name)):
            yield _differs(name, found, wanted)
    if after.max_position < config.max_length:
        yield f"max_position_embeddings is {after.max_position}, expected at least {config.max_length}"


def _engine_differences(config: Configuration, made: Configuration) -> Iterator[str]:
    """What every process has derived from it."""
    before, after = facts_of(config), facts_of(made)
    for field in dataclasses.fields(before):
        found, wanted = getattr(after, field.name), getattr(before, field.name)
        if field.name != "name" and found != wanted:
            yield _differs(field.name, found, wanted)


def _tokenizer_differences(config: Configuration, made: Configuration) -> Iterator[str]:
    from model.tokenizer import pack_vocabulary

    before, after = (open_tokenizer(one, config.model_config.vocab_size) for one in (config, made))
    after.name = before.name  # where they lie is no difference
    if _read_tokenizer(config) != _read_tokenizer(made) or pack_vocabulary(before) != pack_vocabulary(after):
        yield "its tokenizer or its chat template is another one"
    if (wanted := end_ids(config, before)) != (found := end_ids(config, after)):
        yield _differs("the end tokens", sorted(found), sorted(wanted))


def _read_tokenizer(config: Configuration) -> object:
    """What its file says, but for what training has left in it."""
    assert config.tokenizer.vocab_file is not None
    file = find_tokenizer(config.tokenizer.vocab_file)
    if file.suffix != ".json":
        return file.read_bytes()
    return {key: value for key, value in json.loads(file.read_bytes()).items() if key not in _LEFT_OVER}


def _differs(name: str, found: object, wanted: object) -> str:
    return f"{name} is {found}, expected {wanted}"


def without_paths(text: str, folder: str) -> str:
    """An error for whoever gave this folder: other paths are cut to their names."""
    given = re.compile(rf"({re.escape(folder.rstrip('/'))}(?:/{_IN_PATH}*)?)(?!{_IN_PATH})")
    pieces = given.split(text)  # those that were matched in every other place
    return "".join(piece if number % 2 else _PATH.sub(r"\1", piece) for number, piece in enumerate(pieces))
