"""Checks of files and CPUs on this host. For a configuration that is made for another host they are warnings."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

from .draft import Draft
from .errors import Problem
from .files import is_folder, is_there
from .model_files import ModelFacts
from .pipeline_section import CpuConfig

_MODEL_FILE = "model_config.model_cfg_path"
_CHECKPOINT = "model_config.checkpoint_path"
_TOKENIZER = "tokenizer.vocab_file"
_TEMPLATE = "pipeline.chat_template"
_MODEL_DIR = "pipeline.model_dir"


def check_host(draft: Draft, facts: ModelFacts, missing: list[Problem]) -> None:
    """A path that is not set goes into the draft's problems, one that does not exist into ``missing``."""
    folder: Path | None = draft.values[_MODEL_DIR]
    if folder is not None and not is_folder(folder):
        message = f"{_MODEL_DIR} is {folder}, which is not a directory; give one"
        missing.append(draft.problem_at([_MODEL_DIR], message))
    if draft.values["pipeline.runner.kind"] != "emulated":
        _check_path(draft, _MODEL_FILE, "a mindformers YAML, or a Hugging Face config.json", missing)
        if not draft.values["pipeline.runner.random_weights"]:
            _check_checkpoint(draft, facts, missing)
    _check_tokenizer(draft, missing)
    _check_cpus(draft, missing)


def _check_path(draft: Draft, key: str, what: str, missing: list[Problem]) -> None:
    path, folder = draft.values[key], draft.values[_MODEL_DIR]
    if key in draft.bad or _MODEL_DIR in draft.bad:
        return
    if key not in draft.places and folder is not None and not is_folder(folder):
        return  # it would be in that directory, which is reported already
    if path is None:
        draft.reject([key], f"{key} is missing; give {what}, or pipeline.model_dir, a directory with everything")
    elif not is_there(path):
        missing.append(
            draft.problem_at(
                [key, _MODEL_DIR, _MODEL_FILE],
                f"{key} is {path}, which does not exist or is not readable; give {what}",
            )
        )


def _check_checkpoint(draft: Draft, facts: ModelFacts, missing: list[Problem]) -> None:
    if draft.values[_CHECKPOINT] is None and facts.checkpoint_name is not None:
        place = draft.problem_at([_MODEL_FILE], "")
        message = (
            f"{_CHECKPOINT} is missing, and the mindformers YAML has only a name for the checkpoint, "
            f"{facts.checkpoint_name!r}; give the path of the weights"
        )
        missing.append(Problem(place.source, place.line, message, _CHECKPOINT))
    elif draft.values[_CHECKPOINT] is not None or _readable(draft):  # else the file that would name it is missing
        _check_path(draft, _CHECKPOINT, "the weights", missing)


def _readable(draft: Draft) -> bool:
    path: Path | None = draft.values[_MODEL_FILE]
    return _MODEL_FILE not in draft.bad and path is not None and is_there(path)


def _check_tokenizer(draft: Draft, missing: list[Problem]) -> None:
    _check_path(draft, _TOKENIZER, "a tokenizer.model, a tokenizer.json or the directory of one", missing)
    path: Path | None = draft.values[_TOKENIZER]
    if path is not None and is_folder(path):
        from model.errors import TokenizerError
        from model.folder import find_tokenizer

        try:
            find_tokenizer(path)
        except TokenizerError as error:
            missing.append(draft.problem_at([_TOKENIZER, _MODEL_DIR, _MODEL_FILE], f"{_TOKENIZER}: {error}"))
    if draft.values[_TEMPLATE] is not None:
        _check_path(draft, _TEMPLATE, "a Jinja file, or leave it out to use the tokenizer's own template", missing)


def _check_cpus(draft: Draft, missing: list[Problem]) -> None:
    available = os.sched_getaffinity(0)
    for stage in fields(CpuConfig):
        key = f"pipeline.cpus.{stage.name}"
        named = draft.values[key] or ()
        absent = [] if isinstance(named, str) else sorted(set(named) - available)
        if absent:
            usable = ", ".join(map(str, sorted(available)))
            message = f"{key} names CPUs that this process may not use: {absent}; it may use {usable}"
            missing.append(draft.problem_at([key], message))
