"""The effective configuration, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from .auto import Choice
from .checks import check
from .derive import derive
from .draft import read_draft
from .errors import ConfigurationError, Problem
from .overrides import Override, apply_overrides
from .pipeline_section import PipelineConfig
from .sections import ModelConfig, PagedAttentionConfig, ServingConfig, TokenizerConfig
from .served_folder import describe_folder
from .setting import build, section
from .source import Located, Unreadable, read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Every setting with its effective value; nothing in it is missing or contradicts something else."""

    model_config: ModelConfig = section(ModelConfig)
    serving_config: ServingConfig = section(ServingConfig)
    pa_config: PagedAttentionConfig = section(PagedAttentionConfig)
    tokenizer: TokenizerConfig = section(TokenizerConfig)
    pipeline: PipelineConfig = section(PipelineConfig)
    ignored_keys: tuple[str, ...] = ()
    """Dotted keys that were set and have no effect."""
    warnings: tuple[Problem, ...] = ()
    """What the host lacks; empty unless loaded for another host."""
    choices: tuple[Choice, ...] = ()
    """What was chosen where a setting is ``auto``."""

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, prompt and answer together."""
        return self.model_config.max_generate_length

    @property
    def max_prompt(self) -> int:
        """Tokens of the longest prompt; one at least is left for the answer."""
        return min(self.model_config.seq_length, self.max_length - 1)

    @property
    def block_table_width(self) -> int:
        """KV blocks of the longest sequence."""
        return -(-self.max_length // self.pa_config.block_size)

    def to_yaml(self) -> str:
        """The effective configuration as a file that gives the same configuration when it is loaded."""
        sections = [field.name for field in fields(self) if field.metadata]
        plain = {name: _plain(getattr(self, name)) for name in sections}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=1 << 16)


def load_configuration(
    path: str | Path,
    overrides: Iterable[str | Override] = (),
    *,
    other_host: bool = False,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> Configuration:
    """Read a configuration file.

    ``overrides`` are texts such as ``serving_config.server_port=9000``. With ``other_host``, files and CPUs that
    this host lacks are `Configuration.warnings` in place of mistakes. ``known``: what ``auto`` came to before.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    problems: list[Problem] = []
    try:
        root = read_file(Path(path), problems)
    except Unreadable as error:
        raise ConfigurationError([error.problem]) from None
    return _complete(Path(path), apply_overrides(root, overrides, problems), problems, other_host, known)


def load_folder(
    folder: Path,
    overrides: Iterable[str | Override] = (),
    *,
    other_host: bool = False,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> Configuration:
    """As `load_configuration`, for a model's folder instead of a file: everything is derived."""
    problems: list[Problem] = []
    root = apply_overrides(describe_folder(folder), overrides, problems)
    return _complete(folder, root, problems, other_host, known)


def _complete(
    path: Path, root: Located, problems: list[Problem], other_host: bool, known: Mapping[str, Any]
) -> Configuration:
    draft = read_draft(path, root, Configuration, problems)
    check(draft, derive(draft, known), other_host=other_host)
    if problems:
        raise ConfigurationError(problems)
    sections = {field.name: field.metadata["section"] for field in fields(Configuration) if field.metadata}
    return Configuration(
        **{name: build(kind, draft.values, name) for name, kind in sections.items()},
        ignored_keys=tuple(draft.ignored),
        warnings=tuple(draft.warnings),
        choices=tuple(draft.choices),
    )


def _plain(value: Any) -> Any:
    """As YAML's own types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
